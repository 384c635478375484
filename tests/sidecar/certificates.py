"""The manager's certificates and a workload's, as the control container issues them."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc

from meshdev.identity.authority import Authority
from meshdev.identity.keys import KeyPair
from meshdev.identity.tls import load_identity, pem
from meshdev.sidecar.agent.secret_discovery import Secrets
from meshdev.sidecar.envoy.tls import CONTROL_NAME, RELAY_NAME


class Certificates:
    """A manager's authority, and what it issues."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.given: list[Secrets] = []
        self._authority = Authority.open(folder / "authority", "manager-uid", _now())

    @property
    def authority(self) -> bytes:
        """The manager's certificate (DER)."""
        return self._authority.certificate

    def issue(self, request: bytes, *, age: timedelta = timedelta()) -> bytes:
        """A workload's certificate (DER) for a signing request (DER), good for an hour from *age* ago."""
        path = "ns/default/deployment/b/pod/uid-b-1"
        return self._authority.issue_workload(request, path, now=_now() - age, lifetime=timedelta(hours=1))

    def issue_server(self, request: bytes, name: str) -> bytes:
        """A certificate (DER) of one of the manager's containers for a signing request (DER)."""
        return self._authority.issue_server(request, name, now=_now())

    def secrets(self) -> Secrets:
        """Those of a sidecar, issued now."""
        key = KeyPair.generate()
        self.given.append(Secrets(key.private_pem, self.issue(key.request()), self.authority))
        return self.given[-1]

    def control(self, name: str = CONTROL_NAME, trusted: "Certificates | None" = None) -> Any:
        """gRPC's credentials of the control container, for those whom *trusted*, or this authority, knows."""
        key = KeyPair.generate()
        pair = (key.private_pem, pem(self.issue_server(key.request(), name)).encode())
        return grpc.ssl_server_credentials([pair], pem((trusted or self).authority).encode(), require_client_auth=True)

    def relay(
        self, name: str = RELAY_NAME, trusted: "Certificates | None" = None, *, resumes: bool = False
    ) -> ssl.SSLContext:
        """TLS as the relay has it: 1.2, and only for those whom *trusted*, or this authority, knows."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        if not resumes:
            context.options |= ssl.OP_NO_TICKET
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=(trusted or self).authority)
        key = KeyPair.generate()
        load_identity(context, key.private_pem, [self.issue_server(key.request(), name)])
        return context


def _now() -> datetime:
    return datetime.now(UTC)


def _of(name: str) -> Certificates:
    """A manager's authority whose folder is gone: it keeps nothing there but its key."""
    with TemporaryDirectory() as folder:
        return Certificates(Path(folder) / name)


#: Two managers, for tests that only compare.
FIRST, SECOND = _of("first"), _of("second")
