"""The closed list of what the session may ask of the root helper. ``read`` checks every value."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import ClassVar, Final

from meshdev.config import MAX_CARRIERS, RELAY_PORTS
from meshdev.wire import values
from meshdev.wire.fields import Fields
from meshdev.wire.helper.answers import (
    AddressSet,
    Beat,
    DnsOpened,
    DnsSet,
    Done,
    Result,
    RoutesSet,
    Translations,
    TunOpened,
)
from meshdev.wire.helper.limits import MAX_DOMAINS, MAX_NAMES, MAX_RELAYS, MAX_ROUTES, MAX_UPSTREAMS
from meshdev.wire.intercepts import TRANSPORTS, Transport
from meshdev.wire.values import IPAddress


@dataclass(frozen=True, slots=True)
class OpenTun:
    """Make the device; once a helper. Refused where no packet filter can guard it, unless it may be *unguarded*."""

    op: ClassVar[str] = "open_tun"
    answer: ClassVar[type[Result]] = TunOpened
    queues: int
    unguarded: bool = False

    @classmethod
    def read(cls, found: Fields) -> "OpenTun":
        return cls(found.integer("queues", 1, MAX_CARRIERS), found.flag("unguarded"))


@dataclass(frozen=True, slots=True)
class SetAddress:
    """Give the device its address and bring it up; again with another address: move there, without routes."""

    op: ClassVar[str] = "set_address"
    answer: ClassVar[type[Result]] = AddressSet
    address: IPv4Address
    mtu: int

    @classmethod
    def read(cls, found: Fields) -> "SetAddress":
        return cls(found.parsed("address", values.session_address), found.integer("mtu", 576, 65535))


@dataclass(frozen=True, slots=True)
class SetRoutes:
    """The routes that shall exist on the device, all of them."""

    op: ClassVar[str] = "set_routes"
    answer: ClassVar[type[Result]] = RoutesSet
    routes: tuple[IPv4Network, ...]

    @classmethod
    def read(cls, found: Fields) -> "SetRoutes":
        return cls(found.distinct("routes", values.route, MAX_ROUTES))


@dataclass(frozen=True, slots=True)
class AddRoutes:
    """Routes to add to those that exist: what one DNS answer needs, without telling all of them again.

    The answer's ``routes`` are those of the request that are in force.
    """

    op: ClassVar[str] = "add_routes"
    answer: ClassVar[type[Result]] = RoutesSet
    routes: tuple[IPv4Network, ...]

    @classmethod
    def read(cls, found: Fields) -> "AddRoutes":
        return cls(found.distinct("routes", values.route, MAX_ROUTES))


@dataclass(frozen=True, slots=True)
class DnsSockets:
    """Sockets for the forwarder; again: a fresh set, as after a change of network."""

    op: ClassVar[str] = "dns_sockets"
    answer: ClassVar[type[Result]] = DnsOpened
    upstreams: tuple[IPAddress, ...]

    @classmethod
    def read(cls, found: Fields) -> "DnsSockets":
        return cls(found.distinct("upstreams", values.address, MAX_UPSTREAMS))


@dataclass(frozen=True, slots=True)
class UpstreamTcp:
    """One marked, non-blocking TCP socket of the server's family, not connected."""

    op: ClassVar[str] = "upstream_tcp"
    answer: ClassVar[type[Result]] = Done
    server: IPAddress

    @classmethod
    def read(cls, found: Fields) -> "UpstreamTcp":
        return cls(found.parsed("server", values.address))


@dataclass(frozen=True, slots=True)
class SetDns:
    """Send the laptop's DNS to the forwarder; again: with other names, or to have caches forget what it answered.

    ``search`` is appended to short names, before the laptop's own list; ``domains`` are asked here, "." for all
    (resolved only: the other ways bring every question).
    """

    op: ClassVar[str] = "set_dns"
    answer: ClassVar[type[Result]] = DnsSet
    search: tuple[str, ...]
    domains: tuple[str, ...]

    @classmethod
    def read(cls, found: Fields) -> "SetDns":
        return cls(
            found.distinct("search", values.name, MAX_NAMES),
            found.distinct("domains", values.name, MAX_DOMAINS),
        )


@dataclass(frozen=True, slots=True)
class RelayTarget:
    """A relay's port at the session's address, and the program of this machine that it leads to."""

    relay: int
    protocol: Transport
    address: IPv4Address
    port: int

    @classmethod
    def read(cls, found: Fields) -> "RelayTarget":
        return cls(
            found.integer("relay", RELAY_PORTS.start, RELAY_PORTS.stop - 1),
            found.choice("protocol", TRANSPORTS),
            found.parsed("address", values.local_address),
            found.integer("port", 1, 65535),
        )


@dataclass(frozen=True, slots=True)
class SetRelays:
    """The relays that shall lead to this machine's programs, all of them; everything else stays out."""

    op: ClassVar[str] = "set_relays"
    answer: ClassVar[type[Result]] = Done
    relays: tuple[RelayTarget, ...]

    @classmethod
    def read(cls, found: Fields) -> "SetRelays":
        relays = found.wholes("relays", RelayTarget.read, MAX_RELAYS)
        found.check("relays", len({(each.relay, each.protocol) for each in relays}) == len(relays))
        return cls(relays)


@dataclass(frozen=True, slots=True)
class FindTranslations:
    """Whether other programs translate what our routes bring into the tunnel. Changes nothing."""

    op: ClassVar[str] = "find_translations"
    answer: ClassVar[type[Result]] = Translations

    @classmethod
    def read(cls, _: Fields) -> "FindTranslations":
        return cls()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The session is alive: without one for BEAT_LIMIT_SECONDS the laptop's DNS goes back, until the next."""

    op: ClassVar[str] = "heartbeat"
    answer: ClassVar[type[Result]] = Beat

    @classmethod
    def read(cls, _: Fields) -> "Heartbeat":
        return cls()


@dataclass(frozen=True, slots=True)
class Close:
    """Undo everything, answer, end. EOF does the same without an answer."""

    op: ClassVar[str] = "close"
    answer: ClassVar[type[Result]] = Done

    @classmethod
    def read(cls, _: Fields) -> "Close":
        return cls()


Request = (
    OpenTun
    | SetAddress
    | SetRoutes
    | AddRoutes
    | DnsSockets
    | UpstreamTcp
    | SetDns
    | SetRelays
    | FindTranslations
    | Heartbeat
    | Close
)
REQUESTS: Final[tuple[type[Request], ...]] = (
    OpenTun,
    SetAddress,
    SetRoutes,
    AddRoutes,
    DnsSockets,
    UpstreamTcp,
    SetDns,
    SetRelays,
    FindTranslations,
    Heartbeat,
    Close,
)
