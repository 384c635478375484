"""What the manager issued for the agent's key: its Envoy shows it to control and relays, and so do probes of relays."""

import ssl
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.identity.tls import load_identity
from meshdev.published import Published
from meshdev.sidecar.agent.secret_discovery import Secrets, SecretServer
from meshdev.wire.agent import IssuedCertificate


class IssuedIdentity:
    """Kept as long as the process; its Envoys and its streams to the manager come and go."""

    def __init__(self, private_key: bytes) -> None:
        """For that key (PEM). Nothing is issued yet."""
        self.secrets: Final[Published[Secrets | None]] = Published(None)
        self.server: Final = SecretServer()
        """Of the same, for Envoy."""
        self._private_key = private_key

    def take(self, issued: IssuedCertificate, manager: bytes | None) -> None:
        """Show it from now on. *manager*: the certificate of the one that issued it, which is its authority.

        Raises ProtocolError where it cannot be used.
        """
        if issued.authority != manager:
            raise ProtocolError("the manager issued a certificate of another authority than its own")
        secrets = Secrets(self._private_key, issued.certificate, issued.authority)
        try:
            client_context(secrets)
        except ssl.SSLError as error:
            raise ProtocolError(f"the certificate that the manager issued cannot be used: {error}") from None
        self.secrets.publish(secrets)
        self.server.set(secrets)


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
