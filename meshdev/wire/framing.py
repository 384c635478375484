"""How tunnel bytes are wrapped on their way: nothing (at the manager), SPDY, or SPDY inside a WebSocket."""

from collections.abc import Iterator
from typing import Protocol


class Framing(Protocol):
    """One direction-pair of a byte stream. Not thread-safe: one owner calls it.

    After :class:`~meshdev.errors.ProtocolError` or :class:`~meshdev.errors.PeerClosed` it is of no further use.
    """

    @property
    def headroom(self) -> int:
        """Bytes in front of a payload that :meth:`wrap` may overwrite."""
        ...

    def wrap(self, buffer: bytearray, start: int, end: int) -> memoryview | bytes:
        """The bytes to send for the payload ``buffer[start:end]``; may write into ``buffer[start - headroom:end]``.

        The result is valid until *buffer* changes.
        """
        ...

    def unwrap(self, data: memoryview) -> Iterator[memoryview]:
        """Payload in received bytes, in order; each view is valid until the iterator advances.

        Raises ProtocolError on bytes that cannot be, PeerClosed where the peer says goodbye.
        """
        ...

    def outgoing(self) -> bytes:
        """Control answers that are due (a SPDY PING's echo, a WebSocket pong); empty when there are none."""
        ...


class PlainFraming:
    """No wrapping at all: the manager's end, where the kubelet has taken the port-forward apart."""

    headroom = 0

    def wrap(self, buffer: bytearray, start: int, end: int) -> memoryview | bytes:
        """The payload itself."""
        return memoryview(buffer)[start:end]

    def unwrap(self, data: memoryview) -> Iterator[memoryview]:
        """The data itself."""
        yield data

    def outgoing(self) -> bytes:
        """Nothing, ever."""
        return b""
