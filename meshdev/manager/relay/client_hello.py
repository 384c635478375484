"""What the relay reads of a ClientHello before it answers: the server name, and whether a session is to be resumed.

RFC 5246 (TLS 1.2), RFC 8446 (1.3, whose clients send the same message), RFC 6066 (server name). Records may be split
anywhere, and the message may span records. Everything here is hostile until it is read.
"""

from dataclasses import dataclass
from typing import Final

from meshdev.errors import ProtocolError

#: Bytes of records, headers included, in which the ClientHello must be complete. OpenSSL's own take 300, those with
#: post-quantum key shares 2,000.
MAX_BYTES: Final = 16 << 10
_RECORD_HEADER: Final = 5
_MESSAGE_HEADER: Final = 4
_HANDSHAKE: Final = 22  # ContentType, RFC 5246, 6.2.1
_MAX_RECORD: Final = 1 << 14
_CLIENT_HELLO: Final = 1  # HandshakeType, RFC 5246, 7.4
_VERSION_AND_RANDOM: Final = 2 + 32
_SERVER_NAME: Final = 0  # ExtensionType, RFC 6066, 1.1
_HOST_NAME: Final = 0  # NameType, RFC 6066, 3


@dataclass(frozen=True)
class ClientHello:
    """What the relay needs of it."""

    server_name: bytes | None
    """As it was sent; None where there is none."""
    session_id: bytes
    """Of the session that the client offers to resume; empty for none."""


class ClientHelloReader:
    """Takes the first bytes of a connection, as they come, and keeps them."""

    def __init__(self) -> None:
        self.received = bytearray()
        """Everything so far, for whoever answers the handshake."""
        self._message = bytearray()
        self._read = 0  # of the records in received

    def feed(self, data: bytes | memoryview) -> ClientHello | None:
        """The ClientHello, once it is complete. Raises ProtocolError for what cannot become one."""
        self.received += data
        while (payload := self._record()) is not None:
            self._message += payload
            if (body := self._body()) is not None:
                return _client_hello(body)
        if len(self.received) >= MAX_BYTES:
            raise ProtocolError(f"no ClientHello in the first {MAX_BYTES} bytes")
        return None

    def _record(self) -> bytes | None:
        """The content of the next whole record. What is wrong is said before the record is complete."""
        header = self.received[self._read : self._read + _RECORD_HEADER]
        if header and header[0] != _HANDSHAKE:
            raise ProtocolError("not a TLS handshake")
        if len(header) > 1 and header[1] != 3:
            raise ProtocolError("not a version of TLS")
        if len(header) < _RECORD_HEADER:
            return None
        size = int.from_bytes(header[3:], "big")
        if not 0 < size <= _MAX_RECORD:  # RFC 5246, 6.2.1: handshake messages are never in empty records
            raise ProtocolError("a TLS record of an impossible size")
        end = self._read + _RECORD_HEADER + size
        if end > MAX_BYTES:
            raise ProtocolError(f"no ClientHello in the first {MAX_BYTES} bytes")
        if len(self.received) < end:
            return None
        payload = bytes(self.received[self._read + _RECORD_HEADER : end])
        self._read = end
        return payload

    def _body(self) -> bytes | None:
        """The whole message without its header. Nothing may follow it: the client has to wait for the answer."""
        if self._message[0] != _CLIENT_HELLO:
            raise ProtocolError("not a ClientHello")
        if len(self._message) < _MESSAGE_HEADER:
            return None
        size = int.from_bytes(self._message[1:_MESSAGE_HEADER], "big")
        if size > MAX_BYTES:
            raise ProtocolError(f"no ClientHello in the first {MAX_BYTES} bytes")
        if len(self._message) < _MESSAGE_HEADER + size:
            return None
        if len(self._message) > _MESSAGE_HEADER + size or len(self.received) > self._read:
            raise ProtocolError("more than a ClientHello")
        return bytes(self._message[_MESSAGE_HEADER:])


class _Fields:
    """Reads a message from its beginning."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def over(self) -> bool:
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if len(found) < size:
            raise ProtocolError("a ClientHello that ends too early")
        self._at += size
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """One whose length takes *size* bytes (RFC 5246, 4.3)."""
        return self.take(self.number(size))


def _client_hello(body: bytes) -> ClientHello:
    fields = _Fields(body)
    fields.take(_VERSION_AND_RANDOM)
    session_id = fields.vector(1)
    fields.vector(2)  # cipher suites
    fields.vector(1)  # compression methods
    return ClientHello(None if fields.over else _server_name(fields.vector(2)), session_id)


def _server_name(extensions: bytes) -> bytes | None:
    fields = _Fields(extensions)
    while not fields.over:
        kind, data = fields.number(2), fields.vector(2)
        if kind == _SERVER_NAME:
            return _host_name(data)
    return None


def _host_name(data: bytes) -> bytes | None:
    names = _Fields(_Fields(data).vector(2))
    while not names.over:
        kind, name = names.number(1), names.vector(2)
        if kind == _HOST_NAME:
            return name
    return None
