"""The pool: keeps every carrier of a session up, whatever ends them, and knows whether the tunnel works."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from meshdev.errors import LaptopError, MeshdevError, PeerClosed, ProtocolError, RefusedError, TunnelError, VersionError
from meshdev.pump.loop import Loop
from meshdev.tun.device import TunQueue
from meshdev.tunnel.carrier import Carrier, CarrierConnection, packet_thread
from meshdev.tunnel.claims import Claims
from meshdev.tunnel.traffic import TunnelTraffic
from meshdev.wire.control import Close, Hello, Sessions, Welcome
from meshdev.wire.session_api import CarrierStatus

log = logging.getLogger(__name__)

Dial = Callable[[], Awaitable[CarrierConnection]]

#: Backoff of redials, in seconds; docs/how-it-works.md promises it.
FIRST_BACKOFF: Final = 0.1
LONGEST_BACKOFF: Final = 2.0
#: How long the first carrier may be tried: a pod that just started does not listen yet.
START_SECONDS: Final = 15.0
#: How often the carriers are compared with each other, in seconds.
LOOK_SECONDS: Final = 0.5
#: Time for the goodbye to leave, in seconds.
CLOSE_SECONDS: Final = 2.0


class Pool:
    """The carriers of one session, one TUN queue each.

    Inside :meth:`running`, :meth:`start` brings up the first carrier and :meth:`run` keeps all of them up until it is
    cancelled. *on_welcome* is awaited with each WELCOME that differs from the one before (a new manager pod may have
    another address for us); *on_greeted* is called with the kind of each carrier that said HELLO and why the manager
    did not answer, if so. The manager's messages on :attr:`claims` go there. The queues stay their owner's.
    """

    def __init__(
        self,
        queues: Sequence[TunQueue],
        dial: Dial,
        hello: Hello,
        on_welcome: Callable[[Welcome], Awaitable[None]],
        on_greeted: Callable[[str, MeshdevError | None], None] = lambda _kind, _error: None,
    ) -> None:
        self._queues = queues
        self._dial = dial
        self._hello = replace(hello, carriers=len(queues))
        self._on_welcome = on_welcome
        self._on_greeted = on_greeted
        self.claims = Claims()
        """What this session claims of relays; sent to every manager that it connects to."""
        self._control_carrier: Carrier | None = None
        self._loop = Loop()
        self._carriers: dict[int, Carrier] = {}
        self.welcome: Welcome | None = None
        """The manager's last one."""
        self._welcoming = asyncio.Lock()
        self._closed = False
        self._over: asyncio.Future[None] | None = None
        self.last_error: MeshdevError | None = None
        """Why the last carrier ended or could not be dialled."""
        self._counting: set[Carrier] = set()
        self._ended_traffic = TunnelTraffic()
        """Of carriers that are no more."""
        self._joined: set[int] = set()
        self.reconnects = 0
        """How often a carrier took the place of another one."""

    def connected(self) -> bool:
        """Whether packets pass now: at least one carrier got something from the manager a moment ago."""
        return any(carrier.state().up for carrier in self._carriers.values())

    def carriers(self) -> tuple[CarrierStatus, ...]:
        """Every carrier that exists, in order."""
        return tuple(self._carriers[index].state() for index in sorted(self._carriers))

    def traffic(self) -> TunnelTraffic:
        """What has passed all carriers so far."""
        return sum((TunnelTraffic.of(each.counters) for each in self._counting), self._ended_traffic)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Packets move inside the block; at its end every carrier says goodbye.

        Nothing is left then: transports are closed, queues detached, the packet loop's thread is over. Should the
        packet loop break, the block is cancelled and the cause raised in a group.
        """
        for queue in self._queues:
            queue.detach()
        with packet_thread(self._loop) as over:
            self._over = over
            async with asyncio.TaskGroup() as group:
                group.create_task(_outcome(over))
                try:
                    yield
                finally:
                    await self.leave()
                    self._loop.stop()

    async def start(self) -> Welcome:
        """Bring the first carrier up. Raises what the last try raised; at once where another try cannot help."""
        backoff = FIRST_BACKOFF
        try:
            async with asyncio.timeout(START_SECONDS):
                while True:
                    try:
                        return (await self._join(0))[1]
                    except (VersionError, RefusedError):
                        raise
                    except TunnelError as error:
                        self.last_error = error
                    await asyncio.sleep(backoff)
                    backoff = min(LONGEST_BACKOFF, 2 * backoff)
        except TimeoutError:
            raise self.last_error or TunnelError(
                f"no port-forward to the manager within {START_SECONDS:.0f} seconds"
            ) from None

    async def run(self) -> None:
        """Keep every carrier up, until cancelled or closed.

        Raises a group with a LaptopError when the device or the laptop's network is of no further use.
        """
        async with asyncio.TaskGroup() as group:
            pruning = group.create_task(self._prune())
            async with asyncio.TaskGroup() as keepers:
                for index in range(len(self._queues)):
                    keepers.create_task(self._keep(index))
            pruning.cancel()

    async def leave(self) -> None:
        """Every carrier says goodbye, lets go of its queue and ends; :meth:`run` ends too. A second call does nothing.

        To be called inside :meth:`running`, while the device is still there. Waits for no peer.
        """
        self._closed = True
        for carrier in self._carriers.values():
            carrier.end(PeerClosed("disconnected"), Close("bye", "the laptop disconnects"))
        ended = [carrier.ended for carrier in self._carriers.values()]
        if ended and self._over is not None and not self._over.done():
            await asyncio.wait(ended, timeout=CLOSE_SECONDS)

    async def _keep(self, index: int) -> None:
        clock, backoff = asyncio.get_running_loop().time, FIRST_BACKOFF
        while not self._closed:
            steady = False
            try:
                carrier = self._carriers.get(index) or (await self._join(index))[0]
                log.info("carrier %d is up", index)
                since = clock()
                self.last_error = await asyncio.shield(carrier.ended)  # cancelling this task must not end the future
                self._carriers.pop(index, None)
                log.info("carrier %d ended: %s", index, self.last_error.message)
                steady = clock() - since > LONGEST_BACKOFF
            except LaptopError:
                raise
            except MeshdevError as error:
                self.last_error = error
                log.info("carrier %d cannot be dialled: %s", index, error.message)
            if steady:
                backoff = FIRST_BACKOFF  # redial at once; one that ends as soon as it is up waits like a failed one
            else:
                await asyncio.sleep(backoff)
                backoff = min(LONGEST_BACKOFF, 2 * backoff)

    async def _prune(self) -> None:
        """End a carrier that is silent while another one is not.

        The network works then, so nothing is won by waiting for SILENCE_SECONDS, and half of all flows would wait with
        it. The manager ends its side when the next carrier of that number comes.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            carriers = list(self._carriers.values())
            if any(carrier.state().up for carrier in carriers):
                for carrier in carriers:
                    if carrier.doubtful():
                        carrier.end(TunnelError("nothing came through the carrier while others were alive"))

    async def _join(self, index: int) -> tuple[Carrier, Welcome]:
        """A carrier that is up, in its place. Raises MeshdevError's kinds; there is no such carrier then."""
        dialled = await self._dial()
        if self._closed:
            dialled.transport.close()
            raise TunnelError("the tunnel was closed meanwhile")
        carrier = self._carriers[index] = Carrier(self._loop, dialled, self._queues[index], self.claims.on_message)
        self._counting.add(carrier)
        carrier.ended.add_done_callback(lambda _: self._carrier_ended(carrier))
        wanted = self.welcome.address if self.welcome else self._hello.wanted
        try:
            answer = await self._greet(carrier, dialled.kind, replace(self._hello, carrier=index, wanted=wanted))
            welcome = await self._welcomed(answer)
        except BaseException:
            carrier.end(PeerClosed("not needed"))
            self._carriers.pop(index, None)
            raise
        self._choose_control_carrier()
        self.reconnects += index in self._joined
        self._joined.add(index)
        return carrier, welcome

    def _carrier_ended(self, carrier: Carrier) -> None:
        self._counting.discard(carrier)
        self._ended_traffic += TunnelTraffic.of(carrier.counters)
        self._choose_control_carrier()

    async def _greet(self, carrier: Carrier, kind: str, hello: Hello) -> Welcome | Sessions:
        try:
            answer = await carrier.greet(hello)
        except MeshdevError as error:
            self._on_greeted(kind, error)
            raise
        self._on_greeted(kind, None)
        return answer

    def _choose_control_carrier(self) -> None:
        """Send claims over a carrier that is up, over the same one as long as it is."""
        up = [carrier for carrier in self._carriers.values() if carrier.greeted and not carrier.ended.done()]
        if self._control_carrier is None or self._control_carrier not in up:
            self._control_carrier = up[0] if up and not self._closed else None
            self.claims.use(self._control_carrier.send if self._control_carrier is not None else None)

    async def _welcomed(self, welcome: Welcome | Sessions) -> Welcome:
        if not isinstance(welcome, Welcome):
            raise ProtocolError("the manager took this session for an observer")
        async with self._welcoming:  # carriers that come back together bring the same WELCOME
            if welcome != self.welcome:
                await self._on_welcome(welcome)
                self.welcome = welcome
        return welcome


async def _outcome(over: asyncio.Future[None]) -> None:
    await over
