"""Which addresses are the cluster's, as far as the user may see (design: D12)."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Final
from urllib.parse import quote

from meshdev.errors import ForbiddenError, MeshdevError
from meshdev.kube.client import KubeApi, Object, services_path
from meshdev.kube.errors import NotFoundError
from meshdev.kube.watching import State, follow, listed, merged

#: v1 since Kubernetes 1.33; on older ones there is nothing to ask.
_SERVICE_CIDRS: Final = "/apis/networking.k8s.io/v1/servicecidrs"
_NODES: Final = "/api/v1/nodes"


@dataclass(frozen=True)
class ClusterRanges:
    """Whole ranges, for who may ask for them; empty ones where not, with a note for people."""

    services: frozenset[IPv4Network]
    pods: frozenset[IPv4Network]
    notes: tuple[str, ...]


async def cluster_ranges(api: KubeApi) -> ClusterRanges:
    """The Service ranges and the nodes' pod ranges; what is forbidden or not there is empty, not an error."""
    notes: list[str] = []
    services = await _networks(api, _SERVICE_CIDRS, "cidrs", notes)
    pods = await _networks(api, _NODES, "podCIDRs", notes)
    return ClusterRanges(services, pods, tuple(notes))


async def advertised_addresses(api: KubeApi) -> frozenset[IPv4Address]:
    """Where the cluster says that its API server is; empty where it does not say.

    The kubeconfig says something else where a proxy on this very machine or a port that Docker forwards (kind,
    minikube) is in between: then these addresses are where our own carriers go in the end. Every authenticated user
    may ask (ClusterRole ``system:discovery``).
    """
    try:
        answer = await api.request("GET", "/api")
    except (ForbiddenError, NotFoundError):
        return frozenset()
    places = answer.get("serverAddressByClientCIDRs") or []
    return _ipv4(str(place.get("serverAddress")).rpartition(":")[0] for place in places)


async def _networks(api: KubeApi, path: str, field: str, notes: list[str]) -> frozenset[IPv4Network]:
    def project(item: Object) -> list[str]:
        values: list[str] = (item.get("spec") or {}).get(field) or []
        return values

    try:
        found, _ = await listed(api, path, {}, project)
    except (ForbiddenError, NotFoundError) as error:
        notes.append(error.message)
        return frozenset()
    networks = (ip_network(text, strict=False) for texts in found.values() for text in texts)
    return frozenset(network for network in networks if isinstance(network, IPv4Network))


async def watch_addresses(
    api: KubeApi,
    namespace: str,
    note: Callable[[str], None],
    trouble: Callable[[MeshdevError], None] = lambda _: None,
) -> AsyncGenerator[frozenset[IPv4Address]]:
    """IPv4 addresses of the Services and endpoints in *namespace*: now, and again after each change.

    What is forbidden counts as empty and is told to *note* once; where both are, the iterator ends after an empty
    set. *trouble* hears of interruptions, during which the last set stands. Close it (``contextlib.aclosing``).
    """
    sources = (
        _where_allowed(follow(api, services_path(namespace), {}, _service_addresses, trouble), note),
        _where_allowed(follow(api, _endpoint_slices(namespace), {}, _slice_addresses, trouble), note),
    )
    known: dict[int, frozenset[IPv4Address]] = {}
    told: frozenset[IPv4Address] | None = None
    async with aclosing(merged(*sources)) as changes:
        async for source, addresses in changes:
            known[source] = addresses
            union = frozenset[IPv4Address]().union(*known.values())
            if len(known) == len(sources) and union != told:
                told = union
                yield union


async def _where_allowed(
    states: AsyncGenerator[State[frozenset[IPv4Address]]], note: Callable[[str], None]
) -> AsyncGenerator[frozenset[IPv4Address]]:
    try:
        async with aclosing(states):
            async for state in states:
                yield frozenset[IPv4Address]().union(*state.values())
    except (ForbiddenError, NotFoundError) as error:
        note(error.message)
        yield frozenset()


def _endpoint_slices(namespace: str) -> str:
    return f"/apis/discovery.k8s.io/v1/namespaces/{quote(namespace)}/endpointslices"


def _service_addresses(service: Object) -> frozenset[IPv4Address]:
    return _ipv4((service.get("spec") or {}).get("clusterIPs") or [])  # "None" for headless ones


def _slice_addresses(item: Object) -> frozenset[IPv4Address]:
    endpoints: Iterable[Mapping[str, list[str]]] = item.get("endpoints") or []
    return _ipv4(address for endpoint in endpoints for address in endpoint.get("addresses") or [])


def _ipv4(texts: Iterable[str]) -> frozenset[IPv4Address]:
    found = set()
    for text in texts:
        with suppress(ValueError):
            found.add(IPv4Address(text))
    return frozenset(found)
