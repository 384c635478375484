"""Control messages of the tunnel: frozen values and their JSON.

The first frame of a carrier is the client's HELLO; the manager answers WELCOME or CLOSE. A carrier whose HELLO says
``observer`` gets SESSIONS and is closed. Unknown keys are skipped, so that a message can grow without a new version;
missing keys and wrong types raise ProtocolError. Words for people (holder, reason) are made printable and cut to their
limit when they are encoded: whoever says them has them from a kernel or another program.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from meshdev.config import MAX_CARRIERS
from meshdev.errors import ProtocolError
from meshdev.wire import frames
from meshdev.wire.fields import Fields, parse, plain

MAX_TEXT: Final = 1024
#: Characters of a holder's name, so that SESSIONS with every session a manager takes fits one frame:
#: 60 x (4 x 128 bytes of UTF-8 and 80 around them) < 64 KiB.
MAX_HOLDER: Final = 128

_HEX_ID: Final = re.compile(r"[0-9a-f]{32}")
_OFFLOAD_BITS: Final = 0xFF


@dataclass(frozen=True)
class Hello:
    """The client's first words on each carrier.

    ``session`` names the session (128 random bits, hex), ``secret`` proves that a later carrier belongs to it.
    ``offload`` is the TUN_F_* mask that the client's kernel takes, ``pools`` the ranges it can use, best first.
    """

    oldest: int
    newest: int
    session: str
    secret: str
    holder: str
    offload: int
    pools: tuple[IPv4Network, ...]
    wanted: IPv4Address | None = None
    carrier: int = 0
    carriers: int = 1
    observer: bool = False


@dataclass(frozen=True)
class Welcome:
    """The manager's answer: the session is up.

    ``mtu`` in bytes is that of the manager's own interface; ``offload`` the mask both kernels take.
    """

    version: int
    address: IPv4Address
    mtu: int
    offload: int
    nameservers: tuple[IPv4Address, ...]
    search: tuple[str, ...]
    pod: str
    namespace: str
    pod_address: IPv4Address


@dataclass(frozen=True)
class Close:
    """Goodbye: ``code`` for programs, ``reason`` for people. ``sessions`` counts who else is on the manager."""

    code: str
    reason: str
    sessions: int = 0


@dataclass(frozen=True)
class SessionInfo:
    """One session as others may see it."""

    holder: str
    address: IPv4Address
    age_s: int


@dataclass(frozen=True)
class Sessions:
    """Everybody on the manager."""

    sessions: tuple[SessionInfo, ...]


Message = Hello | Welcome | Close | Sessions


def encode(message: Message) -> bytes:
    """The whole frame of *message*."""
    match message:
        case Hello():
            return _frame(frames.HELLO, replace(message, holder=_for_people(message.holder, MAX_HOLDER)))
        case Welcome():
            return _frame(frames.WELCOME, message)
        case Close():
            return _frame(frames.CLOSE, replace(message, reason=_for_people(message.reason, MAX_TEXT)))
        case Sessions():
            return _frame(frames.SESSIONS, message)


def _frame(kind: int, message: Message) -> bytes:
    return frames.frame(kind, json.dumps(plain(message), separators=(",", ":"), ensure_ascii=False).encode())


def _for_people(text: str, limit: int) -> str:
    """One printable line of at most *limit* characters."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in line[:limit])


def decode(kind: int, body: bytes) -> Message | None:
    """The message of a frame; None for an unknown kind that may be skipped. Raises ProtocolError."""
    reader = _READERS.get(kind)
    if reader is None:
        if kind & frames.OPTIONAL:
            return None
        raise ProtocolError(f"a tunnel frame of unknown kind {kind}")
    what = f"a tunnel message of kind {kind}"
    return reader(_Object(parse(body, what), what))


class _Object(Fields):
    """An object of a message: unknown keys are skipped, texts are short and printable, addresses are IPv4."""

    def word(self, key: str, limit: int = MAX_TEXT) -> str:
        return self.parsed(key, _printable, limit)

    def words(self, key: str) -> tuple[str, ...]:
        return self.all_parsed(key, _printable, limit=MAX_TEXT)

    def identity(self, key: str) -> str:
        return self.parsed(key, _identity, MAX_TEXT)

    def address(self, key: str) -> IPv4Address:
        return self.parsed(key, IPv4Address, MAX_TEXT)

    def optional_address(self, key: str) -> IPv4Address | None:
        return None if key not in self or self._null(key) else self.address(key)

    def addresses(self, key: str) -> tuple[IPv4Address, ...]:
        return self.all_parsed(key, IPv4Address, limit=MAX_TEXT)

    def networks(self, key: str) -> tuple[IPv4Network, ...]:
        return self.all_parsed(key, IPv4Network, limit=MAX_TEXT)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("not printable")
    return text


def _identity(text: str) -> str:
    if not _HEX_ID.fullmatch(text):
        raise ValueError("not 32 hexadecimal digits")
    return text


def _hello(fields: _Object) -> Hello:
    carriers = fields.integer("carriers", 1, MAX_CARRIERS)
    return Hello(
        oldest=fields.integer("oldest", 0, 1 << 16),
        newest=fields.integer("newest", 0, 1 << 16),
        session=fields.identity("session"),
        secret=fields.identity("secret"),
        holder=fields.word("holder", MAX_HOLDER),
        offload=fields.integer("offload", 0, _OFFLOAD_BITS),
        pools=fields.networks("pools"),
        wanted=fields.optional_address("wanted"),
        carrier=fields.integer("carrier", 0, carriers - 1),
        carriers=carriers,
        observer=fields.flag("observer"),
    )


def _welcome(fields: _Object) -> Welcome:
    return Welcome(
        version=fields.integer("version", 0, 1 << 16),
        address=fields.address("address"),
        # RFC 791: every host forwards 68 bytes; the upper end is the largest MTU a TUN device takes.
        mtu=fields.integer("mtu", 68, 65535),
        offload=fields.integer("offload", 0, _OFFLOAD_BITS),
        nameservers=fields.addresses("nameservers"),
        search=fields.words("search"),
        pod=fields.word("pod"),
        namespace=fields.word("namespace"),
        pod_address=fields.address("pod_address"),
    )


def _close(fields: _Object) -> Close:
    return Close(
        code=fields.word("code"), reason=fields.word("reason"), sessions=fields.integer("sessions", 0, 1 << 20)
    )


def _sessions(fields: _Object) -> Sessions:
    return Sessions(fields.inners("sessions", _session_info))


def _session_info(fields: _Object) -> SessionInfo:
    return SessionInfo(
        holder=fields.word("holder", MAX_HOLDER),
        address=fields.address("address"),
        age_s=fields.integer("age_s", 0, 1 << 40),
    )


_READERS: Final[dict[int, Callable[[_Object], Message]]] = {
    frames.HELLO: _hello,
    frames.WELCOME: _welcome,
    frames.CLOSE: _close,
    frames.SESSIONS: _sessions,
}
