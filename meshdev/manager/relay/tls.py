"""The relay's end of TLS: exactly 1.2, only for certificates of the authority, and no session is resumed.

TLS has no sockets here: bytes go in and come out, so that the client's certificate is looked at after its last flight
was read and before our Finished is written.
"""

import ssl
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.identity.keys import key_id
from meshdev.identity.tls import load_identity, pem
from meshdev.manager.relay.client_hello import ClientHello
from meshdev.wire.relay import RelayIdentity

#: Our certificates are of ECDSA keys; forward secret, and authenticated encryption only (RFC 9325, 4.2).
_CIPHERS: Final = ":".join(
    (
        *("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    )
)
#: Handshakes of one context. It remembers its sessions (Python cannot turn that off), 2 KiB each, so it is replaced.
HANDSHAKES: Final = 64
#: Bytes that are decrypted at a time. OpenSSL's buffers between us never shrink: with whole pieces a connection that
#: has carried a large body keeps 165 KB, so 120.
_FED: Final = 16 << 10
#: The longest content of a record, and what is around it at most (RFC 5246, 6.2.3).
MAX_RECORD: Final = 16 << 10
RECORD_OVERHEAD: Final = 2048 + 5


class RelayTls:
    """TLS with one identity. Raises ssl.SSLError where that cannot be read or is not of this key."""

    def __init__(self, private_pem: bytes, identity: RelayIdentity) -> None:
        self._private_pem = private_pem
        self._identity = identity
        self._shared = self._context()
        self._left = HANDSHAKES

    def accept(self, hello: ClientHello) -> "TlsStream":
        """The server's end for a client that has said *hello*.

        Whoever offers a session gets a context that has none: a session id that is not known is answered by a full
        handshake (RFC 5246, 7.4.1.3). Envoy is told to offer none, and the others share a context: one costs as much
        as a handshake.
        """
        if hello.session_id:
            return TlsStream(self._context())
        if not self._left:
            self._shared, self._left = self._context(), HANDSHAKES
        self._left -= 1
        return TlsStream(self._shared)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_ciphers(_CIPHERS)
        context.set_ecdh_curve("prime256v1")  # the one that all of our certificates need anyway
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=pem(self._identity.authority))
        load_identity(context, self._private_pem, [self._identity.certificate])
        return context


class TlsStream:
    """One connection's TLS. What its methods leave to be sent is taken by :meth:`take`."""

    __slots__ = ("_incoming", "_outgoing", "_ssl", "context", "ended")

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.ended = False
        """The client's close_notify has come: nothing more will."""

    def handshake(self, data: bytes | bytearray | memoryview) -> bool:
        """Go on with what the client sent; whether the handshake is complete on this side once what there is to be
        sent is sent. Raises ProtocolError."""
        self._incoming.write(data)
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise ProtocolError(f"the TLS handshake fails: {error.reason or error}") from None
        return True

    def peer_key(self) -> str:
        """The key id of the client's certificate, which was verified. Raises ProtocolError where it is none of ours."""
        certificate = self._ssl.getpeercert(binary_form=True)
        if certificate is None:
            raise ProtocolError("no client certificate")
        return key_id(certificate)

    def take(self) -> bytes:
        """What there is to be sent."""
        return self._outgoing.read()

    def encrypt(self, data: memoryview) -> bytes:
        """*data* as records, to be sent."""
        written = self._ssl.write(data)  # a record (SSL_MODE_ENABLE_PARTIAL_WRITE)
        found = self._outgoing.read()
        if written == len(data):
            return found
        records = [found]
        while written < len(data):
            written += self._ssl.write(data[written:])
            records.append(self._outgoing.read())
        return b"".join(records)

    def decrypt(self, data: memoryview, into: memoryview) -> int:
        """How many bytes of content *data* completes; they are in *into*, which has room for as many as *data* has,
        and :data:`MAX_RECORD` + :data:`RECORD_OVERHEAD` more. Raises ProtocolError."""
        size = 0
        try:
            for at in range(0, max(len(data), 1), _FED):
                self._incoming.write(data[at : at + _FED])
                size += self._read(into[size:])
        except ssl.SSLError as error:
            raise ProtocolError(f"TLS fails: {error.reason or error}") from None
        if self._outgoing.pending:  # OpenSSL answers nothing else by itself
            raise ProtocolError("it asks for a renegotiation")
        return size

    def _read(self, into: memoryview) -> int:
        """The content of the whole records that are there."""
        size = 0
        try:
            while self._incoming.pending or self._ssl.pending():
                read: int = self._ssl.read(MAX_RECORD, into[size:])  # type: ignore[assignment] # typeshed: str
                if not read:
                    self.ended = True
                    break
                size += read
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # instead of an empty read, where our own close_notify was sent before
            self.ended = True
        return size

    def finish(self) -> bytes:
        """A close_notify, to be sent: nothing follows it, while the client may go on.

        All whole records must be decrypted: OpenSSL, which Python asks for the client's own here, throws away others.
        """
        try:
            self._ssl.unwrap()
        except ssl.SSLError as error:
            if not isinstance(error, ssl.SSLWantReadError):  # the client has not ended yet
                raise ProtocolError(f"TLS fails: {error.reason or error}") from None
        return self._outgoing.read()
