"""Access loggers: Envoy sends a record of each request to control, over the connection of ADS, while somebody watches.

Whether it does is a key of Envoy's runtime, so that watching changes no listener (a changed one drains its
connections). All listeners have the same loggers: Envoy makes one stream of each kind and worker from them.
"""

from typing import Any, Final
from urllib.parse import urlencode

from meshdev.sidecar.envoy import answers, names
from meshdev.sidecar.envoy.http import typed

Object = dict[str, Any]

#: The runtime key: the percentage of requests that are recorded.
WATCHED: Final = "meshdev.watched"
#: Entries have a number for the methods of HTTP itself only; of the W3C's Trace Context; what tells gRPC from other
#: HTTP/2.
REQUEST_HEADERS: Final = (":method", "traceparent", "content-type")
#: What Envoy collects before it sends: for so long, in seconds, and so many bytes. At most as much again waits for a
#: slow manager; Envoy drops what is more.
FLUSH: Final = "0.1s"
_BUFFER: Final = 64 << 10
_LOG: Final = "meshdev"
_NONE: Final = {"numerator": 0, "denominator": "HUNDRED"}
_CONFIG: Final = "envoy.extensions.access_loggers.grpc.v3"


def of_requests() -> list[Object]:
    """For an HTTP connection manager."""
    config = typed(
        f"{_CONFIG}.HttpGrpcAccessLogConfig",
        common_config=_common(custom_tags=[_tag(names.INTERCEPT, "route"), _tag(names.PARENT, "request")]),
        additional_request_headers_to_log=list(REQUEST_HEADERS),
        additional_response_headers_to_log=[answers.HEADER],
    )
    return [{"name": "envoy.access_loggers.http_grpc", "filter": _while_watched(), "typed_config": config}]


def of_connections() -> list[Object]:
    """For a TCP proxy."""
    config = typed(f"{_CONFIG}.TcpGrpcAccessLogConfig", common_config=_common())
    return [{"name": "envoy.access_loggers.tcp_grpc", "filter": _while_watched(), "typed_config": config}]


def target(*, watched: bool) -> str:
    """What to POST to the admin socket: it holds for every request that ends from then on."""
    return f"/runtime_modify?{urlencode({WATCHED: 100 if watched else 0})}"


def while_watched() -> Object:
    """A RuntimeFractionalPercent: all while somebody watches, else nothing."""
    return {"runtime_key": WATCHED, "default_value": _NONE}


def _tag(name: str, kind: str) -> Object:
    """Metadata of that kind, by its own name."""
    key = {"key": names.METADATA, "path": [{"key": name}]}
    return {"tag": name, "metadata": {"kind": {kind: {}}, "metadata_key": key}}


def _common(**more: object) -> Object:
    return {
        "log_name": _LOG,
        "grpc_service": {"envoy_grpc": {"cluster_name": names.ADS}},
        "transport_api_version": "V3",
        "buffer_flush_interval": FLUSH,
        "buffer_size_bytes": _BUFFER,
        **more,
    }


def _while_watched() -> Object:
    # Else the share would be one of request ids, which requests here need not have.
    return {
        "runtime_filter": {
            "runtime_key": WATCHED,
            "percent_sampled": _NONE,
            "use_independent_randomness": True,
        }
    }
