"""What the helper answers, one kind for each kind of request. ``read`` is of an answer's object."""

from dataclasses import dataclass
from ipaddress import IPv4Network

from meshdev.wire import values
from meshdev.wire.fields import Fields
from meshdev.wire.helper.limits import (
    MAX_FDS,
    MAX_LISTENERS,
    MAX_NAMES,
    MAX_PROBLEMS,
    MAX_REFUSED,
    MAX_ROUTES,
    MAX_UPSTREAMS,
    MAX_WORDS,
)
from meshdev.wire.values import IPAddress


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing more to say."""

    @classmethod
    def read(cls, _: Fields) -> "Done":
        """Of an answer's object, as all ``read`` here."""
        return cls()


@dataclass(frozen=True, slots=True)
class TunOpened:
    """The device is there, down and without an address; beside it one descriptor a queue."""

    device: str
    offload: int

    @classmethod
    def read(cls, found: Fields) -> "TunOpened":
        return cls(found.parsed("device", values.interface), found.integer("offload", 0, 0xFFFF))


@dataclass(frozen=True, slots=True)
class AddressSet:
    """The device is up. ``guard``: a packet filter keeps unasked connections out; ``note`` says why there is none."""

    guard: bool
    note: str | None

    @classmethod
    def read(cls, found: Fields) -> "AddressSet":
        return cls(found.flag("guard"), found.text_or_none("note", MAX_WORDS))


@dataclass(frozen=True, slots=True)
class Refused:
    """A route that the kernel did not take, in the kernel's words."""

    route: IPv4Network
    reason: str

    @classmethod
    def read(cls, found: Fields) -> "Refused":
        return cls(found.parsed("route", values.route), found.text("reason", MAX_WORDS))


@dataclass(frozen=True, slots=True)
class RoutesSet:
    """What the kernel has now, and (the first MAX_REFUSED of) what it refused."""

    routes: tuple[IPv4Network, ...]
    refused: tuple[Refused, ...]

    @classmethod
    def read(cls, found: Fields) -> "RoutesSet":
        return cls(
            found.distinct("routes", values.route, MAX_ROUTES),
            found.wholes("refused", Refused.read, MAX_REFUSED),
        )


@dataclass(frozen=True, slots=True)
class Listener:
    """Where the forwarder listens; two descriptors: UDP, TCP. ``server`` is the former resolver whose questions come
    there; None: nobody's alone.
    """

    address: IPAddress
    port: int
    server: IPAddress | None = None

    @classmethod
    def read(cls, found: Fields) -> "Listener":
        return cls(
            found.parsed("address", values.address),
            found.integer("port", 1, 65535),
            found.parsed_or_none("server", values.address),
        )


@dataclass(frozen=True, slots=True)
class Upstream:
    """A former resolver; so many descriptors: marked UDP sockets connected to its port 53 (0: no route to it)."""

    address: IPAddress
    sockets: int

    @classmethod
    def read(cls, found: Fields) -> "Upstream":
        return cls(found.parsed("address", values.address), found.integer("sockets", 0, MAX_FDS))


@dataclass(frozen=True, slots=True)
class DnsOpened:
    """The descriptors beside it stand in the order of ``listeners``, then of ``upstreams``.

    ``containers`` says why containers of this machine do not reach the cluster; None where they do or there are none.
    """

    listeners: tuple[Listener, ...]
    upstreams: tuple[Upstream, ...]
    containers: str | None = None

    @classmethod
    def read(cls, found: Fields) -> "DnsOpened":
        return cls(
            found.wholes("listeners", Listener.read, MAX_LISTENERS),
            found.wholes("upstreams", Upstream.read, MAX_UPSTREAMS),
            found.text_or_none("containers", MAX_WORDS),
        )


@dataclass(frozen=True, slots=True)
class DnsSet:
    """Questions come to the forwarder. ``note``: a cache on the way may still hold former answers, and why."""

    note: str | None

    @classmethod
    def read(cls, found: Fields) -> "DnsSet":
        return cls(found.text_or_none("note", MAX_WORDS))


@dataclass(frozen=True, slots=True)
class Beat:
    """``active``: the laptop's DNS comes to us. ``nameservers`` and ``search`` are what it would use without us, as it
    stands now. ``problems`` says what of ours on this machine is not as it should be, ``repaired`` what was put back
    since the last beat.
    """

    active: bool
    nameservers: tuple[IPAddress, ...]
    search: tuple[str, ...]
    problems: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()

    @classmethod
    def read(cls, found: Fields) -> "Beat":
        return cls(
            found.flag("active"),
            found.distinct("nameservers", values.address, MAX_UPSTREAMS),
            found.distinct("search", values.name, MAX_NAMES),
            found.texts("problems", MAX_WORDS, MAX_PROBLEMS),
            found.texts("repaired", MAX_WORDS, MAX_PROBLEMS),
        )


@dataclass(frozen=True, slots=True)
class Translations:
    """A sentence for each place in this machine's packet filter that translates what our routes bring."""

    found: tuple[str, ...]

    @classmethod
    def read(cls, found: Fields) -> "Translations":
        return cls(found.texts("found", MAX_WORDS, MAX_PROBLEMS))


Result = Translations | Done | TunOpened | AddressSet | RoutesSet | DnsOpened | DnsSet | Beat
