"""The manager's certificates and a workload's, as the control container issues them."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from meshdev.identity.authority import Authority
from meshdev.identity.keys import KeyPair
from meshdev.identity.tls import load_identity, pem
from meshdev.sidecar.agent.secret_discovery import Secrets
from meshdev.sidecar.envoy.tls import RELAY_NAME


class Certificates:
    """A manager's authority, and what it issues."""

    def __init__(self, folder: Path) -> None:
        self._authority = Authority.open(folder / "authority", "manager-uid", _now())

    @property
    def authority(self) -> str:
        """PEM."""
        return pem(self._authority.certificate)

    def secrets(self, key: KeyPair | None = None, lifetime: timedelta = timedelta(hours=1)) -> Secrets:
        """Those of a sidecar, issued now."""
        key = key or KeyPair.generate()
        issued = self._authority.issue_workload(
            key.request(), "ns/default/deployment/b/pod/uid-b-1", now=_now(), lifetime=lifetime
        )
        return Secrets(key.private_pem, pem(issued), self.authority)

    def server(self, name: str = RELAY_NAME) -> tuple[bytes, str]:
        """Key and certificate of a server of that name, as PEM."""
        key = KeyPair.generate()
        return key.private_pem, pem(self._authority.issue_server(key.request(), name, now=_now()))

    def relay(self, name: str = RELAY_NAME) -> ssl.SSLContext:
        """TLS as the relay has it: 1.2, and only for workloads."""
        key = KeyPair.generate()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_TICKET
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.authority)
        load_identity(context, key.private_pem, [self._authority.issue_server(key.request(), name, now=_now())])
        return context


def _now() -> datetime:
    return datetime.now(UTC)
