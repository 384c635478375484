"""One carrier at the laptop's end: its pump, its HELLO and WELCOME, and when it ended.

A carrier is made and awaited by asyncio code; what touches packets runs in the thread of the pump's loop.
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, Protocol

from meshdev.config import HEARTBEAT_SECONDS, OLDEST_PROTOCOL, PROTOCOL
from meshdev.errors import DeviceError, MeshdevError, PeerClosed, ProtocolError, RefusedError, TunnelError, VersionError
from meshdev.pump.loop import Loop
from meshdev.pump.pump import Counters, Pump
from meshdev.pump.transport import ByteTransport
from meshdev.tun.device import TunQueue
from meshdev.tun.linux import set_offload
from meshdev.wire.control import Close, Hello, ManagerIdentity, Message, Sessions, Welcome, decode, encode
from meshdev.wire.framing import Framing
from meshdev.wire.intercepts import Issued, Relays, Report
from meshdev.wire.session_api import CarrierStatus
from meshdev.wire.watching import ClaimRecords

#: Time for WELCOME after the port-forward stands, in seconds.
WELCOME_SECONDS: Final = 5.0
#: Without a sign of life for this long a carrier is no proof of a connection, though not dead yet.
DOUBTFUL_SECONDS: Final = 2.5 * HEARTBEAT_SECONDS


class CarrierConnection(Protocol):
    """A port-forward that stands. ``kind`` is one of ``wire.framing.CARRIER_KINDS``."""

    @property
    def transport(self) -> ByteTransport: ...
    @property
    def framing(self) -> Framing: ...
    @property
    def kind(self) -> str: ...


class Carrier:
    """Owns the transport it was given; the queue stays the device owner's, attached only while the carrier is open.

    ``ended`` completes with the reason once the carrier is over; its transport is closed by then.
    """

    def __init__(
        self,
        loop: Loop,
        dialled: CarrierConnection,
        queue: TunQueue | None,
        on_intercept: Callable[[ManagerIdentity | Relays | Report | Issued | ClaimRecords], None] | None = None,
    ) -> None:
        """*on_intercept* gets the manager's messages on intercepts and its certificates, in the event loop of whoever
        makes the carrier."""
        self._main = asyncio.get_running_loop()
        self._loop = loop
        self._dialled = dialled
        self._queue = queue
        self._on_intercept = on_intercept
        self._welcome: asyncio.Future[Message] = self._main.create_future()
        self._greeted = False
        self._attached = False
        self.ended: asyncio.Future[MeshdevError] = self._main.create_future()
        self._pump: Pump | None = None

    async def greet(self, hello: Hello) -> Welcome | Sessions:
        """Say HELLO and wait for the answer. Raises MeshdevError's kinds; the carrier has ended then, or does at once.

        LaptopError's kinds mean that the TUN device is of no further use, TunnelError's that path or manager is.
        """
        self._loop.post(lambda: self._start(hello))
        try:
            async with asyncio.timeout(WELCOME_SECONDS):
                return _accepted(await self._welcome)
        except TimeoutError:
            error = TunnelError(f"the manager did not answer within {WELCOME_SECONDS:.0f} seconds")
            self.end(error)
            raise error from None
        except BaseException as error:
            self.end(error if isinstance(error, MeshdevError) else PeerClosed("cancelled"))
            raise

    def state(self) -> CarrierStatus:
        """From any thread; "up" means that something came from the manager a moment ago."""
        seconds = self._pump.round_trip if self._pump else None
        rtt_ms = None if seconds is None else round(seconds * 1e3, 2)
        return CarrierStatus(self._dialled.kind, self._silence() < DOUBTFUL_SECONDS, rtt_ms)

    @property
    def counters(self) -> Counters:
        """From any thread: what has passed."""
        return self._pump.counters if self._pump else Counters()

    @property
    def greeted(self) -> bool:
        """The manager answered HELLO."""
        return self._welcome.done()

    def doubtful(self) -> bool:
        """From any thread: it was agreed on, has not ended, and nothing came from the manager for DOUBTFUL_SECONDS."""
        return DOUBTFUL_SECONDS <= self._silence() < math.inf

    def _silence(self) -> float:
        """Seconds since something came from the manager; infinite before WELCOME and after the end."""
        if self._pump is None or self.ended.done() or not self._welcome.done():
            return math.inf
        return self._loop.clock() - self._pump.last_received

    def send(self, message: Message) -> None:
        """From any thread: one control message, in order. Lost when the carrier ends meanwhile."""
        frame = encode(message)

        def send() -> None:
            if self._pump is not None:
                self._pump.send(frame)

        self._loop.post(send)

    def end(self, reason: MeshdevError, goodbye: Close | None = None) -> None:
        """From any thread: say *goodbye* if given, and end."""

        def stop() -> None:
            if self._pump is None:
                self._dialled.transport.close()
                self._on_end(reason)
                return
            if goodbye is not None:
                self._pump.send(encode(goodbye))
            self._pump.end(reason)

        self._loop.post(stop)

    # -- in the loop's thread --------------------------------------------------------------------------------------

    def _start(self, hello: Hello) -> None:
        self._pump = Pump(
            self._loop,
            self._dialled.transport,
            self._dialled.framing,
            on_frame=self._on_frame,
            on_end=self._on_end,
        )
        self._pump.start(ping=not hello.observer, greeting=encode(hello))

    def _on_frame(self, kind: int, body: bytes) -> None:
        message = decode(kind, body)
        match message:
            case Welcome() if self._queue is not None and not self._greeted:
                if not OLDEST_PROTOCOL <= message.version <= PROTOCOL:
                    raise ProtocolError(f"the manager chose protocol {message.version}")
                self._join(message, self._queue)
            case Close() if not self._greeted:
                self._answer(message)
            case Close():
                raise PeerClosed(message.reason)
            case Sessions() if self._queue is None and not self._greeted:
                self._answer(message)
            case ManagerIdentity() | Relays() | Report() | Issued() | ClaimRecords() if (
                self._greeted and self._on_intercept is not None
            ):
                self._main.call_soon_threadsafe(self._on_intercept, message)
            case None:
                pass
            case _:
                raise ProtocolError(f"a tunnel frame of kind {kind} came out of turn")

    def _join(self, welcome: Welcome, queue: TunQueue) -> None:
        queue.attach()
        self._attached = True
        set_offload(queue.fileno(), welcome.offload)
        if self._pump is not None:
            self._pump.attach(queue.fileno(), welcome.offload)
        self._answer(welcome)

    def _answer(self, message: Message) -> None:
        self._greeted = True
        self._main.call_soon_threadsafe(_complete, self._welcome, message, None)

    def _on_end(self, error: MeshdevError) -> None:
        if self._attached and self._queue is not None:
            self._attached = False
            try:
                self._queue.detach()
            except DeviceError as gone:  # somebody removed the device: worth more than why the carrier ended
                error = gone
        self._main.call_soon_threadsafe(self._report_end, error)

    def _report_end(self, error: MeshdevError) -> None:
        _complete(self._welcome, None, error)
        # An end that nobody waits for any more is no mistake.
        if self._welcome.done() and not self._welcome.cancelled():
            self._welcome.exception()
        if not self.ended.done():
            self.ended.set_result(error)


def _complete(future: asyncio.Future[Message], message: Message | None, error: MeshdevError | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    elif message is not None:
        future.set_result(message)


def _accepted(answer: Message) -> Welcome | Sessions:
    match answer:
        case Welcome() | Sessions():
            return answer
        case Close(code="version"):
            others = f" ({answer.sessions} sessions are on it)" if answer.sessions else ""
            hint = f"meshdev connect --upgrade replaces the manager{others}"
            raise VersionError(answer.reason, hint=hint, sessions=answer.sessions)
        case Close():
            raise RefusedError(f"the manager refused: {answer.reason}")
        case _:
            raise ProtocolError("the manager's first message was not WELCOME")


@contextmanager
def packet_thread(loop: Loop) -> Iterator[asyncio.Future[None]]:
    """Run *loop* in a thread of its own; yields a future that completes, or raises, when the loop does.

    At the block's end the loop is stopped, its thread joined (the caller's event loop waits for one round of it, not
    for a peer) and *loop* closed, so that all that was posted has run.
    """
    with ThreadPoolExecutor(1, "packets") as executor:
        try:
            yield asyncio.get_running_loop().run_in_executor(executor, loop.run)
        finally:
            loop.stop()
            executor.shutdown()
            loop.close()


async def observe(dialled: CarrierConnection, hello: Hello) -> Sessions:
    """Ask the manager who is on it, through a port-forward of its own. Raises TunnelError and its kinds."""
    loop = Loop()
    with packet_thread(loop):
        carrier = Carrier(loop, dialled, None)
        answer = await carrier.greet(hello)
        carrier.end(PeerClosed("observed"))
    if not isinstance(answer, Sessions):
        raise ProtocolError("the manager answered an observer with WELCOME")
    return answer
