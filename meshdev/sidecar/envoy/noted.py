"""Headers that claims ask for, of HTTP/2 requests that no claim took: records say by them why it took none.

An access logger logs the headers that its listener names, and a listener that changes drains its connections. So a
filter notes them as the request's metadata, which is in each entry of the access log, and a route says which headers
that are. The filter notes nothing by itself, and while nobody watches that route is passed over. Probes of the kubelet
are noted as such.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from meshdev.observe.masking import is_credential
from meshdev.sidecar.envoy import http
from meshdev.sidecar.envoy.http import typed

Object = dict[str, Any]

#: Headers that are noted on one port.
MAX_NOTED: Final = 16
#: Characters of a value that are looked at; Envoy notes none of 8 KiB and more.
MAX_VALUE: Final = 1024
FILTER: Final = "envoy.filters.http.header_to_metadata"
#: Where values are noted, by name, and where the names of headers that a request does not have.
VALUES: Final = "meshdev.headers"
MISSING: Final = "meshdev.missing"
#: And requests of the kubelet.
PROBES: Final = "meshdev.probes"
_CONFIG: Final = "envoy.extensions.filters.http.header_to_metadata.v3.Config"


@dataclass(frozen=True)
class NotedHeaders:
    """Of one request. What is in neither is not known. Several of one name are one value, joined by commas."""

    values: Mapping[str, str] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    probe: bool = False
    """It is one of the kubelet."""


def names(headers: Iterable[str]) -> list[str]:
    """Those of *headers* that are noted: values of credentials stay in the pod."""
    return [name for name in dict.fromkeys(headers) if not is_credential(name)][:MAX_NOTED]


def noting_nothing() -> Object:
    """The filter, for an HTTP connection manager."""
    return {"name": FILTER, "typed_config": typed(_CONFIG)}


def on_route(headers: Iterable[str]) -> Object:
    """What lets a route note these; they are called as claims call them."""
    rules = [
        {
            "header": http.masked(name),
            "on_header_present": {"metadata_namespace": VALUES, "key": name},
            "on_header_missing": {"metadata_namespace": MISSING, "key": name, "value": "1"},
        }
        for name in headers
    ]
    return _on_route(rules)


def probe_on_route() -> Object:
    """What lets a route note that its requests are the kubelet's."""
    note = {"metadata_namespace": PROBES, "key": "probe", "value": "1"}
    return _on_route([{"header": ":path", "on_header_present": note}])


def _on_route(rules: Sequence[Object]) -> Object:
    return {"typed_per_filter_config": {FILTER: typed(_CONFIG, request_rules=rules)}}


def read(metadata: Any) -> NotedHeaders:  # noqa: ANN401 -- protobuf has no types
    """From the Metadata of an entry of the access log, which may hold anything."""
    found = metadata.filter_metadata
    values = found[VALUES].fields.items() if VALUES in found else ()
    missing = found[MISSING].fields if MISSING in found else ()
    return NotedHeaders(
        {name: value.string_value[:MAX_VALUE] for name, value in values if value.HasField("string_value")},
        frozenset(missing),
        PROBES in found,
    )
