"""The helper's answers, one type for each type of request."""

from ipaddress import IPv4Network

from meshdev.wire import values
from meshdev.wire.codecs import FLAG, PORT, Integer, Many, Nullable, Parsed
from meshdev.wire.helper.limits import (
    ADDRESS,
    MAX_FDS,
    MAX_LISTENERS,
    MAX_REFUSED,
    MAX_UPSTREAMS,
    NAMES,
    ROUTES,
    SENTENCE,
    SENTENCES,
    SERVERS,
)
from meshdev.wire.message import field, message, nested
from meshdev.wire.values import IPAddress


@message()
class Acknowledged:
    """Done; without data."""


@message()
class TunOpened:
    """The device exists, down and without an address; one descriptor per queue is sent with it."""

    device: str = field(Parsed(values.interface))
    offload: int = field(Integer(0, 0xFFFF))


@message()
class AddressSet:
    """The device is up. ``guard``: a packet filter drops unsolicited connections; ``note`` says why there is none."""

    guard: bool = field(FLAG)
    note: str | None = field(Nullable(SENTENCE))


@message()
class RefusedRoute:
    """A route that the kernel refused, with its error."""

    route: IPv4Network = field(Parsed(values.route))
    reason: str = field(SENTENCE)


@message()
class RoutesSet:
    """The kernel's routes now, and the first MAX_REFUSED that it refused."""

    routes: tuple[IPv4Network, ...] = field(ROUTES)
    refused: tuple[RefusedRoute, ...] = field(Many(nested(RefusedRoute), MAX_REFUSED))


@message()
class ListenerAddress:
    """A listener of the forwarder; two descriptors: UDP, TCP. ``server`` is the former resolver whose queries come
    there; None: not only one.
    """

    address: IPAddress = field(ADDRESS)
    port: int = field(PORT)
    server: IPAddress | None = field(Nullable(ADDRESS), default=None)


@message()
class Upstream:
    """A former resolver; *sockets* descriptors: marked UDP sockets connected to its port 53 (0: no route to it)."""

    address: IPAddress = field(ADDRESS)
    sockets: int = field(Integer(0, MAX_FDS))


@message()
class DnsOpened:
    """The descriptors sent with it are in the order of ``listeners``, then of ``upstreams``.

    ``containers`` says why containers of this machine do not reach the cluster; None where they do or there are none.
    """

    listeners: tuple[ListenerAddress, ...] = field(Many(nested(ListenerAddress), MAX_LISTENERS))
    upstreams: tuple[Upstream, ...] = field(Many(nested(Upstream), MAX_UPSTREAMS))
    containers: str | None = field(Nullable(SENTENCE), default=None)


@message()
class DnsSet:
    """Queries reach the forwarder. ``note``: why a cache may still have former answers."""

    note: str | None = field(Nullable(SENTENCE))


@message()
class Beat:
    """``active``: queries reach the forwarder. ``nameservers`` and ``search`` are its configuration without
    us. ``problems`` lists what of ours on this machine is not as it should be, ``repaired`` what was restored
    since the last heartbeat.
    """

    active: bool = field(FLAG)
    nameservers: tuple[IPAddress, ...] = field(SERVERS)
    search: tuple[str, ...] = field(NAMES)
    problems: tuple[str, ...] = field(SENTENCES, default=())
    repaired: tuple[str, ...] = field(SENTENCES, default=())


@message()
class Translations:
    """A sentence for each place in this machine's packet filter that translates addresses in our routes."""

    found: tuple[str, ...] = field(SENTENCES)


Result = Translations | Acknowledged | TunOpened | AddressSet | RoutesSet | DnsOpened | DnsSet | Beat
