"""PEM as Go reads it, for OpenSSL, which is stricter.

``crypto/x509`` takes the CERTIFICATE blocks out of whatever is around them: comments in any encoding, what
``openssl x509 -text`` prints; it skips blocks with headers and those that are no certificate, and one that is will do
(CertPool.AppendCertsFromPEM). OpenSSL in Python refuses the whole text then.
"""

import base64
import binascii
import re
import ssl
from collections.abc import Iterator
from typing import Final

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)


def authorities(data: bytes) -> str:
    """The certificates in *data* as plain PEM, empty where there is none."""
    usable = (der for kind, der in _plain_blocks(data) if kind == b"CERTIFICATE" and _loads(der))
    return "".join(map(ssl.DER_cert_to_PEM_cert, usable))


def chain(data: bytes) -> bytes:
    """The client's certificates in *data* as plain PEM; without any, *data* itself, for OpenSSL to report."""
    found = [der for kind, der in _plain_blocks(data) if kind == b"CERTIFICATE"]
    return "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode() or data


def private_key(data: bytes) -> bytes:
    """The first private key in *data*; *data* itself where there is none."""
    for match in _BLOCK.finditer(data):
        if match[1].endswith(b"PRIVATE KEY"):
            lines = [line.strip() for line in match[2].strip().splitlines()]
            return b"\n".join([b"-----BEGIN %s-----" % match[1], *lines, b"-----END %s-----" % match[1], b""])
    return data


def _plain_blocks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and DER of each block without headers (RFC 1421, 4.6) whose text is base64."""
    for match in _BLOCK.finditer(data):
        try:
            yield match[1], base64.b64decode(b"".join(match[2].split()), validate=True)
        except binascii.Error:
            continue


def _loads(der: bytes) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=der)
    except (ssl.SSLError, ValueError):
        return False
    return True
