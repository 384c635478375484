"""Which single addresses may be routed: those in a trusted range or of a checked object, never because of a name alone.

Whole ranges (ServiceCIDRs, the nodes' pod ranges) are set by the cluster administrator and need only the plan's rules.
A single address comes from somebody with fewer rights: an EndpointSlice may contain any address, and a web page may
make the browser look up ``8-8-4-4.default.pod.cluster.local``. The first row that applies decides:

===================================================  ==================  =====================  =====================
the address is                                       a Service's or an   the answer to a name   the answer to another
                                                     endpoint's, by the  below ``svc.DOMAIN``   name of the cluster
                                                     API                                        (``pod.DOMAIN``)
===================================================  ==================  =====================  =====================
in a network that this machine is attached to        refused             refused                refused
in a Service range or a node's pod range             routed              routed                 routed
not private (RFC 1918, RFC 6598)                     refused             refused                refused
elsewhere, and it is a node's own                    routed              routed                 refused
elsewhere, where the known ranges are complete       routed              refused                refused
elsewhere, where they are not                        routed              routed                 refused
===================================================  ==================  =====================  =====================

The ranges are *complete* where they contain the manager's own pod and the cluster's nameserver. A user who may not
list nodes and ServiceCIDRs has none, and knows Services of other namespaces only from DNS answers. ``--also`` overrides
every row. Pure.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Final, Literal

from meshdev.host.plan import LaptopNetwork

#: Where an address comes from: an object of the API, a name of or below a Service, another name of the cluster.
Origin = Literal["object", "service", "name"]

#: RFC 1918, and RFC 6598 (shared address space: clouds use it for pods where RFC 1918 is used up).
PRIVATE: Final = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))

#: Refused DNS answers that ``status`` shows; the oldest is dropped.
MAX_REFUSALS: Final = 8
#: At most this many are logged for one connection: any web page can cause more.
MAX_LOGGED: Final = 256


class _Networks:
    """Finds the most specific network that an address is in, whatever their number."""

    def __init__(self, networks: Iterable[IPv4Network]) -> None:
        self._by_length: dict[int, dict[int, IPv4Network]] = {}
        for network in networks:
            shifted = int(network.network_address) >> (32 - network.prefixlen)
            self._by_length.setdefault(network.prefixlen, {})[shifted] = network
        self._lengths = sorted(self._by_length, reverse=True)

    def find(self, address: IPv4Address) -> IPv4Network | None:
        number = int(address)
        found = (self._by_length[length].get(number >> (32 - length)) for length in self._lengths)
        return next((network for network in found if network is not None), None)


_PRIVATE: Final = _Networks(PRIVATE)


@dataclass(frozen=True, slots=True)
class Trust:
    """What trusted sources say of the cluster's addresses.

    ``ranges`` and ``nodes`` (the nodes' own addresses) are empty for users who may not list them. ``manager`` has the
    addresses of the manager's pod and of the cluster's nameservers.
    """

    ranges: frozenset[IPv4Network] = frozenset()
    nodes: frozenset[IPv4Address] = frozenset()
    manager: frozenset[IPv4Address] = frozenset()


class Judge:
    """Applies the table to one state of laptop and cluster; when either changes there is a new one."""

    def __init__(self, laptop: LaptopNetwork, trust: Trust) -> None:
        self._devices = {route.network: route.device for route in laptop.networks if route.on_link}
        self._links = _Networks(self._devices)
        self._ranges = _Networks(trust.ranges)
        self._nodes = trust.nodes
        #: Whether pods and Services are in the ranges: a network plugin may have ranges of its own.
        self.complete = bool(trust.manager) and all(self._ranges.find(address) for address in trust.manager)

    def refusal(self, address: IPv4Address, origin: Origin) -> str | None:
        """Why *address* must not be routed; None where it may be. The plan's own exclusions are not considered here.

        Cheap: 5,000 addresses, 1,000 ranges and 20 networks of the laptop take 13 ms.
        """
        if (link := self._links.find(address)) is not None:
            return f"it is in this machine's own network {link} ({self._devices[link]})"
        if self._ranges.find(address) is not None:
            return None
        if _PRIVATE.find(address) is None:
            return "it is a public address, and in none of the cluster's known ranges"
        trusted = origin == "object" or (origin == "service" and (address in self._nodes or not self.complete))
        return None if trusted else "it is in none of the cluster's known ranges"


@dataclass(slots=True)
class Refusals:
    """DNS answers that were not routed: a sentence for each of the latest addresses."""

    _known: dict[IPv4Address, str] = field(default_factory=dict)
    _logged: int = 0

    def add(self, address: IPv4Address, sentence: str) -> bool:
        """Record one; returns whether to log it."""
        new = self._known.pop(address, None) != sentence
        self._known[address] = sentence
        if len(self._known) > MAX_REFUSALS:
            del self._known[next(iter(self._known))]
        self._logged += new
        return new and self._logged <= MAX_LOGGED

    def notes(self, routed: Callable[[IPv4Address], bool]) -> tuple[str, ...]:
        """The sentences, without addresses that are *routed* by now."""
        return tuple(sentence for address, sentence in self._known.items() if not routed(address))
