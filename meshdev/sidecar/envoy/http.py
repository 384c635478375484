"""Options that make Envoy's HTTP transparent: nothing renamed, normalized, limited or timed out on the way.

Used towards clients and towards apps alike. Sources: Envoy's API reference of HttpConnectionManager,
Http1ProtocolOptions, Http2ProtocolOptions and HttpProtocolOptions (1.40); tests/sidecar compares the bytes.
"""

from typing import Any, Final

Object = dict[str, Any]

#: The most that Envoy takes: 8 MiB of headers, and as many of them as fit.
MAX_HEADERS_KB: Final = 8192
MAX_HEADERS_COUNT: Final = 1 << 20
#: The longest header or trailer of HTTP/2, in KiB: the most that Envoy 1.40 takes (by itself it takes 64). A longer one
#: ends the connection.
MAX_HTTP2_FIELD_KB: Final = 256
#: Everything that would be shed under load belongs to the app.
UNLIMITED: Final = (1 << 32) - 1
_MOST_STREAMS: Final = (1 << 31) - 1

#: Stands for "the client sent none" from the first to the last filter; Envoy would put in its own.
PROTO: Final = "x-forwarded-proto"
NO_PROTO: Final = "meshdev-none"

OFF: Final = "0s"
#: Idle connections to the original end before the app's own timeout does it, which could meet a request.
IDLE_TO_ORIGINAL: Final = "1s"
#: Those to a laptop that has just vanished look as usable as ever, and a request on one of them fails; on a new one it
#: falls back. Long enough for the next request of a login, or of a busy client.
IDLE_TO_LAPTOP: Final = "0.25s"

#: Headers by which Envoy is controlled: it acts on and removes these, so they pass it under other names.
ENVOY_HEADERS: Final = (
    *("internal", "max-retries", "retry-on", "retry-grpc-on", "retriable-status-codes", "retriable-header-names"),
    *("upstream-rq-timeout-ms", "upstream-rq-per-try-timeout-ms", "upstream-rq-timeout-alt-response"),
    *("upstream-stream-duration-ms", "upstream-alt-stat-name", "hedge-on-per-try-timeout"),
)
_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def typed(name: str, /, **fields: object) -> Object:
    """A message of that type where Envoy wants one of many."""
    return {"@type": f"type.googleapis.com/{name}", **fields}


def masked(name: str) -> str:
    """The name under which a client's header is found by a route."""
    obeyed = name.removeprefix("x-envoy-")
    return f"x-meshdev-{obeyed}" if name != obeyed and obeyed in ENVOY_HEADERS else name


def mask_envoy_headers() -> list[Object]:
    """The first thing done with a request: no header of its client controls this Envoy."""
    return [each for name in ENVOY_HEADERS for each in _renamed(f"x-envoy-{name}", f"x-meshdev-{name}")]


def _unmask_envoy_headers() -> list[Object]:
    """The last thing done: the app sees them as they were."""
    return [each for name in ENVOY_HEADERS for each in _renamed(f"x-meshdev-{name}", f"x-envoy-{name}")]


def _renamed(old: str, new: str) -> list[Object]:
    header = {"key": new, "value": f"%REQ({old})%"}
    return [{"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}, {"remove": old}]


def http1(**more: object) -> Object:
    """HTTP/1, to and from."""
    formatter = typed(
        "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig",
        forward_reason_phrase=True,
    )
    return {
        "header_key_format": {"stateful_formatter": {"name": "preserve_case", "typed_config": formatter}},
        "enable_trailers": True,
        "allow_chunked_length": True,
        "allow_custom_methods": True,
        **more,
    }


def http2() -> Object:
    """HTTP/2, to and from."""
    return {
        "max_concurrent_streams": _MOST_STREAMS,
        "allow_connect": True,
        "override_stream_error_on_invalid_http_message": True,
        "max_header_field_size_kb": MAX_HTTP2_FIELD_KB,
    }


def upstream(*, idle: str) -> Object:
    """How to speak to an app: as the client spoke to us."""
    common: Object = {
        "idle_timeout": idle,
        "max_headers_count": MAX_HEADERS_COUNT,
        "max_response_headers_kb": MAX_HEADERS_KB,
    }
    show = typed(
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        mutations={"request_mutations": _unmask_envoy_headers()},
    )
    codec = typed("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec")
    return {
        _HTTP_OPTIONS: typed(
            _HTTP_OPTIONS,
            common_http_protocol_options=common,
            http_filters=[
                {"name": "envoy.filters.http.header_mutation", "typed_config": show},
                {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
            ],
            use_downstream_protocol_config={"http_protocol_options": http1(), "http2_protocol_options": http2()},
        )
    }
