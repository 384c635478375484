"""Who is at the other end of a connection: the id of its certificate's key, as gRPC names the certificate. Pure."""

import ssl
from collections.abc import Iterable, Mapping
from functools import lru_cache

from meshdev.errors import ProtocolError
from meshdev.identity.keys import key_id

#: Property of an auth context (grpc/grpc_security_constants.h, GRPC_X509_PEM_CERT_PROPERTY_NAME): the peer's own
#: certificate, which passed the handshake. There is one.
_CERTIFICATE = "x509_pem_cert"


def peer_key(auth_context: Mapping[str, Iterable[bytes]]) -> str | None:
    """The id of the peer's key; None where it has shown no certificate of a key that agents have."""
    certificates = list(auth_context.get(_CERTIFICATE, ()))
    return _key(certificates[0]) if len(certificates) == 1 else None


@lru_cache(maxsize=4096)
def _key(pem: bytes) -> str | None:
    try:
        return key_id(ssl.PEM_cert_to_DER_cert(pem.decode("ascii")))
    except (ValueError, ProtocolError):
        return None
