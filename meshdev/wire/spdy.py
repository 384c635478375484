"""The part of SPDY/3.1 that a Kubernetes port-forward needs: one connection, one pair of streams to one port.

The client opens an *error* stream (half-closed at once) and a *data* stream with the same ``requestid``; the kubelet
connects to the port and copies. Text on the error stream means that it could not. Sources: SPDY Protocol, draft 3.1,
section 2; for the stream pair ``k8s.io/kubelet/pkg/cri/streaming/portforward/httpstream.go``.

There is no flow control: ``moby/spdystream``, which both the API server and the kubelet use, neither enforces nor
grants windows, so the TCP connection underneath is the only back-pressure.
"""

import zlib
from collections.abc import Iterator
from struct import Struct
from typing import Final

from meshdev.errors import PeerClosed, PortForwardError, ProtocolError
from meshdev.wire.spdy_dictionary import DICTIONARY

#: Stream ids of a client are odd; this connection has one pair.
ERROR_STREAM: Final = 1
DATA_STREAM: Final = 3
_STREAMS: Final = (DATA_STREAM, ERROR_STREAM)

_HEADER: Final = Struct(">II")  # control bit + stream id (or version and type) | flags u8 + length u24
_HEADER_SIZE: Final = 8
_LENGTH: Final = 0xFFFFFF
_FIN: Final = 0x01

_SYN_STREAM: Final = 0x8003_0001  # control bit, version 3, type
_VERSION_MASK: Final = 0xFFFF_0000
_VERSION: Final = 0x8003_0000
_TYPE_SYN_STREAM: Final = 1
_TYPE_RST_STREAM: Final = 3
_TYPE_PING: Final = 6
_TYPE_GOAWAY: Final = 7
#: Types that a client may ignore: SYN_REPLY (its headers are empty), SETTINGS, NOOP, HEADERS, WINDOW_UPDATE and, by
#: section 2.2.1, every type it does not know.

#: The largest control frame accepted: the server sends SYN_REPLY (tens of bytes) and SETTINGS (≤ 100).
_CONTROL_LIMIT: Final = 16 * 1024
_ERROR_TEXT_LIMIT: Final = 8 * 1024
#: Pending answers; a peer that pings faster than they are sent is hostile.
_OUTGOING_LIMIT: Final = 4 * 1024

_REFUSED_STREAM: Final = 3
_RESET_REASONS: Final = {
    1: "protocol error",
    2: "invalid stream",
    _REFUSED_STREAM: "refused",
    4: "unsupported version",
    5: "cancelled",
    6: "internal error",
    7: "flow control error",
}


def opening(port: int) -> bytes:
    """The frames that open the stream pair to *port* of the pod: the first bytes of a connection."""
    # One compressor per connection: the second header block refers back to the first.
    compressor = zlib.compressobj(zdict=DICTIONARY)

    def syn_stream(stream: int, kind: str, flags: int) -> bytes:
        headers = {"streamtype": kind, "port": str(port), "requestid": "0"}
        fields = [text.encode("ascii") for pair in headers.items() for text in pair]
        block = len(headers).to_bytes(4, "big") + b"".join(len(f).to_bytes(4, "big") + f for f in fields)
        packed = compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH)
        body = stream.to_bytes(4, "big") + bytes(6) + packed  # no associated stream, priority 0, slot 0
        return _HEADER.pack(_SYN_STREAM, flags << 24 | len(body)) + body

    return syn_stream(ERROR_STREAM, "error", _FIN) + syn_stream(DATA_STREAM, "data", 0)


