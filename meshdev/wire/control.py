"""Control messages of the tunnel: frozen values and their JSON.

The first frame of a carrier is the client's HELLO; the manager answers WELCOME or CLOSE. A carrier whose HELLO says
``observer`` gets SESSIONS and is closed. What intercepts need is in :mod:`meshdev.wire.intercepts`.

Unknown keys are skipped, so that a message can grow without a new version; missing keys and wrong types raise
ProtocolError. Words for people (holder, reason) are made printable and cut to their limit when they are encoded:
whoever says them has them from a kernel or another program.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from meshdev.config import MAX_CARRIERS
from meshdev.errors import ProtocolError
from meshdev.wire import frames, intercepts
from meshdev.wire.fields import parse, plain
from meshdev.wire.intercepts import Agents, Intercept, Local, Relays, Report, Withdraw
from meshdev.wire.objects import Object, for_people

#: From this version on claims name their agents (AGENTS). An older manager ends the carrier that brings them, an older
#: session knows pods by a token in a Secret, which no sidecar has any more: neither can intercept with the other.
#: :attr:`Welcome.version` says what is spoken.
INTERCEPT_PROTOCOL: Final = 3

MAX_TEXT: Final = 1024
#: Characters of a holder's name, so that SESSIONS with every session a manager takes fits one frame:
#: 60 x (4 x 128 bytes of UTF-8 and 80 around them) < 64 KiB.
MAX_HOLDER: Final = 128

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


Message = Hello | Welcome | Close | Sessions | Intercept | Agents | Withdraw | Local | Relays | Report


def encode(message: Message) -> bytes:
    """The whole frame of *message*."""
    kind = next(kind for kind, (of, _) in _KINDS.items() if isinstance(message, of))
    body = json.dumps(plain(_printable(message)), separators=(",", ":"), ensure_ascii=False)
    return frames.frame(kind, body.encode())


def _printable(message: Message) -> Message:
    match message:
        case Hello():
            return replace(message, holder=for_people(message.holder, MAX_HOLDER))
        case Close():
            return replace(message, reason=for_people(message.reason))
        case Relays():
            return intercepts.relays_for_people(message)
        case Report():
            return intercepts.report_for_people(message)
        case _:
            return message


def decode(kind: int, body: bytes) -> Message | None:
    """The message of a frame; None for an unknown kind that may be skipped. Raises ProtocolError."""
    if kind not in _KINDS:
        if kind & frames.OPTIONAL:
            return None
        raise ProtocolError(f"a tunnel frame of unknown kind {kind}")
    what = f"a tunnel message of kind {kind}"
    return _KINDS[kind][1](Object(parse(body, what), what))


def _hello(fields: Object) -> Hello:
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


def _welcome(fields: Object) -> Welcome:
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


def _close(fields: Object) -> Close:
    return Close(
        code=fields.word("code"), reason=fields.word("reason"), sessions=fields.integer("sessions", 0, 1 << 20)
    )


def _sessions(fields: Object) -> Sessions:
    return Sessions(fields.inners("sessions", _session_info))


def _session_info(fields: Object) -> SessionInfo:
    return SessionInfo(
        holder=fields.word("holder", MAX_HOLDER),
        address=fields.address("address"),
        age_s=fields.integer("age_s", 0, 1 << 40),
    )


_KINDS: Final[dict[int, tuple[type[Message], Callable[[Object], Message]]]] = {
    frames.HELLO: (Hello, _hello),
    frames.WELCOME: (Welcome, _welcome),
    frames.CLOSE: (Close, _close),
    frames.SESSIONS: (Sessions, _sessions),
    frames.INTERCEPT: (Intercept, intercepts.read_intercept),
    frames.AGENTS: (Agents, intercepts.read_agents),
    frames.WITHDRAW: (Withdraw, intercepts.read_withdraw),
    frames.LOCAL: (Local, intercepts.read_local),
    frames.RELAYS: (Relays, intercepts.read_relays),
    frames.REPORT: (Report, intercepts.read_report),
}
