"""What the agent's life cycle (:mod:`meshdev.sidecar.agent.lifecycle`) asks for. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meshdev.wire.agent import PodPort, ProbeRelays
from meshdev.wire.passthrough import PortClaims


@dataclass(frozen=True)
class AllocateListeners:
    """Find a port to redirect each of these to; answered by ``on_listeners``."""

    ports: tuple[PodPort, ...]


@dataclass(frozen=True)
class SetProbes:
    """Probe these relays and no others, none where there are none."""

    relays: ProbeRelays | None


@dataclass(frozen=True)
class FindListening:
    """See who listens in the pod; answered by ``on_listening``."""


@dataclass(frozen=True)
class ClaimPorts:
    """Of connections to these ports exactly this is claimed, as the manager's Redirect of that *number* wants it."""

    ports: Mapping[PodPort, PortClaims]
    number: int


@dataclass(frozen=True)
class SetRedirects:
    """Redirect exactly these ports to these listeners; answered by ``on_redirected``."""

    ports: Mapping[PodPort, int]


@dataclass(frozen=True)
class CountOlder:
    """Count the connections that are older than the redirect of *ports*, having closed those of *close*; answered by
    ``on_older``."""

    ports: frozenset[PodPort]
    close: frozenset[PodPort]


@dataclass(frozen=True)
class ReadStats:
    """Ask Envoy what it counted; answered by ``on_stats`` or ``on_stats_failed``."""


@dataclass(frozen=True)
class SetDraining:
    """Have Envoy ask its clients to come again on another connection, or not; answered by ``on_draining``."""

    on: bool


@dataclass(frozen=True)
class KillEnvoy:
    """End Envoy at once."""


@dataclass(frozen=True)
class Announce:
    """What the manager should know may have changed: see :meth:`Lifecycle.states`."""


@dataclass(frozen=True)
class Log:
    """For people."""

    text: str
    error: bool = False


Action = (
    AllocateListeners
    | SetProbes
    | FindListening
    | ClaimPorts
    | SetRedirects
    | CountOlder
    | ReadStats
    | SetDraining
    | KillEnvoy
    | Announce
    | Log
)
Actions = Sequence[Action]
