"""Which addresses are the cluster's, as far as the user may see (docs/design/0006)."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Any, Final, TypeVar
from urllib.parse import quote

from meshdev.errors import ForbiddenError, MeshdevError
from meshdev.kube.client import KubeApi, Object, services_path
from meshdev.kube.errors import NotFoundError
from meshdev.kube.watching import State, follow, united

T = TypeVar("T")

#: v1 since Kubernetes 1.33; on older ones there is nothing to ask.
_SERVICE_CIDRS: Final = "/apis/networking.k8s.io/v1/servicecidrs"
_NODES: Final = "/api/v1/nodes"


@dataclass(frozen=True, slots=True)
class ClusterRanges:
    """Whole ranges, and the nodes' own addresses; empty where they may not be read."""

    services: frozenset[IPv4Network] = frozenset()
    pods: frozenset[IPv4Network] = frozenset()
    nodes: frozenset[IPv4Address] = frozenset()


async def advertised_addresses(api: KubeApi) -> frozenset[IPv4Address]:
    """The addresses that the cluster advertises for its API server; empty if it does not.

    The kubeconfig has another one where a proxy on this very machine or a port that Docker forwards (kind,
    minikube) is in between: then these addresses are where our own carriers go in the end. Every authenticated user
    may ask (ClusterRole ``system:discovery``).
    """
    try:
        answer = await api.request("GET", "/api")
    except (ForbiddenError, NotFoundError):
        return frozenset()
    places = answer.get("serverAddressByClientCIDRs") or []
    return _ipv4(str(place.get("serverAddress")).rpartition(":")[0] for place in places)


async def watch_ranges(
    api: KubeApi, note: Callable[[str], None], trouble: Callable[[MeshdevError], None] = lambda _: None
) -> AsyncGenerator[ClusterRanges]:
    """The Service ranges, the nodes' pod ranges and addresses: now, and again after each change.

    What is forbidden or missing is empty, and *note* is called. The rest is as with :func:`watch_addresses`.
    """
    sources: tuple[AsyncGenerator[frozenset[Any]], ...] = (
        _where_allowed(follow(api, _SERVICE_CIDRS, {}, _service_ranges, trouble), note),
        _where_allowed(follow(api, _NODES, {}, _node_ranges, trouble), note),
    )
    async with aclosing(united(*sources)) as changes:
        async for services, nodes in changes:
            pods = frozenset(item for item in nodes if isinstance(item, IPv4Network))
            yield ClusterRanges(services, pods, frozenset(item for item in nodes if isinstance(item, IPv4Address)))


async def watch_addresses(
    api: KubeApi,
    namespace: str,
    note: Callable[[str], None],
    trouble: Callable[[MeshdevError], None] = lambda _: None,
) -> AsyncGenerator[frozenset[IPv4Address]]:
    """IPv4 addresses of the Services and endpoints in *namespace*: now, and again after each change.

    What is forbidden counts as empty, or as it was last seen, and *note* is called once; if all of it is, the
    iterator ends. *trouble* is called for interruptions, during which the last set stays. Close it
    (``contextlib.aclosing``).
    """
    async with aclosing(
        united(
            _where_allowed(follow(api, services_path(namespace), {}, _service_addresses, trouble), note),
            _where_allowed(follow(api, _endpoint_slices(namespace), {}, _slice_addresses, trouble), note),
        )
    ) as changes:
        last: frozenset[IPv4Address] | None = None
        async for services, endpoints in changes:
            if services | endpoints != last:
                last = services | endpoints
                yield last


async def _where_allowed(
    states: AsyncGenerator[State[frozenset[T]]], note: Callable[[str], None]
) -> AsyncGenerator[frozenset[T]]:
    """The union over all objects. A user who may list but not watch gets what was listed."""
    listed = False
    try:
        async with aclosing(states):
            async for state in states:
                listed = True
                yield frozenset[T]().union(*state.values())
    except (ForbiddenError, NotFoundError) as error:
        note(error.message)
        if not listed:
            yield frozenset()


def _endpoint_slices(namespace: str) -> str:
    return f"/apis/discovery.k8s.io/v1/namespaces/{quote(namespace)}/endpointslices"


def _service_ranges(item: Object) -> frozenset[IPv4Network]:
    return _networks((item.get("spec") or {}).get("cidrs") or [])


def _node_ranges(node: Object) -> frozenset[IPv4Network | IPv4Address]:
    places: list[Mapping[str, str]] = (node.get("status") or {}).get("addresses") or []
    own = _ipv4(place.get("address", "") for place in places if place.get("type") == "InternalIP")
    return _networks((node.get("spec") or {}).get("podCIDRs") or []) | own


def _service_addresses(service: Object) -> frozenset[IPv4Address]:
    return _ipv4((service.get("spec") or {}).get("clusterIPs") or [])  # "None" for headless ones


def _slice_addresses(item: Object) -> frozenset[IPv4Address]:
    endpoints: Iterable[Mapping[str, list[str]]] = item.get("endpoints") or []
    return _ipv4(address for endpoint in endpoints for address in endpoint.get("addresses") or [])


def _networks(texts: Iterable[str]) -> frozenset[IPv4Network]:
    networks = (ip_network(text, strict=False) for text in texts)
    return frozenset(network for network in networks if isinstance(network, IPv4Network))


def _ipv4(texts: Iterable[str]) -> frozenset[IPv4Address]:
    found = set()
    for text in texts:
        with suppress(ValueError):
            found.add(IPv4Address(text))
    return frozenset(found)
