"""What the helper answers, one kind for each kind of request."""

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
    """Nothing more to say."""


@message()
class TunOpened:
    """The device is there, down and without an address; beside it one descriptor a queue."""

    device: str = field(Parsed(values.interface))
    offload: int = field(Integer(0, 0xFFFF))


@message()
class AddressSet:
    """The device is up. ``guard``: a packet filter keeps unasked connections out; ``note`` says why there is none."""

    guard: bool = field(FLAG)
    note: str | None = field(Nullable(SENTENCE))


@message()
class RefusedRoute:
    """A route that the kernel did not take, in the kernel's words."""

    route: IPv4Network = field(Parsed(values.route))
    reason: str = field(SENTENCE)


@message()
class RoutesSet:
    """What the kernel has now, and (the first MAX_REFUSED of) what it refused."""

    routes: tuple[IPv4Network, ...] = field(ROUTES)
    refused: tuple[RefusedRoute, ...] = field(Many(nested(RefusedRoute), MAX_REFUSED))


@message()
class ListenerAddress:
    """Where the forwarder listens; two descriptors: UDP, TCP. ``server`` is the former resolver whose questions come
    there; None: nobody's alone.
    """

    address: IPAddress = field(ADDRESS)
    port: int = field(PORT)
    server: IPAddress | None = field(Nullable(ADDRESS), default=None)


@message()
class Upstream:
    """A former resolver; so many descriptors: marked UDP sockets connected to its port 53 (0: no route to it)."""

    address: IPAddress = field(ADDRESS)
    sockets: int = field(Integer(0, MAX_FDS))


@message()
class DnsOpened:
    """The descriptors beside it stand in the order of ``listeners``, then of ``upstreams``.

    ``containers`` says why containers of this machine do not reach the cluster; None where they do or there are none.
    """

    listeners: tuple[ListenerAddress, ...] = field(Many(nested(ListenerAddress), MAX_LISTENERS))
    upstreams: tuple[Upstream, ...] = field(Many(nested(Upstream), MAX_UPSTREAMS))
    containers: str | None = field(Nullable(SENTENCE), default=None)


@message()
class DnsSet:
    """Questions come to the forwarder. ``note``: a cache on the way may still hold former answers, and why."""

    note: str | None = field(Nullable(SENTENCE))


@message()
class Beat:
    """``active``: the laptop's DNS comes to us. ``nameservers`` and ``search`` are what it would use without us, as it
    stands now. ``problems`` says what of ours on this machine is not as it should be, ``repaired`` what was put back
    since the last beat.
    """

    active: bool = field(FLAG)
    nameservers: tuple[IPAddress, ...] = field(SERVERS)
    search: tuple[str, ...] = field(NAMES)
    problems: tuple[str, ...] = field(SENTENCES, default=())
    repaired: tuple[str, ...] = field(SENTENCES, default=())


@message()
class Translations:
    """A sentence for each place in this machine's packet filter that translates what our routes bring."""

    found: tuple[str, ...] = field(SENTENCES)


Result = Translations | Acknowledged | TunOpened | AddressSet | RoutesSet | DnsOpened | DnsSet | Beat