class SpdyFraming:
    """The data stream of a port-forward as a byte stream (a ``Framing``). Send :func:`opening` first.

    ``unwrap`` must be exhausted before it is called again. It raises PortForwardError with the kubelet's message when
    the port could not be reached, PeerClosed at an orderly end, ProtocolError on anything invalid.
    """

    headroom = _HEADER_SIZE

    def __init__(self) -> None:
        self._left = 0  # payload bytes of the current frame that are still to come
        self._stream = DATA_STREAM  # its stream; 0 for a control frame
        self._fin = False
        self._kind = 0  # type of the current control frame
        self._partial = bytearray()  # a header or control frame that arrived in pieces
        self._error_text = bytearray()
        self._error_ended = False
        self._data_ended: str | None = None  # why
        self._outgoing = bytearray()

    def wrap(self, buffer: bytearray, start: int, end: int) -> memoryview:
        """The payload after its header, which is written into the headroom: nothing is copied."""
        size = end - start
        if not 0 <= size <= _LENGTH:
            raise ValueError(f"a SPDY frame holds at most {_LENGTH} bytes, not {size}")
        _HEADER.pack_into(buffer, start - _HEADER_SIZE, DATA_STREAM, size)
        return memoryview(buffer)[start - _HEADER_SIZE : end]

    def unwrap(self, data: memoryview) -> Iterator[memoryview]:
        """The slices of *data* that belong to the data stream, without waiting for the end of a frame."""
        position, end = 0, len(data)
        while position < end:
            if not self._left:
                if self._partial or end - position < _HEADER_SIZE:
                    position = self._complete_header(data, position, end)
                    if self._partial:
                        return  # still incomplete: *data* is used up
                else:
                    first, second = _HEADER.unpack_from(data, position)
                    position += _HEADER_SIZE
                    self._begin(first, second)
            stop = min(position + self._left, end)
            if stop > position:
                self._left -= stop - position
                part = data[position:stop]
                position = stop
                if self._stream == DATA_STREAM:
                    yield part
                else:
                    self._collect(part)
            if not self._left and (self._fin or self._stream == 0):
                self._frame_done()

    def outgoing(self) -> bytes:
        """Echoes of the peer's PINGs."""
        if not self._outgoing:
            return b""
        answers = bytes(self._outgoing)
        self._outgoing.clear()
        return answers

    def _complete_header(self, data: memoryview, position: int, end: int) -> int:
        """Add to a header that arrives in pieces; returns the position after what was used."""
        taken = min(_HEADER_SIZE - len(self._partial), end - position)
        self._partial += data[position : position + taken]
        if len(self._partial) == _HEADER_SIZE:
            first, second = _HEADER.unpack(self._partial)
            self._partial.clear()
            self._begin(first, second)
        return position + taken

    def _begin(self, first: int, second: int) -> None:
        self._left = second & _LENGTH
        flags = second >> 24
        if first in _STREAMS:
            self._stream, self._fin = first, bool(flags & _FIN)
            return
        if not first & 0x8000_0000:
            raise ProtocolError(f"data on SPDY stream {first}, which was never opened")
        if first & _VERSION_MASK != _VERSION:
            raise ProtocolError(f"SPDY version {first >> 16 & 0x7FFF} in a frame, expected 3")
        if self._left > _CONTROL_LIMIT:
            raise ProtocolError(f"a SPDY control frame of {self._left} bytes, at most {_CONTROL_LIMIT} are taken")
        self._stream, self._fin, self._kind = 0, False, first & 0xFFFF

    def _collect(self, part: memoryview) -> None:
        if self._stream == ERROR_STREAM:
            self._error_text += part
            if len(self._error_text) >= _ERROR_TEXT_LIMIT:
                raise self._refusal()
        else:
            self._partial += part

    def _frame_done(self) -> None:
        if self._stream == 0:
            body = bytes(self._partial)
            self._partial.clear()
            self._stream = DATA_STREAM
            self._control(self._kind, body)
            return
        self._fin = False
        self._stream_ended(self._stream, "the pod closed the connection")

    def _stream_ended(self, stream: int, reason: str) -> None:
        """Raise once both have ended: the kubelet ends the data stream first, then reports why on the error stream."""
        if stream == DATA_STREAM:
            self._data_ended = reason
        else:
            self._error_ended = True
        if self._error_ended and self._error_text:
            raise self._refusal()
        if self._error_ended and self._data_ended:
            raise PeerClosed(self._data_ended)

    def _control(self, kind: int, body: bytes) -> None:
        if kind == _TYPE_PING:
            self._pinged(body)
        elif kind == _TYPE_RST_STREAM:
            self._reset(body)
        elif kind == _TYPE_GOAWAY:
            if len(body) != 8:
                raise ProtocolError(f"a SPDY GOAWAY of {len(body)} bytes, expected 8")
            if self._error_text:
                raise self._refusal()
            raise PeerClosed("the server is closing the port-forward")
        elif kind == _TYPE_SYN_STREAM:
            raise ProtocolError("the server opened a SPDY stream of its own")

    def _pinged(self, body: bytes) -> None:
        if len(body) != 4:
            raise ProtocolError(f"a SPDY PING of {len(body)} bytes, expected 4")
        if body[3] & 1:
            return  # an odd id would be the echo of a ping of ours, and we send none
        self._outgoing += _HEADER.pack(_VERSION | _TYPE_PING, 4) + body
        if len(self._outgoing) > _OUTGOING_LIMIT:
            raise ProtocolError("the server sends SPDY PINGs faster than they can be answered")

    def _reset(self, body: bytes) -> None:
        if len(body) != 8:
            raise ProtocolError(f"a SPDY RST_STREAM of {len(body)} bytes, expected 8")
        stream, status = _HEADER.unpack(body)
        if status == _REFUSED_STREAM:
            raise PortForwardError("the kubelet refused the port-forward's streams")
        if stream not in _STREAMS:
            raise ProtocolError(f"a reset of SPDY stream {stream}, which was never opened")
        reason = _RESET_REASONS.get(status, f"status {status}")
        self._stream_ended(stream, f"the server reset the port-forward ({reason})")

    def _refusal(self) -> PortForwardError:
        text = self._error_text.decode("utf-8", "replace").strip()
        return PortForwardError(f"the port-forward failed in the cluster: {text}")
