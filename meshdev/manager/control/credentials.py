"""Control's TLS: its certificate, and that clients show one of the authority's (docs/design/0023, "Control's TLS")."""

from datetime import datetime

import grpc

from meshdev.identity.authority import Authority
from meshdev.identity.keys import KeyPair
from meshdev.identity.tls import pem
from meshdev.sidecar.envoy.tls import CONTROL_NAME


def server_credentials(authority: Authority, now: datetime) -> grpc.ServerCredentials:
    """For this process, with a key of its own."""
    pair = KeyPair.generate()
    certificate = authority.issue_server(pair.request(), CONTROL_NAME, now=now)
    shown = ((pair.private_pem, pem(certificate).encode()),)
    return grpc.ssl_server_credentials(shown, pem(authority.certificate).encode(), require_client_auth=True)
