"""How a carrier wraps tunnel bytes: plain (at the manager), SPDY, or SPDY inside a WebSocket."""

from collections.abc import Iterator
from typing import Final, Literal, Protocol, get_args

CarrierKind = Literal["spdy", "websocket"]
#: In the order in which they are tried, unless the user chose one.
CARRIER_KINDS: Final[tuple[CarrierKind, ...]] = get_args(CarrierKind)


class Framing(Protocol):
    """Both directions of a byte stream. Not thread-safe: it has one owner.

    After :class:`~meshdev.errors.ProtocolError` or :class:`~meshdev.errors.PeerClosed` it must not be used any more.
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
        """The payload of received bytes, in order; each view is valid until the iterator advances.

        Raises ProtocolError on invalid bytes, PeerClosed when the peer closes.
        """
        ...

    def outgoing(self) -> bytes:
        """Pending control answers (the echo of a SPDY PING, a WebSocket pong); empty when there are none."""
        ...


class PlainFraming:
    """No wrapping: the manager's end, where the kubelet has unwrapped the port-forward."""

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
