"""A byte stream in binary WebSocket messages (RFC 6455, client side) around another framing.

kubectl's own form of port-forward since 1.31 (KEP-4006): the SPDY bytes of :mod:`meshdev.wire.spdy` in binary
messages, unwrapped by the API server. It treats them as a stream: message boundaries carry no meaning.
"""

from collections.abc import Callable, Iterator
from struct import Struct
from typing import Final

from meshdev.errors import PeerClosed, ProtocolError
from meshdev.wire.framing import Framing

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover -- no compiled wheel for this platform
    from websockets.utils import apply_mask

_CONTINUATION: Final = 0x0
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
_FIN: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80

_SHORT: Final = Struct(">BB")
_MEDIUM: Final = Struct(">BBH")
_LONG: Final = Struct(">BBQ")
_MASK_SIZE: Final = 4
_LONGEST_HEADER: Final = _LONG.size + _MASK_SIZE

_CONTROL_LIMIT: Final = 125  # RFC 6455, 5.5
_OUTGOING_LIMIT: Final = 8 * 1024
_NO_STATUS: Final = 1005  # RFC 6455, 7.1.5


def _header(opcode: int, size: int) -> bytes:
    """Header of a whole, masked message, without the mask."""
    if size < 126:
        return _SHORT.pack(_FIN | opcode, _MASKED | size)
    if size < 1 << 16:
        return _MEDIUM.pack(_FIN | opcode, _MASKED | 126, size)
    return _LONG.pack(_FIN | opcode, _MASKED | 127, size)


class WebSocketFraming:
    """One binary message for each ``wrap`` of the *inner* framing; what arrives goes to the inner one in pieces.

    *mask* gives four unpredictable bytes a call (RFC 6455, 5.3). ``unwrap`` must be exhausted before it is called
    again.
    """

    def __init__(self, inner: Framing, mask: Callable[[], bytes]) -> None:
        self._inner = inner
        self._mask = mask
        self.headroom = inner.headroom + _LONGEST_HEADER
        self._partial = bytearray()  # a frame header that arrived in pieces
        self._left = 0  # payload bytes of the current frame that are still to come
        self._opcode = _BINARY
        self._in_message = False  # the last data frame had no FIN: a continuation must follow
        self._control = bytearray()
        self._outgoing = bytearray()

    def message(self, payload: bytes, opcode: int = _BINARY) -> bytes:
        """A whole masked message: for bytes that are not tunnel payload, such as the inner framing's opening."""
        mask = self._mask()
        return _header(opcode, len(payload)) + mask + apply_mask(payload, mask)

    def wrap(self, buffer: bytearray, start: int, end: int) -> memoryview:
        """One message, masked in place."""
        inner = self._inner.wrap(buffer, start, end)
        size, mask = len(inner), self._mask()
        header = _header(_BINARY, size) + mask
        masked = apply_mask(inner, mask)
        # Copied back, so that header and payload leave in one TLS write; the inner framing's bytes fit its headroom.
        first = end - size - len(header)
        view = memoryview(buffer)
        view[first : end - size] = header
        view[end - size : end] = masked
        return view[first:end]

    def unwrap(self, data: memoryview) -> Iterator[memoryview]:
        """The inner framing's payload, without waiting for the end of a message."""
        position, end = 0, len(data)
        while position < end:
            if not self._left:
                size = self._plain_header(data, position, end)
                if size:
                    self._opcode, self._left = _BINARY, size
                    position += _MEDIUM.size
                else:
                    position = self._next_header(data, position, end)
                    if self._partial:
                        return  # incomplete: *data* is used up
            stop = min(position + self._left, end)
            if stop > position:
                self._left -= stop - position
                part = data[position:stop]
                position = stop
                if self._opcode < _CLOSE:
                    yield from self._inner.unwrap(part)
                else:
                    self._control += part
            if not self._left and self._opcode >= _CLOSE:
                self._control_done()

    def outgoing(self) -> bytes:
        """Pongs, and the inner framing's answers in messages of their own."""
        inner = self._inner.outgoing()
        if inner:
            self._outgoing += self.message(inner)
        if not self._outgoing:
            return b""
        answers = bytes(self._outgoing)
        self._outgoing.clear()
        return answers

    def _plain_header(self, data: memoryview, position: int, end: int) -> int:
        """The hot path: payload length of a complete binary message in the 16-bit form; 0 for anything else."""
        if self._partial or self._in_message or end - position < _MEDIUM.size:
            return 0
        first, second, size = _MEDIUM.unpack_from(data, position)
        return size if first == _FIN | _BINARY and second == 126 and size >= 126 else 0

    def _next_header(self, data: memoryview, position: int, end: int) -> int:
        """Read a frame header at *position*; returns the position after what was used."""
        partial = self._partial
        while True:
            missing = _header_size(partial) - len(partial)
            if not missing:
                break
            taken = min(missing, end - position)
            partial += data[position : position + taken]
            position += taken
            if taken < missing:
                return position
        self._begin(bytes(partial))
        partial.clear()
        return position

    def _begin(self, header: bytes) -> None:
        first, size = header[0], header[1]
        opcode = first & 0x0F
        if first & _RESERVED:
            raise ProtocolError("a WebSocket frame with reserved bits, though no extension was agreed on")
        if size & _MASKED:
            raise ProtocolError("a masked WebSocket frame from the server")
        if opcode >= _CLOSE:
            self._check_control(opcode, final=bool(first & _FIN), size=size)
        else:
            size = _data_size(header)
            if opcode != (_CONTINUATION if self._in_message else _BINARY):
                raise ProtocolError(f"an unexpected WebSocket frame with opcode {opcode}")
            self._in_message = not first & _FIN
        self._opcode, self._left = opcode, size

    def _check_control(self, opcode: int, *, final: bool, size: int) -> None:
        if opcode > _PONG:
            raise ProtocolError(f"a WebSocket frame with the unknown opcode {opcode}")
        if not final or size > _CONTROL_LIMIT:
            raise ProtocolError("a WebSocket control frame that is fragmented or too long")

    def _control_done(self) -> None:
        opcode, payload = self._opcode, bytes(self._control)
        self._control.clear()
        self._opcode = _BINARY
        if opcode == _CLOSE:
            raise _closed(payload)
        if opcode == _PING:
            self._outgoing += self.message(payload, _PONG)
            if len(self._outgoing) > _OUTGOING_LIMIT:
                raise ProtocolError("the server sends WebSocket pings faster than they can be answered")


def _header_size(partial: bytearray) -> int:
    """The size of the header that begins with *partial*, as far as that determines it."""
    if len(partial) < _SHORT.size:
        return _SHORT.size
    return {126: _MEDIUM.size, 127: _LONG.size}.get(partial[1] & 0x7F, _SHORT.size)


def _data_size(header: bytes) -> int:
    """Payload length; RFC 6455, 5.2: the shortest form must be used, the highest bit must be 0."""
    if header[1] < 126:
        return header[1]
    size = int.from_bytes(header[_SHORT.size :], "big")
    if size < (126 if header[1] == 126 else 1 << 16) or size >> 63:
        raise ProtocolError("a WebSocket frame with a badly encoded length")
    return size


def _closed(payload: bytes) -> PeerClosed | ProtocolError:
    if len(payload) == 1:
        return ProtocolError("a WebSocket close frame of one byte")
    code = int.from_bytes(payload[:2], "big") if payload else _NO_STATUS
    reason = payload[2:].decode("utf-8", "replace").strip()
    return PeerClosed(f"the server closed the WebSocket (code {code}{': ' if reason else ''}{reason})")
