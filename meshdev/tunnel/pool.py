"""The pool: keeps every carrier of a session up, whatever ends them, and knows whether the tunnel works."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from meshdev.errors import MeshdevError, PeerClosed, ProtocolError, TunnelError, VersionError
from meshdev.pump.loop import Loop
from meshdev.tun.device import TunQueue
from meshdev.tunnel.carrier import Carrier, CarrierState, Dialled, RefusedError
from meshdev.wire.control import Close, Hello, Welcome

log = logging.getLogger(__name__)

Dial = Callable[[], Awaitable[Dialled]]

#: Backoff of redials, in seconds (design: D4).
FIRST_BACKOFF: Final = 0.1
LONGEST_BACKOFF: Final = 2.0
#: How long the first carrier may be tried: a pod that just started does not listen yet.
START_SECONDS: Final = 15.0
#: Time for the goodbye to leave, in seconds.
CLOSE_SECONDS: Final = 2.0


class Pool:
    """The carriers of one session, one TUN queue each.

    :meth:`start` brings up the first carrier, :meth:`run` keeps all of them up until it is cancelled. *on_welcome* is
    awaited with each WELCOME that differs from the one before (a new manager pod may have another address for us).
    The queues stay their owner's.
    """

    def __init__(
        self,
        queues: Sequence[TunQueue],
        dial: Dial,
        hello: Hello,
        on_welcome: Callable[[Welcome], Awaitable[None]],
    ) -> None:
        self._queues = queues
        self._dial = dial
        self._hello = replace(hello, carriers=len(queues))
        self._on_welcome = on_welcome
        self._loop = Loop()
        self._carriers: dict[int, Carrier] = {}
        self._welcome: Welcome | None = None
        self.last_error: MeshdevError | None = None
        """Why the last carrier ended or could not be dialled."""

    @property
    def welcome(self) -> Welcome | None:
        """The manager's last WELCOME."""
        return self._welcome

    def connected(self) -> bool:
        """Whether packets pass now: at least one carrier heard of the manager a moment ago."""
        return any(carrier.state().up for carrier in self._carriers.values())

    def carriers(self) -> tuple[CarrierState, ...]:
        """Every carrier that exists, in order."""
        return tuple(self._carriers[index].state() for index in sorted(self._carriers))

    async def packets(self) -> None:
        """Run the packet loop in its own thread, until :meth:`close`. To be awaited beside everything else."""
        for queue in self._queues:
            queue.detach()
        try:
            await asyncio.to_thread(self._loop.run)
        except asyncio.CancelledError:
            self._loop.stop()
            raise

    async def start(self) -> Welcome:
        """Bring the first carrier up. Raises what the last try raised; at once where another try cannot help."""
        try:
            async with asyncio.timeout(START_SECONDS):
                return await self._join_patiently()
        except TimeoutError:
            raise self.last_error or TunnelError(
                f"no port-forward to the manager within {START_SECONDS:.0f} seconds"
            ) from None

    async def _join_patiently(self) -> Welcome:
        backoff = FIRST_BACKOFF
        while True:
            try:
                return await self._join(0)
            except (VersionError, RefusedError):
                raise
            except TunnelError as error:
                self.last_error = error
            await asyncio.sleep(backoff)
            backoff = min(LONGEST_BACKOFF, 2 * backoff)

    async def run(self) -> None:
        """Keep every carrier up, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for index in range(len(self._queues)):
                group.create_task(self._keep(index))

    async def close(self) -> None:
        """Say goodbye on every carrier and end the packet loop. Nothing moves afterwards."""
        carriers = list(self._carriers.values())
        for carrier in carriers:
            carrier.end(PeerClosed("disconnected"), Close("bye", "the laptop disconnects"))
        if carriers:
            await asyncio.wait([carrier.ended for carrier in carriers], timeout=CLOSE_SECONDS)
        self._loop.stop()

    async def _keep(self, index: int) -> None:
        backoff = FIRST_BACKOFF
        while True:
            if carrier := self._carriers.get(index):
                self.last_error = await carrier.ended
                log.info("carrier %d ended: %s", index, self.last_error.message)
                self._carriers.pop(index, None)
            try:
                await self._join(index)
                backoff = FIRST_BACKOFF
                log.info("carrier %d is up", index)
            except MeshdevError as error:
                self.last_error = error
                log.info("carrier %d cannot be dialled: %s", index, error.message)
                await asyncio.sleep(backoff)
                backoff = min(LONGEST_BACKOFF, 2 * backoff)

    async def _join(self, index: int) -> Welcome:
        carrier = Carrier(self._loop, await self._dial(), self._queues[index])
        wanted = self._welcome.address if self._welcome else self._hello.wanted
        answer = await carrier.greet(replace(self._hello, carrier=index, wanted=wanted))
        if not isinstance(answer, Welcome):
            raise ProtocolError("the manager took this session for an observer")
        self._carriers[index] = carrier
        if answer != self._welcome:
            self._welcome = answer
            await self._on_welcome(answer)
        return answer
