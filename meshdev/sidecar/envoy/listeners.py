"""Where Envoy listens: for requests or for bytes, since the passthrough proxy brings a port only one of them."""

from typing import Any, Final

from meshdev.sidecar.envoy import access_log, answers, http, names, noted, trace_context
from meshdev.sidecar.envoy.claims import Served
from meshdev.sidecar.envoy.http import OFF, typed
from meshdev.wire.agent import PodPort

Object = dict[str, Any]

_NETWORK: Final = "envoy.extensions.filters.network"
_HTTP: Final = "envoy.extensions.filters.http"
_ANY: Final = "0.0.0.0"  # noqa: S104 -- the pod's: the agent's rules let only redirected connections in
_DATAGRAM: Final = 65535
#: Protocols that begin as HTTP/1 and go on as bytes. Of other upgrades (``TLS/1.2`` of Apache's client) the offer is
#: dropped, as any proxy may do, where Envoy would refuse the request. RE2 has no "not", hence the spelling.
_UPGRADES: Final = ("websocket", "CONNECT", "tcp", "spdy/3.1")
_OTHER_UPGRADES: Final = "(?i)[^wts].*|w([^e].*)?|we([^b].*)?|t([^c].*)?|tc([^p].*)?|s([^p].*)?|sp([^d].*)?"
#: Envoy would record the address before so many others in X-Forwarded-For as the client's. No head has as many: it is
#: the one that the passthrough proxy has sent.
_NO_FORWARDED_FOR: Final = (1 << 31) - 1
#: Whoever has an internal address would get x-envoy-internal.
_NOBODY: Final = {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]}


def listener(served: Served) -> Object:
    """The listener of one port."""
    port = served.port
    if port.transport == "udp":
        return _datagrams(served)
    chain = {"filters": [_requests(port) if served.has_requests else _bytes(port)]}
    return {
        **_listener(port, {"pipe": {"path": served.listener, "mode": 0o600}}),
        "listener_filters": [_read_client_address()],
        # The passthrough proxy sends it at once, whatever its client does.
        "listener_filters_timeout": OFF,
        "filter_chains": [chain],
    }


def _read_client_address() -> Object:
    """From what the passthrough proxy sends first (meshdev.wire.proxy_protocol): for records, nothing else uses it.

    What follows is the client's, also where it looks the same; and where the proxy of an older image sends none.
    """
    config = typed(
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        allow_requests_without_proxy_protocol=True,
        disallowed_versions=["V1"],
    )
    return {"name": "envoy.filters.listener.proxy_protocol", "typed_config": config}


def _listener(port: PodPort, address: Object) -> Object:
    name = names.listener(port)
    return {"name": name, "stat_prefix": name, "address": address, "traffic_direction": "INBOUND"}


def _requests(port: PodPort) -> Object:
    ads = {"ads": {}, "resource_api_version": "V3"}
    manager = typed(
        f"{_NETWORK}.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=names.listener(port),
        codec_type="AUTO",
        rds={"config_source": ads, "route_config_name": names.routes(port)},
        # Nothing is added, taken away or made tidy.
        server_header_transformation="PASS_THROUGH",
        use_remote_address=False,
        skip_xff_append=True,
        internal_address_config=_NOBODY,
        xff_num_trusted_hops=_NO_FORWARDED_FOR,
        generate_request_id=False,
        preserve_external_request_id=True,
        normalize_path=False,
        merge_slashes=False,
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        proxy_100_continue=True,
        early_header_mutation_extensions=[_mark_missing_proto()],
        http_filters=[_remove_proto_mark(), noted.noting_nothing(), trace_context.http_filter(), _router()],
        upgrade_configs=[{"upgrade_type": each} for each in _UPGRADES],
        # The passthrough proxy reads what was sent before it learns of an end, so that can follow at once.
        delayed_close_timeout=OFF,
        # Nothing is too long or too slow.
        stream_idle_timeout=OFF,
        request_timeout=OFF,
        request_headers_timeout=OFF,
        max_request_headers_kb=http.MAX_HEADERS_KB,
        common_http_protocol_options={"idle_timeout": OFF, "max_headers_count": http.MAX_HEADERS_COUNT},
        http_protocol_options=http.http1(
            accept_http_10=True,
            default_host_for_http_10="localhost",
            ignore_http_11_upgrade=[{"safe_regex": {"regex": _OTHER_UPGRADES}}],
        ),
        http2_protocol_options=http.http2(),
        local_reply_config=answers.local_replies(),
        access_log=access_log.of_requests(),
    )
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}


def _mark_missing_proto() -> Object:
    """Put a mark where the client sent no X-Forwarded-Proto: one of the client's own stays where it stands."""
    value = {"header": {"key": http.PROTO, "value": http.NO_PROTO}, "append_action": "ADD_IF_ABSENT"}
    name = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    return {"name": "note", "typed_config": typed(name, mutations=[{"append": value}, *http.mask_envoy_headers()])}


def _remove_proto_mark() -> Object:
    """Take the mark away again, and nothing else."""
    remove = typed(
        f"{_HTTP}.header_mutation.v3.HeaderMutation", mutations={"request_mutations": [{"remove": http.PROTO}]}
    )
    header = typed("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=http.PROTO)
    marked = {
        "single_predicate": {
            "input": {"name": "header", "typed_config": header},
            "value_match": {"exact": http.NO_PROTO},
        }
    }
    skip = {"name": "skip", "typed_config": typed("envoy.extensions.filters.common.matcher.action.v3.SkipFilter")}
    rule = {"predicate": {"not_matcher": marked}, "on_match": {"action": skip}}
    return {
        "name": "forget",
        "typed_config": typed(
            "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
            extension_config={"name": "envoy.filters.http.header_mutation", "typed_config": remove},
            xds_matcher={"matcher_list": {"matchers": [rule]}},
        ),
    }


def _router() -> Object:
    router = typed(f"{_HTTP}.router.v3.Router", suppress_envoy_headers=True, dynamic_stats=True)
    return {"name": "envoy.filters.http.router", "typed_config": router}


def _bytes(port: PodPort) -> Object:
    proxy = typed(
        f"{_NETWORK}.tcp_proxy.v3.TcpProxy",
        stat_prefix=names.listener(port),
        cluster=names.flow(port),
        idle_timeout=OFF,
        access_log=access_log.of_connections(),
    )
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}


def _datagrams(served: Served) -> Object:
    port = served.port
    route = typed("envoy.extensions.filters.udp.udp_proxy.v3.Route", cluster=names.flow(port))
    proxy = typed(
        "envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig",
        stat_prefix=names.listener(port),
        matcher={"on_no_match": {"action": {"name": "route", "typed_config": route}}},
        idle_timeout="60s",
        upstream_socket_config={"max_rx_datagram_size": _DATAGRAM},
    )
    return {
        **_listener(port, {"socket_address": {"protocol": "UDP", "address": _ANY, "port_value": served.listener}}),
        "udp_listener_config": {"downstream_socket_config": {"max_rx_datagram_size": _DATAGRAM}},
        "listener_filters": [{"name": "envoy.filters.udp_listener.udp_proxy", "typed_config": proxy}],
    }
