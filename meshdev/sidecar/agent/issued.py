"""What the manager issued for the agent's key: the agent and its Envoy show it to control and relays."""

import ssl
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.identity.engine import TlsEngine
from meshdev.identity.tls import load_identity
from meshdev.published import Published
from meshdev.sidecar.agent.own_key import OwnKey
from meshdev.sidecar.agent.secret_discovery import Secrets, SecretServer
from meshdev.wire.agent import IssuedCertificate

#: Each way, of a handshake of TLS 1.2 (RFC 5246, 7.3).
_FLIGHTS: Final = 2
#: X509_V_FLAG_NO_CHECK_TIME of <openssl/x509_vfy.h>, which ``ssl.VerifyFlags`` does not name: the manager checks the
#: certificate by its own clock, and the one of this node may differ.
_NO_CHECK_TIME: Final = 0x200000


class IssuedIdentity:
    """Kept as long as the process; its Envoys and its streams to the manager come and go."""

    def __init__(self, key: OwnKey) -> None:
        """For that key. Nothing is issued yet."""
        self.secrets: Final[Published[Secrets | None]] = Published(None)
        self.server: Final = SecretServer()
        """Of the same, for Envoy."""
        self._key = key

    def take(self, issued: IssuedCertificate) -> None:
        """Show it from now on. Raises ProtocolError where the manager would not accept it."""
        secrets = Secrets(self._key.private_pem, issued.certificate, issued.authority)
        try:
            self._verify(secrets)
        except (ssl.SSLError, ProtocolError) as error:
            raise ProtocolError(f"the certificate that the manager issued cannot be used: {error}") from None
        self.secrets.publish(secrets)
        self.server.set(secrets)

    def _verify(self, secrets: Secrets) -> None:
        """A handshake in memory, with a server that trusts the same authority: OpenSSL checks key, issuer and
        purpose, and ``cryptography`` is not loaded here. It takes two milliseconds."""
        client, server = client_context(secrets), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        client.verify_mode = ssl.CERT_NONE
        server.verify_mode = ssl.CERT_REQUIRED
        server.verify_flags |= _NO_CHECK_TIME
        server.load_verify_locations(cadata=secrets.authority)
        load_identity(server, self._key.private_pem, [self._key.certificate])
        ours, theirs = TlsEngine(client, server_side=False), TlsEngine(server, server_side=True)
        for _ in range(_FLIGHTS):
            theirs.receive(ours.outgoing())
            ours.receive(theirs.outgoing())
        if theirs.peer_certificate != secrets.certificate:
            raise ProtocolError("the handshake with it does not end")


def client_context(secrets: Secrets) -> ssl.SSLContext:
    """For connections to relays, as Envoy makes them (sidecar.envoy.tls). The server's name is left to the caller.

    Raises ssl.SSLError where key and certificates do not fit together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # what is asked for (SNI) is a relay, the certificate is one for all relays
    context.load_verify_locations(cadata=secrets.authority)
    load_identity(context, secrets.private_key, [secrets.certificate])
    return context
