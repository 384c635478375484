"""The closed list of requests that the session may send to the root helper.

Strict: a helper that does not know a part of a request, which is a user's to root, refuses all of it.
"""

from ipaddress import IPv4Address, IPv4Network
from typing import ClassVar, Final, get_args

from meshdev.config import MAX_CARRIERS, RELAY_PORTS
from meshdev.wire import values
from meshdev.wire.codecs import FLAG, PORT, Choice, Integer, Many, Parsed, itself
from meshdev.wire.helper.answers import (
    Acknowledged,
    AddressSet,
    Beat,
    DnsOpened,
    DnsSet,
    Result,
    RoutesSet,
    Translations,
    TunOpened,
)
from meshdev.wire.helper.limits import ADDRESS, MAX_DOMAINS, MAX_RELAYS, NAME, NAMES, ROUTES, SERVERS
from meshdev.wire.message import field, message, nested
from meshdev.wire.ports import TRANSPORTS, Transport
from meshdev.wire.values import IPAddress


@message(strict=True)
class OpenTun:
    """Create the device; once a helper. Refused where no packet filter can guard it, unless it may be *unguarded*."""

    op: ClassVar[str] = "open_tun"
    answer: ClassVar[type[Result]] = TunOpened
    queues: int = field(Integer(1, MAX_CARRIERS))
    unguarded: bool = field(FLAG, default=False)


@message(strict=True)
class SetAddress:
    """Set the device's address and bring it up. A later address replaces it and removes the routes."""

    op: ClassVar[str] = "set_address"
    answer: ClassVar[type[Result]] = AddressSet
    address: IPv4Address = field(Parsed(values.session_address))
    mtu: int = field(Integer(576, 65535))


@message(strict=True)
class SetRoutes:
    """Set all routes of the device."""

    op: ClassVar[str] = "set_routes"
    answer: ClassVar[type[Result]] = RoutesSet
    routes: tuple[IPv4Network, ...] = field(ROUTES)


@message(strict=True)
class AddRoutes:
    """Add routes to the existing ones, for example those that a DNS answer needs.

    The answer's ``routes`` are those of the request that are in force.
    """

    op: ClassVar[str] = "add_routes"
    answer: ClassVar[type[Result]] = RoutesSet
    routes: tuple[IPv4Network, ...] = field(ROUTES)


@message(strict=True)
class DnsSockets:
    """Get sockets for the forwarder; each time a new set, as after a change of network."""

    op: ClassVar[str] = "dns_sockets"
    answer: ClassVar[type[Result]] = DnsOpened
    upstreams: tuple[IPAddress, ...] = field(SERVERS)


@message(strict=True)
class UpstreamTcp:
    """Get a marked, non-blocking, unconnected TCP socket of the server's family."""

    op: ClassVar[str] = "upstream_tcp"
    answer: ClassVar[type[Result]] = Acknowledged
    server: IPAddress = field(ADDRESS)


@message(strict=True)
class SetDns:
    """Send the laptop's queries to the forwarder; again with other names, or to flush caches.

    ``search`` is appended to short names, before the laptop's own list; ``domains`` are resolved here, "." for all
    (resolved only: the other integrations bring every query).
    """

    op: ClassVar[str] = "set_dns"
    answer: ClassVar[type[Result]] = DnsSet
    search: tuple[str, ...] = field(NAMES)
    domains: tuple[str, ...] = field(Many(NAME, MAX_DOMAINS, distinct=itself))


@message(strict=True)
class RelayTarget:
    """A relay's port at the session's address, and the program of this machine that it forwards to."""

    relay: int = field(Integer(RELAY_PORTS.start, RELAY_PORTS.stop - 1))
    protocol: Transport = field(Choice(TRANSPORTS))
    address: IPv4Address = field(Parsed(values.local_address))
    port: int = field(PORT)


@message(strict=True)
class SetRelays:
    """Set all relays that forward to programs of this machine; everything else is dropped."""

    op: ClassVar[str] = "set_relays"
    answer: ClassVar[type[Result]] = Acknowledged
    relays: tuple[RelayTarget, ...] = field(
        Many(nested(RelayTarget), MAX_RELAYS, distinct=lambda each: (each.relay, each.protocol))
    )


@message(strict=True)
class FindTranslations:
    """Find DNAT rules of other programs for addresses in our routes. Changes nothing."""

    op: ClassVar[str] = "find_translations"
    answer: ClassVar[type[Result]] = Translations


@message(strict=True)
class OpenNetwork:
    """Get a socket from which sockets of the helper's own network namespace are had: ``isolation/network.py``.

    Once a helper; refused by one that has no namespace of its own.
    """

    op: ClassVar[str] = "open_network"
    answer: ClassVar[type[Result]] = Acknowledged


@message(strict=True)
class Heartbeat:
    """The session is alive. After BEAT_LIMIT_SECONDS without one DNS is withdrawn until the next."""

    op: ClassVar[str] = "heartbeat"
    answer: ClassVar[type[Result]] = Beat


@message(strict=True)
class Shutdown:
    """Undo everything, answer, exit. EOF does the same without an answer."""

    op: ClassVar[str] = "close"
    answer: ClassVar[type[Result]] = Acknowledged


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
    | OpenNetwork
    | Heartbeat
    | Shutdown
)
REQUESTS: Final[tuple[type[Request], ...]] = get_args(Request)
