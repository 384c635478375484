"""What Envoy's configuration is made from: who claims what, and the pod it is for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from meshdev.intercept import match as matches
from meshdev.intercept.spec import Port, Spec
from meshdev.wire.agent import PodPort, Probe, Wanted
from meshdev.wire.intercepts import Relay
from meshdev.wire.ports import Protocol

#: Protocols of a port that two claims see differently: the most specific knowledge counts.
_KNOWLEDGE: Final[tuple[Protocol, ...]] = ("http", "tcp")


@dataclass(frozen=True)
class LiveClaim:
    """A live session's intercept. ``up`` are the ports whose local program listens; the others go to the original."""

    spec: Spec
    holder: str
    relays: tuple[Relay, ...]
    up: frozenset[PodPort]

    def relay(self, port: PodPort) -> int | None:
        """The manager's port that is forwarded to the laptop, None where there is none or nobody listens there."""
        if port not in self.up:
            return None
        return next((each.relay for each in self.relays if PodPort(each.remote, each.protocol) == port), None)

    def has(self, port: PodPort) -> bool:
        """Whether the claim is on that port."""
        return any(pod_port(each) == port for each in self.spec.ports)


@dataclass(frozen=True)
class Served:
    """A wanted port and where Envoy listens for it: the path of a unix socket for TCP, a port number for UDP.

    Nothing arrives at a socket but what is claimed: requests of HTTP/1, connections of HTTP/2, whole ports.
    """

    wanted: Wanted
    listener: int | str

    @property
    def port(self) -> PodPort:
        """The pod's port."""
        return self.wanted.port

    @property
    def protocol(self) -> Protocol:
        """What flows there, as far as it is known."""
        return self.wanted.protocol

    @property
    def has_requests(self) -> bool:
        """Whether requests arrive there: a match always asks for some."""
        return self.protocol == "http" or (self.protocol == "tcp" and not self.wanted.mode.takes_bytes)

    @property
    def has_flows(self) -> bool:
        """Whether bytes or datagrams pass there."""
        return not self.has_requests


@dataclass(frozen=True)
class PodView:
    """One pod as its agent reports it. Every port in ``served`` gets a listener, also when nobody claims it now."""

    address: IPv4Address
    served: tuple[Served, ...]
    probes: tuple[Probe, ...] = ()


def pod_port(port: Port) -> PodPort:
    """The pod's port of a claim."""
    return PodPort(port.remote, port.transport)


def wanted(
    claims: Iterable[LiveClaim], probes: Sequence[Probe], reset_older: frozenset[str] = frozenset()
) -> tuple[Wanted, ...]:
    """The ports that the claims want of a pod with these probes. *reset_older* are the ids that close connections.

    Datagrams have no requests to look at, so a match takes none of them.
    """
    found: dict[PodPort, Wanted] = {}
    for claim in claims:
        for port in claim.spec.ports:
            if port.protocol == "udp" and not claim.spec.mode.carries_udp:
                continue
            each = Wanted(pod_port(port), _known(port, probes), claim.spec.mode, claim.spec.id in reset_older)
            found[each.port] = _merged(found.get(each.port, each), each)
    return tuple(found[port] for port in sorted(found))


def in_order(claims: Iterable[LiveClaim]) -> list[LiveClaim]:
    """The order in which they are tried; *claims* are in the order in which they were made."""
    found = list(claims)
    return [found[place] for place in matches.in_order([claim.spec.match for claim in found])]


def _known(port: Port, probes: Sequence[Probe]) -> Protocol:
    """A port that the kubelet asks by HTTP speaks it, whatever it is called."""
    probed = port.protocol != "udp" and any(probe.port == port.remote for probe in probes)
    return "http" if probed else port.protocol


def _merged(one: Wanted, other: Wanted) -> Wanted:
    protocol = one.protocol
    if one.port.transport == "tcp":
        protocol = min(one.protocol, other.protocol, key=_KNOWLEDGE.index)
    mode = max(one.mode, other.mode, key=lambda mode: mode.exclusive)  # they meet only while one takes over
    return Wanted(one.port, protocol, mode, one.reset_older or other.reset_older)
