"""Where traffic can go: the original, a laptop, either of them in this order, or one that the endpoints choose."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

from meshdev.config import RELAYS_PORT
from meshdev.sidecar.envoy import http, names, tls
from meshdev.sidecar.envoy.claims import LiveClaim, PodView, Served
from meshdev.sidecar.envoy.http import typed
from meshdev.wire.agent import PodPort
from meshdev.wire.relay import server_name

Object = dict[str, Any]

#: The app answers a handshake when it can, as without us: its kernel would go on trying for two minutes.
_TO_ORIGINAL: Final = "120s"
#: The return path is up or it is not, and a request that falls back has waited for so long.
_TO_LAPTOP: Final = "0.5s"
_UNLIMITED: Final = {
    "thresholds": [
        {
            "priority": priority,
            "max_connections": http.UNLIMITED,
            "max_pending_requests": http.UNLIMITED,
            "max_requests": http.UNLIMITED,
            "max_retries": http.UNLIMITED,
        }
        for priority in ("DEFAULT", "HIGH")
    ]
}
#: A laptop that falls silent in the middle of an answer is noticed 4 s after its last packet, which buffers in between
#: may deliver a second late: asked after 1 s and given up after three questions, a second each. The manager's own cut
#: (manager.tunnel.claims.CUT_SECONDS) ends nothing by itself: it answers the next packet, and a client that waits for
#: an answer sends none but these.
_KEEPALIVE: Final = {"tcp_keepalive": {"keepalive_time": 1, "keepalive_interval": 1, "keepalive_probes": 3}}
#: Nothing is asked while something is not acknowledged: that is sent again, and given up after as long
#: (TCP_USER_TIMEOUT of IPPROTO_TCP, tcp(7); numbers from linux/tcp.h and linux/in.h).
_GIVE_UP: Final = {"level": 6, "name": 18, "int_value": 4000, "state": "STATE_PREBIND"}
#: No two clients share a connection, so what one has logged in stays its own (NTLM).
_DEDICATED: Final = {"connection_pool_per_downstream_connection": True}
_AGGREGATE: Final = "envoy.extensions.clusters.aggregate.v3.ClusterConfig"

#: By its metadata an endpoint chooses its transport socket (envoy.config.cluster.v3.Cluster, transport_socket_matches),
#: where a cluster's endpoints may be relays or the original; one that matches nothing is plain.
_MATCH_METADATA: Final = "envoy.transport_socket_match"
_RELAYED: Final = {"relayed": True}
_TLS_TO_RELAYS: Final = {
    "transport_socket_matches": [{"name": "relay", "match": _RELAYED, "transport_socket": tls.to_relay()}]
}


@dataclass(frozen=True)
class ClusterEnd:
    """An address and a port; with a ``relay`` the connection is one of TLS to that relay."""

    address: IPv4Address
    port: int
    relay: int = 0


def relay_end(manager: IPv4Address, relay: int, port: PodPort) -> ClusterEnd:
    """A relay of the manager: TCP by the container *relay*, datagrams by a port of their own."""
    return ClusterEnd(manager, relay) if port.transport == "udp" else ClusterEnd(manager, RELAYS_PORT, relay)


def for_requests(pod: PodView, served: Served, manager: IPv4Address, claims: Iterable[LiveClaim]) -> list[Object]:
    """What the routes of one port name: the original, and three a claim, whether or not its program listens now."""
    port, app = served.port, ClusterEnd(pod.address, served.port.number)
    found = [_original(names.original(port), app)]
    for claim in claims:
        relay = next((each.relay for each in claim.relays if PodPort(each.remote, each.protocol) == port), None)
        if relay is not None:
            found.append(_laptop(port, claim, relay_end(manager, relay, port)))
            found.append(_original(names.fallback(port, claim.spec.id), app))
            found.append(_either(port, claim))
    return found


def for_flow(port: PodPort) -> Object:
    """Where bytes go; which end it is stands in :func:`endpoint`, whose change leaves existing connections alone."""
    ads = {"ads": {}, "resource_api_version": "V3"}
    return {
        **_common(names.flow(port), _TO_ORIGINAL),
        "type": "EDS",
        "eds_cluster_config": {"eds_config": ads},
        "upstream_connection_options": _KEEPALIVE,
        **({} if port.transport == "udp" else _TLS_TO_RELAYS),
    }


def endpoint(port: PodPort, to: ClusterEnd | None) -> Object:
    """The endpoints of :func:`for_flow`; where there is none, connections are closed and datagrams dropped."""
    name = names.flow(port)
    return _assignment(name, to, port) if to is not None else {"cluster_name": name, "endpoints": []}


def nobody() -> Object:
    """Where requests go that nobody shall answer."""
    load = {"cluster_name": names.NOBODY, "endpoints": []}
    return {**_common(names.NOBODY, _TO_LAPTOP), "type": "STATIC", "load_assignment": load}


def _original(name: str, to: ClusterEnd) -> Object:
    return {
        **_common(name, _TO_ORIGINAL),
        **_DEDICATED,
        "type": "STATIC",
        "load_assignment": _assignment(name, to),
        "typed_extension_protocol_options": http.upstream(idle=http.IDLE_TO_ORIGINAL),
    }


def _laptop(port: PodPort, claim: LiveClaim, to: ClusterEnd) -> Object:
    name = names.laptop(port, claim.spec.id)
    return {
        **_common(name, _TO_LAPTOP),
        **_DEDICATED,
        "type": "STATIC",
        "load_assignment": _assignment(name, to),
        "upstream_connection_options": _KEEPALIVE,
        "upstream_bind_config": {"socket_options": [_GIVE_UP]},
        "transport_socket": tls.to_relay(),
        "typed_extension_protocol_options": http.upstream(idle=http.IDLE_TO_LAPTOP),
    }


def _either(port: PodPort, claim: LiveClaim) -> Object:
    id_ = claim.spec.id
    members = [names.laptop(port, id_), names.fallback(port, id_)]
    return {
        **_common(names.either(port, id_), _TO_LAPTOP),
        # These of the aggregate count, not those of its members: who shares connections, and filters on the way out.
        **_DEDICATED,
        "typed_extension_protocol_options": http.upstream(idle=http.OFF),
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": typed(_AGGREGATE, clusters=members)},
    }


def _common(name: str, timeout: str) -> Object:
    return {"name": name, "connect_timeout": timeout, "circuit_breakers": _UNLIMITED}


def _assignment(name: str, to: ClusterEnd, port: PodPort | None = None) -> Object:
    protocol = "UDP" if port is not None and port.transport == "udp" else "TCP"
    address = {"socket_address": {"protocol": protocol, "address": str(to.address), "port_value": to.port}}
    endpoint: Object = {"endpoint": {"address": address}}
    if to.relay:
        endpoint["endpoint"]["hostname"] = server_name(to.relay)
        endpoint["metadata"] = {"filter_metadata": {_MATCH_METADATA: _RELAYED}}
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
