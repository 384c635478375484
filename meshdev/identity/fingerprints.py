"""The fingerprint of a certificate: what an agent logs and a session compares. Pure."""

import hashlib


def fingerprint(certificate: bytes) -> str:
    """The sha256 of a certificate (DER), 64 hexadecimal digits. Any bytes have one."""
    return hashlib.sha256(certificate).hexdigest()
