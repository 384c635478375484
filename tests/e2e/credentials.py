"""Requests with a credential each, of every kind that clients send, and what of it must not be seen anywhere."""

import base64
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

#: Beginnings and ends of a credential that nobody may see: a cell of a table may be cut.
_PART: Final = 10


@dataclass(frozen=True)
class Credential:
    """A request's headers and target (behind the path that tells it from others), and the parts of its credential.

    *http2*: also as a request of HTTP/2, and *claimed*: also as one that an intercept takes.
    """

    name: str
    parts: tuple[str, ...]
    target: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    authority: str = ""
    http2: bool = True
    claimed: bool = True

    @property
    def path(self) -> str:
        """By which it is found."""
        return f"/{self.name}"

    @property
    def in_target(self) -> bool:
        return not self.headers

    def seen_in(self, text: str) -> list[str]:
        """What of it is there."""
        ends = {end for part in self.parts for end in (part[:_PART], part[-_PART:])}
        return sorted(end for end in ends if end in text)


def _header(
    name: str, value: str = "{}", *, shown: Callable[[str], str] = str, of: str = "", claimed: bool = True
) -> Credential:
    secret = shown(secrets.token_hex(16))
    return Credential(f"header-{name.lower()}{of}", (secret,), headers={name: value.format(secret)}, claimed=claimed)


def _target(name: str, target: str, *, shown: Callable[[str], str] = str) -> Credential:
    secret = shown(secrets.token_hex(16))
    return Credential(f"target-{name}", (secret,), target.format(secret))


def _basic(secret: str) -> str:
    """The user's name stands before it: its own beginning is no secret."""
    return base64.b64encode(f"u:{secret}".encode()).decode()


def _encoded(secret: str) -> str:
    return "".join(f"%{ord(letter):02x}" for letter in secret)


def _jwt(secret: str) -> str:
    """Without the header, which is the same for all."""
    claims = base64.urlsafe_b64encode(json.dumps({secret: "x"}).encode()).decode().rstrip("=")
    return f"{claims[4:]}.{secret}"


_JWT_BEGIN: Final = "eyJhbGciOiJIUzI1NiJ9.eyJz"


def credentials(claimed_header: str) -> tuple[Credential, ...]:
    """One of each kind; *claimed_header* is one that an intercept asks for with another value."""
    return tuple(_all(claimed_header))


def _all(claimed_header: str) -> Iterator[Credential]:
    yield _header("Authorization", "Basic {}", shown=_basic, of="-basic")
    yield _header("Authorization", "Bearer {}", of="-bearer")
    yield _header("Authorization", 'Digest username="u", realm="r", nonce="n", uri="/", response="{}"', of="-digest")
    yield _header("Proxy-Authorization", "Basic {}", shown=_basic)
    yield _header("Cookie", "theme=dark; session={}")
    yield _header("X-Api-Key")
    yield _header("X-Auth-Token")
    yield _header("X-Amz-Security-Token")
    yield _header("X-CSRF-Token")
    yield _header("Referer", "https://b.example/?token={}")
    yield _header(claimed_header, claimed=False)
    yield _target("amz", "?X-Amz-Expires=60&X-Amz-Signature={}")
    yield _target("sas", "?sv=2026-01-01&sig={}&se=1")
    for name in ("access_token", "id_token", "refresh_token", "client_secret", "password", "passwd", "api_key"):
        yield _target(name, f"?a=b&{name}={{}}")
    yield _target("odd-case", "?aPiKeY={}", shown=_encoded)
    yield _target("encoded-name", "?%61pi%5Fk%65y={}")
    yield _target("oauth", "?state=s&code={}")
    yield _target("json", "?q=%7B%22password%22%3A%22{}%22%7D")
    yield _target("redirect", "?to=https%3A%2F%2Fu%3A{}%40b.example%2F")
    yield _target("jwt", "/" + _JWT_BEGIN + "{}/x", shown=_jwt)
    yield _target("session", "/x;jsessionid={}?a=b")
    yield _target("webhook", "/hooks/secret={}/run")
    yield _target("bot", "/bot123456789:{}-xxxxx/send")
    yield _target("slack", "/services/xoxb-{}")
    userinfo = secrets.token_hex(16)
    yield Credential("userinfo", (userinfo,), authority=f"u:{userinfo}@b", http2=False)
