"""One TLS connection without I/O: what arrives goes in, what is to be sent comes out.

For transports that are no socket (a port-forward inside another stream), and for whoever counts connections before
their handshake.
"""

import contextlib
import ssl
from typing import Final

from meshdev.errors import ProtocolError

#: What a TLS record holds (RFC 8446, section 5.1).
_READ: Final = 16 << 10


class TlsEngine:
    """After ProtocolError only :meth:`outgoing` may be called: it has the alert for the peer, if there is one."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._waiting = bytearray()
        self.established = False
        """The handshake is done."""
        self.ended = False
        """The peer has closed its direction (close_notify)."""
        self._step()

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's certificate (DER), whose private key it has proven; None before that, and where it has none."""
        return self._tls.getpeercert(binary_form=True) if self.established else None

    def receive(self, data: bytes) -> bytes:
        """What *data* brings of the peer's bytes. Raises ProtocolError where it is not TLS or not acceptable."""
        self._incoming.write(data)
        self._step()
        found = bytearray()
        while self.established and not self.ended:
            try:
                piece = self._tls.read(_READ)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                piece = b""
            except ssl.SSLError as error:
                raise _not_tls(error) from None
            self.ended = not piece
            found += piece
        return bytes(found)

    def send(self, data: bytes) -> None:
        """Encrypt *data*, as soon as the handshake is done."""
        if self.established:
            self._tls.write(data)  # a MemoryBIO takes everything
        else:
            self._waiting += data

    def close(self) -> None:
        """Say that nothing comes any more (close_notify)."""
        with contextlib.suppress(ssl.SSLError):  # the peer's own end has not come, or there was no handshake
            self._tls.unwrap()

    def outgoing(self) -> bytes:
        """What has to be sent now."""
        return self._outgoing.read()

    def _step(self) -> None:
        if self.established:
            return
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            raise _not_tls(error) from None
        self.established = True
        if self._waiting:
            self._tls.write(self._waiting)
            self._waiting.clear()


def _not_tls(error: ssl.SSLError) -> ProtocolError:
    why = f": {error.verify_message}" if isinstance(error, ssl.SSLCertVerificationError) else ""
    return ProtocolError(f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}{why}")
