"""All that the Envoy of one pod is served, from what is claimed there."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from meshdev.sidecar.envoy import clusters
from meshdev.sidecar.envoy.claims import LiveClaim, PodView, Served, in_order
from meshdev.sidecar.envoy.clusters import ClusterEnd, relay_end
from meshdev.sidecar.envoy.listeners import listener
from meshdev.sidecar.envoy.routes import routes

Object = dict[str, Any]


@dataclass(frozen=True)
class Resources:
    """Envoy's resources in its own JSON form, in the order in which they must be sent: a name before its use."""

    clusters: tuple[Object, ...]
    endpoints: tuple[Object, ...]
    listeners: tuple[Object, ...]
    routes: tuple[Object, ...]


def resources(pod: PodView, manager: IPv4Address, claims: Sequence[LiveClaim]) -> Resources:
    """What *pod* is served while *claims* hold, oldest first; relays are on *manager*'s address."""
    requests = [served for served in pod.served if served.has_requests]
    flows = [served for served in pod.served if served.has_flows]
    on = {served.port: [claim for claim in claims if claim.has(served.port)] for served in pod.served}
    return Resources(
        clusters=(
            clusters.nobody(),
            *(each for served in requests for each in clusters.for_requests(pod, served, manager, on[served.port])),
            *(clusters.for_flow(served.port) for served in flows),
        ),
        endpoints=tuple(
            clusters.endpoint(served.port, _end(pod, served, manager, on[served.port])) for served in flows
        ),
        listeners=tuple(listener(served) for served in pod.served),
        routes=tuple(routes(served, on[served.port], pod.probes) for served in requests),
    )


def _end(pod: PodView, served: Served, manager: IPv4Address, claims: Sequence[LiveClaim]) -> ClusterEnd | None:
    """Where bytes and datagrams go: to whoever claims all of them, if its program listens, else to the original.

    None where it does not listen and nobody else is to answer.
    """
    newest = next((claim for claim in in_order(claims) if claim.spec.mode.takes_bytes), None)
    relay = newest.relay(served.port) if newest is not None else None
    if relay is not None:
        return relay_end(manager, relay, served.port)
    if newest is not None and not newest.spec.fallback:
        return None
    return ClusterEnd(pod.address, served.port.number)
