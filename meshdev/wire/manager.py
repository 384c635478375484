"""What the manager's two containers say to each other: one JSON object a datagram of a SEQPACKET unix socket.

::

    tunnel  → {"pod": "10.244.0.9"}                              first, to whoever connects
    tunnel  → {"claim": {"id": …, "spec": "{…}", "holder": …, "relays": […], "up": […]}}
    tunnel  → {"agents": {"id": …, "part": 0, "keys": […]}}      after its claim: whom it reaches
    tunnel  → {"withdrawn": id}
    tunnel  → {"synced": true}                                   claims told so far are all there are
    tunnel  → {"seen": {"event": "joined", "holder": "ann@laptop", "address": "198.18.0.2"}}
    control → {"allow": {"relay": 20001, "addresses": ["10.244.0.7"], "keep": false}}
    control → {"report": {"id": …, "pod": …, …}}

Both tell states, never changes, so a side that was slow or began anew is told the newest and needs no history.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final, TypeVar

from meshdev.config import RELAY_PORTS
from meshdev.errors import ProtocolError
from meshdev.wire import intercepts
from meshdev.wire.fields import parse, plain
from meshdev.wire.intercepts import MAX_AGENTS, MAX_RELAYS, MAX_SPEC, TRANSPORTS, Agents, Relay, Report, Transport
from meshdev.wire.objects import Object

#: Bytes of one datagram: a spec, escaped once more, and its relays. Below the kernel's 208 KiB for a socket's queue.
MAX_DATAGRAM: Final = 64 << 10
#: Pods of one claim that may use a relay.
MAX_ADDRESSES: Final = MAX_AGENTS
_MAX_HOLDER: Final = 128

T = TypeVar("T")


@dataclass(frozen=True)
class Pod:
    """The manager pod's own address: relays are there."""

    address: IPv4Address


@dataclass(frozen=True)
class Up:
    """A port whose program listens, in a session that is heard of."""

    remote: int
    protocol: Transport


@dataclass(frozen=True)
class Claimed:
    """A live session's intercept as it stands now."""

    id: str
    spec: str
    holder: str
    relays: tuple[Relay, ...]
    up: tuple[Up, ...]
    reset_older: bool = False
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Withdrawn:
    """There is no such intercept any more."""

    id: str


@dataclass(frozen=True)
class Synced:
    """All claims are told."""


@dataclass(frozen=True)
class Seen:
    """For the log: who came and went."""

    event: str
    holder: str
    address: IPv4Address


@dataclass(frozen=True)
class Allow:
    """Who may use a relay. *keep*: those who were allowed before may go on (control began anew and does not know)."""

    relay: int
    addresses: tuple[IPv4Address, ...]
    keep: bool


ToControl = Pod | Claimed | Agents | Withdrawn | Synced | Seen
ToTunnel = Allow | Report


def encode(message: ToControl | ToTunnel) -> bytes:
    """One datagram."""
    match message:
        case Pod():
            value: dict[str, object] = {"pod": str(message.address)}
        case Claimed():
            value = {"claim": plain(message)}
        case Agents():
            value = {"agents": {"id": message.id, "part": message.part, "keys": list(message.keys)}}
        case Withdrawn():
            value = {"withdrawn": message.id}
        case Synced():
            value = {"synced": True}
        case Seen():
            value = {"seen": plain(message)}
        case Allow():
            value = {"allow": plain(message)}
        case Report():
            value = {"report": plain(intercepts.report_for_people(message))}
    return json.dumps(value, separators=(",", ":")).encode()


def decode_to_control(datagram: bytes) -> ToControl:
    """What the tunnel container said. Raises ProtocolError."""
    return _decode(datagram, _TO_CONTROL)


def decode_to_tunnel(datagram: bytes) -> ToTunnel:
    """What the control container said. Raises ProtocolError."""
    return _decode(datagram, _TO_TUNNEL)


def _decode(datagram: bytes, readers: Mapping[str, Callable[[Object], T]]) -> T:
    fields = Object(parse(datagram, "a datagram"), "a datagram")
    for key, read in readers.items():
        if key in fields:
            return read(fields)
    raise ProtocolError("a datagram of unknown kind")


def _claim(fields: Object) -> Claimed:
    inner = fields.inner("claim")
    return Claimed(
        id=inner.identity("id"),
        spec=inner.text("spec", MAX_SPEC),
        holder=inner.word("holder", _MAX_HOLDER),
        relays=inner.inners("relays", intercepts.read_relay, MAX_RELAYS),
        up=inner.inners("up", _up, MAX_RELAYS),
        reset_older=inner.flag("reset_older"),
        excluded=intercepts.read_excluded(inner),
    )


def _up(fields: Object) -> Up:
    return Up(fields.integer("remote", 1, 65535), fields.choice("protocol", TRANSPORTS))


def _seen(fields: Object) -> Seen:
    inner = fields.inner("seen")
    return Seen(inner.word("event"), inner.word("holder", _MAX_HOLDER), inner.address("address"))


def _allow(fields: Object) -> Allow:
    inner = fields.inner("allow")
    relay = inner.integer("relay", RELAY_PORTS.start, RELAY_PORTS.stop - 1)
    return Allow(relay, inner.distinct("addresses", IPv4Address, MAX_ADDRESSES), inner.flag("keep"))


_TO_CONTROL: Final[dict[str, Callable[[Object], ToControl]]] = {
    "pod": lambda fields: Pod(fields.address("pod")),
    "claim": _claim,
    "agents": lambda fields: intercepts.read_agents(fields.inner("agents"), ordered=False),
    "withdrawn": lambda fields: Withdrawn(fields.identity("withdrawn")),
    "synced": lambda _: Synced(),
    "seen": _seen,
}
_TO_TUNNEL: Final[dict[str, Callable[[Object], ToTunnel]]] = {
    "allow": _allow,
    "report": lambda fields: intercepts.read_report(fields.inner("report")),
}
