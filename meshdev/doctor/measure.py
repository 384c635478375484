"""What a port-forward to the manager carries, without a session on it.

Before HELLO the manager answers heartbeats and skips frames of kinds that it does not know
(:mod:`meshdev.wire.frames`). So a heartbeat measures the round trip, and one behind frames of no meaning measures how
fast those got there. Nothing of it leaves the manager's tunnel container.
"""

import select
import time
from typing import Final

from meshdev.doctor.verdicts.manager import Measured
from meshdev.errors import PeerClosed, TunnelError
from meshdev.kube.portforward import PortForward
from meshdev.wire import frames

#: Of a kind that no version knows: skipped by all.
_UNKNOWN: Final = frames.OPTIONAL | 0x7F
_FILLING: Final = frames.frame(_UNKNOWN, bytes(frames.MAX_CONTROL - frames.HEADER_SIZE))
#: The best of so many heartbeats is the round trip.
_HEARTBEATS: Final = 3
#: Bursts double until one takes this long, in seconds: by then a window has opened and timers count little.
_LONG_ENOUGH: Final = 0.15
#: Most frames of one burst, 16 MiB: the API server, and everybody on it, carries them.
_MOST_FRAMES: Final = 256
_READ: Final = 65536


def measure(dialled: PortForward, seconds: float) -> Measured:
    """Measure for *seconds* at most, then close the port-forward. Blocks: call it in a thread.

    Raises TunnelError and its kinds where not even a heartbeat comes back.
    """
    end = time.monotonic() + seconds
    try:
        carried = _MeasuredStream(dialled, end)
        round_trip = min(carried.burst(0) for _ in range(_HEARTBEATS))
        return Measured(round_trip, _upload(carried, round_trip))
    finally:
        dialled.transport.close()


def _upload(carried: "_MeasuredStream", round_trip: float) -> float | None:
    """Bytes a second; None where no burst got through in time."""
    found: float | None = None
    many = 1
    while many <= _MOST_FRAMES:
        try:
            took = carried.burst(many)
        except _UnansweredError:
            return found
        found = many * len(_FILLING) / max(took - round_trip, 1e-6)
        if took > _LONG_ENOUGH:
            return found
        many *= 2
    return found


class _UnansweredError(TunnelError):
    """Time is up."""


class _MeasuredStream:
    """Frames on a port-forward, blocking until a deadline."""

    def __init__(self, dialled: PortForward, end: float) -> None:
        self._dialled = dialled
        self._end = end
        self._decoder = frames.FrameDecoder()
        self._buffer = memoryview(bytearray(_READ))
        self._beats = 0
        self._poll = select.poll()
        self._poll.register(dialled.transport.fileno(), select.POLLIN)

    def burst(self, many: int) -> float:
        """Seconds until a heartbeat behind *many* frames has come back."""
        started = time.monotonic()
        for _ in range(many):
            self._send(_FILLING)
        self._beats += 1
        mark = self._beats.to_bytes(frames.PING_SIZE, "big")
        self._send(frames.frame(frames.PING, mark))
        while mark not in self._answers():
            self._wait(select.POLLIN)
        return time.monotonic() - started

    def _send(self, frame: bytes) -> None:
        framing = self._dialled.framing
        buffer = bytearray(framing.headroom) + frame
        left = memoryview(bytes(framing.wrap(buffer, framing.headroom, len(buffer))))
        while left:
            try:
                left = left[self._dialled.transport.send(left) :]
            except BlockingIOError:
                self._wait(select.POLLOUT)
            except OSError as error:
                raise TunnelError(f"the port-forward broke: {error.strerror}") from error

    def _answers(self) -> list[bytes]:
        """The heartbeats that have come back, from what can be read at once."""
        found: list[bytes] = []
        while True:
            try:
                size = self._dialled.transport.recv_into(self._buffer)
            except BlockingIOError:
                return found
            except OSError as error:
                raise TunnelError(f"the port-forward broke: {error.strerror}") from error
            if not size:
                raise PeerClosed("the port-forward was closed by the other end")
            for payload in self._dialled.framing.unwrap(self._buffer[:size]):
                found += [bytes(body) for kind, body in self._decoder.feed(payload) if kind == frames.PONG]

    def _wait(self, event: int) -> None:
        left = self._end - time.monotonic()
        self._poll.modify(self._dialled.transport.fileno(), event)
        if left <= 0 or not self._poll.poll(left * 1000):
            raise _UnansweredError("the traffic-manager did not answer in time")
