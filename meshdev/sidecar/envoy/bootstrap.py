"""What Envoy is started with: who it is, where the manager is, and how little it keeps for itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

from meshdev.sidecar.envoy import names, stats, tls

Object = dict[str, Any]

#: Time for requests in flight when a listener is removed, in seconds; docs/intercepts.md promises it.
DRAIN_SECONDS: Final = 25
#: A manager that is gone is noticed after this silence, as by the agent. Envoy takes a millisecond or more for each,
#: and adds up to 15 % to the interval (config.core.v3.KeepaliveSettings).
_KEEPALIVE: Final = {"interval": "3s", "timeout": "2s"}
#: Bytes that Envoy may take for itself where its container has no limit of its own, and what else such a container
#: needs: agent, passthrough proxy, and what of Envoy is no heap.
MAX_HEAP: Final = 512 << 20
BESIDE_HEAP: Final = 160 << 20
MIN_HEAP: Final = 64 << 20
#: What Envoy does as its heap grows, by part of the limit: it sheds what is new instead of being killed with all.
_SHED: Final = (
    ("shrink_heap", 0.85),
    ("disable_http_keepalive", 0.92),
    ("stop_accepting_requests", 0.95),
    ("reject_incoming_connections", 0.98),
)
#: Durations of requests are known as of the last flush; agents ask for them each second.
_FLUSH: Final = "1s"
_FIXED_HEAP: Final = "envoy.resource_monitors.fixed_heap"
_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True)
class Start:
    """What differs between two sidecars. ``node`` is the pod's uid, ``admin`` the path of Envoy's unix socket and
    ``secrets`` of ours, ``heap`` the most bytes that Envoy takes for itself."""

    node: str
    manager: str
    port: int
    admin: str
    secrets: str
    heap: int = MAX_HEAP


def heap_within(limit: int | None) -> int:
    """The heap of an Envoy whose container has that memory limit in bytes, or none."""
    return MAX_HEAP if limit is None else max(MIN_HEAP, min(MAX_HEAP, limit - BESIDE_HEAP))


def bootstrap(start: Start) -> Object:
    """The configuration as JSON has it; nothing in it is secret."""
    # A new manager is asked at once: until then routes lead to relays of the former one.
    service: Object = {"envoy_grpc": {"cluster_name": names.ADS, "retry_policy": {"retry_back_off": tls.RETRY}}}
    dynamic = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {"id": start.node, "cluster": "meshdev"},
        "admin": {"address": {"pipe": {"path": start.admin, "mode": 0o600}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [service],
            },
            "cds_config": dynamic,
            "lds_config": dynamic,
        },
        "static_resources": {"clusters": [tls.secrets_cluster(start.secrets), _ads_cluster(start.manager, start.port)]},
        "overload_manager": _overload_manager(start.heap),
        "stats_config": {
            "stats_matcher": {"inclusion_list": {"patterns": stats.PATTERNS}},
            "histogram_bucket_settings": stats.BUCKETS,
        },
        "stats_flush_interval": _FLUSH,
        # What the admin socket sets goes over what stands here.
        "layered_runtime": {
            "layers": [{"name": "meshdev", "static_layer": runtime()}, {"name": "admin", "admin_layer": {}}]
        },
    }


def _overload_manager(heap: int) -> Object:
    config = {
        "@type": "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
        "max_heap_size_bytes": heap,
    }
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [{"name": _FIXED_HEAP, "typed_config": config}],
        "actions": [
            {
                "name": f"envoy.overload_actions.{action}",
                "triggers": [{"name": _FIXED_HEAP, "threshold": {"value": part}}],
            }
            for action, part in _SHED
        ],
    }


def runtime() -> Object:
    """Limits of Envoy itself that a user could meet."""
    return {
        # Expressions are checked by meshdev.intercept.re2, whose limits expand to at most this (default: 100).
        "re2.max_program_size.error_level": 1 << 16,
        "re2.max_program_size.warn_level": 1 << 16,
        # A request with # in its path is the app's business.
        "envoy.reloadable_features.http_reject_path_with_fragment": False,
    }


def command(binary: str, config: str, concurrency: int) -> Sequence[str]:
    """How Envoy is started; *config* is the path of the bootstrap."""
    return (
        binary,
        *("--config-path", config),
        *("--concurrency", str(concurrency)),
        *("--drain-time-s", str(DRAIN_SECONDS)),
        *("--drain-strategy", "immediate"),
        *("--log-level", "warning", "--component-log-level", "misc:error,main:error"),
        "--disable-hot-restart",
    )


def _ads_cluster(manager: str, port: int) -> Object:
    """The manager by its address or, where it has one, by name: a new manager pod is then found again."""
    address = {"socket_address": {"address": manager, "port_value": port}}
    return {
        "name": names.ADS,
        "type": "STATIC" if _is_address(manager) else "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
                "explicit_http_config": {"http2_protocol_options": {"connection_keepalive": _KEEPALIVE}},
            }
        },
        "transport_socket": tls.to_control(),
        "load_assignment": {
            "cluster_name": names.ADS,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True
