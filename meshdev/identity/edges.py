"""Capabilities and what is derived from them: the proof that an agent and a session know each other.

An agent gives a session a capability; it never leaves the two. Both show control :func:`claim_proof` of it: equal
values are an edge. :func:`manager_proof` lets the session vouch for the manager's certificate to the agent.
"""

import hashlib
import hmac
import secrets
from typing import Final

CAPABILITY_BYTES: Final = 32

_CLAIM: Final = b"claim"
_MANAGER: Final = b"manager"


def new_capability() -> bytes:
    """A new capability: 32 random bytes."""
    return secrets.token_bytes(CAPABILITY_BYTES)


def claim_proof(capability: bytes) -> str:
    """What agent and session show control, 64 hexadecimal digits."""
    return _proof(capability, _CLAIM)


def manager_proof(capability: bytes, certificate: bytes) -> str:
    """What vouches for the manager's certificate (DER) to the agent that gave *capability*, 64 hexadecimal digits.

    DER begins with 0x30, so no certificate makes it equal the proof of a claim.
    """
    return _proof(capability, _MANAGER + certificate)


def proof_matches(shown: str, expected: str) -> bool:
    """Compare a proof that a peer showed, of any text, with the one expected; in constant time."""
    return hmac.compare_digest(shown.encode("utf-8", "surrogatepass"), expected.encode())


def _proof(capability: bytes, message: bytes) -> str:
    return hmac.new(capability, message, hashlib.sha256).hexdigest()
