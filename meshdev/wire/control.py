"""Control messages of the tunnel: frozen values and their JSON.

The first frame of a carrier is the client's HELLO; the manager answers WELCOME or CLOSE. A carrier whose HELLO has
``observer`` set gets SESSIONS and is closed. Messages about intercepts are in :mod:`meshdev.wire.intercepts`, those
about their requests in :mod:`meshdev.wire.watching`.

Texts for people (holder, reason) are made printable and cut to their limit when they are encoded.
"""

import json
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from meshdev.config import MAX_CARRIERS
from meshdev.errors import ProtocolError
from meshdev.wire import frames
from meshdev.wire.codecs import FLAG, Integer, Many, Nullable
from meshdev.wire.intercepts import AgentKeys, Agents, Intercept, Issued, Local, Relays, Report, Withdraw
from meshdev.wire.message import decode as decode_object
from meshdev.wire.message import dump, field, load, message, nested
from meshdev.wire.objects import CERTIFICATE, IDENTITY, IPV4, NETWORK, ForPeople, Line
from meshdev.wire.watching import ClaimRecords, WatchClaim

#: From this version on sessions attest agents (ATTESTED) and the manager has a certificate (IDENTITY). An older manager
#: ends the carrier that sends them, and an older session knows agents by tokens, which they no longer have: neither can
#: intercept with the other. :attr:`Welcome.version` is the version in use.
INTERCEPT_PROTOCOL: Final = 4

#: Characters of a holder's name, so that SESSIONS with every session a manager takes fits one frame:
#: 60 x (4 x 128 bytes of UTF-8 and 80 around them) < 64 KiB.
MAX_HOLDER: Final = 128

_VERSION: Final = Integer(0, 1 << 16)
_OFFLOAD: Final = Integer(0, 0xFF)
_HOLDER: Final = ForPeople(MAX_HOLDER)


@message()
class Hello:
    """The client's first message on each carrier.

    ``session`` identifies the session (128 random bits, hex), ``secret`` proves that a later carrier belongs to it.
    ``offload`` is the TUN_F_* mask that the client's kernel accepts, ``pools`` the ranges it can use, best first.
    """

    oldest: int = field(_VERSION)
    newest: int = field(_VERSION)
    session: str = field(IDENTITY)
    secret: str = field(IDENTITY)
    holder: str = field(_HOLDER)
    offload: int = field(_OFFLOAD)
    pools: tuple[IPv4Network, ...] = field(Many(NETWORK))
    wanted: IPv4Address | None = field(Nullable(IPV4), default=None, optional=True)
    carrier: int = field(Integer(0, MAX_CARRIERS - 1), default=0)
    carriers: int = field(Integer(1, MAX_CARRIERS), default=1)
    observer: bool = field(FLAG, default=False)

    def __post_init__(self) -> None:
        if self.carrier >= self.carriers:
            raise ValueError(f"carrier {self.carrier} of {self.carriers}")


@message()
class Welcome:
    """The manager's answer: the session is up.

    ``mtu`` in bytes is that of the manager's own interface; ``offload`` the mask both kernels accept.
    """

    version: int = field(_VERSION)
    address: IPv4Address = field(IPV4)
    #: RFC 791: every host forwards 68 bytes; the upper end is the largest MTU a TUN device takes.
    mtu: int = field(Integer(68, 65535))
    offload: int = field(_OFFLOAD)
    nameservers: tuple[IPv4Address, ...] = field(Many(IPV4))
    search: tuple[str, ...] = field(Many(Line()))
    pod: str = field(Line())
    namespace: str = field(Line())
    pod_address: IPv4Address = field(IPV4)


@message()
class Close:
    """Goodbye: ``code`` for programs, ``reason`` for people. ``sessions`` counts the manager's other sessions."""

    code: str = field(Line())
    reason: str = field(ForPeople())
    sessions: int = field(Integer(0, 1 << 20), default=0)


@message()
class SessionInfo:
    """What other users may know of a session."""

    holder: str = field(Line(MAX_HOLDER))
    address: IPv4Address = field(IPV4)
    age_s: int = field(Integer(0, 1 << 40))


@message()
class Sessions:
    """All sessions of the manager."""

    sessions: tuple[SessionInfo, ...] = field(Many(nested(SessionInfo)))


@message()
class ManagerIdentity:
    """The manager's certificate (DER), that of its authority. The session vouches for it to agents.

    It is sent to sessions of :data:`INTERCEPT_PROTOCOL` as soon as control is there, and whenever it changes.
    """

    certificate: bytes = field(CERTIFICATE)


Message = (
    Hello
    | Welcome
    | Close
    | Sessions
    | ManagerIdentity
    | Intercept
    | Agents
    | AgentKeys
    | Withdraw
    | Local
    | Relays
    | Report
    | Issued
    | WatchClaim
    | ClaimRecords
)


_KINDS: Final[dict[int, type[Message]]] = {
    frames.HELLO: Hello,
    frames.WELCOME: Welcome,
    frames.CLOSE: Close,
    frames.SESSIONS: Sessions,
    frames.INTERCEPT: Intercept,
    frames.AGENTS: AgentKeys,
    frames.ATTESTED: Agents,
    frames.IDENTITY: ManagerIdentity,
    frames.WITHDRAW: Withdraw,
    frames.LOCAL: Local,
    frames.RELAYS: Relays,
    frames.REPORT: Report,
    frames.ISSUED: Issued,
    frames.WATCH: WatchClaim,
    frames.RECORDS: ClaimRecords,
}
_NUMBERS: Final = {kind: number for number, kind in _KINDS.items()}


def encode(message: Message) -> bytes:
    """The whole frame of *message*."""
    return frames.frame(_NUMBERS[type(message)], encode_body(message))


def encode_body(message: Message) -> bytes:
    """What the frame of *message* holds."""
    return json.dumps(dump(message), separators=(",", ":"), ensure_ascii=False).encode()


def decode(kind: int, body: bytes) -> Message | None:
    """The message of a frame; None for an unknown kind that may be skipped. Raises ProtocolError."""
    if kind in _KINDS:
        return decode_object(body, f"a tunnel message of kind {kind}", lambda found: load(_KINDS[kind], found))
    if kind & frames.OPTIONAL:
        return None
    raise ProtocolError(f"a tunnel frame of unknown kind {kind}")
