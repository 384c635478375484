"""Resources as protobuf: the only module here that needs xds-protos, so that an agent need not load it."""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import protocol_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2

# Types that stand inside others as google.protobuf.Any are known once their modules are loaded.
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.clusters.aggregate.v3 import cluster_pb2 as aggregate_pb2
from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.common.matcher.action.v3 import skip_action_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.filters.http.header_to_metadata.v3 import header_to_metadata_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.http.upstream_codec.v3 import upstream_codec_pb2
from envoy.extensions.filters.listener.proxy_protocol.v3 import proxy_protocol_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.filters.udp.udp_proxy.v3 import route_pb2 as udp_route_pb2
from envoy.extensions.filters.udp.udp_proxy.v3 import udp_proxy_pb2
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2 as early_pb2
from envoy.extensions.http.header_formatters.preserve_case.v3 import preserve_case_pb2
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.matcher.v3 import http_inputs_pb2
from google.protobuf import any_pb2, json_format, symbol_database, wrappers_pb2

from meshdev.sidecar.envoy.resources import Object, Resources

_DATABASE: Final = symbol_database.Default()
_PREFIX: Final = "type.googleapis.com/"
CLUSTERS: Final = f"{_PREFIX}envoy.config.cluster.v3.Cluster"
ENDPOINTS: Final = f"{_PREFIX}envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENERS: Final = f"{_PREFIX}envoy.config.listener.v3.Listener"
ROUTES: Final = f"{_PREFIX}envoy.config.route.v3.RouteConfiguration"
#: In this order each names only what was sent before.
ORDER: Final = (CLUSTERS, ENDPOINTS, LISTENERS, ROUTES)

_MESSAGES: Final = {
    CLUSTERS: cluster_pb2.Cluster,
    ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
    LISTENERS: listener_pb2.Listener,
    ROUTES: route_pb2.RouteConfiguration,
}

#: By type and name. The same resources are the same bytes.
Packed = dict[str, dict[str, Any]]


def packed(resources: Resources) -> Packed:
    """*resources* as the answers of ADS carry them."""
    return {
        CLUSTERS: {each["name"]: _packed(CLUSTERS, each) for each in resources.clusters},
        ENDPOINTS: {each["cluster_name"]: _packed(ENDPOINTS, each) for each in resources.endpoints},
        LISTENERS: {each["name"]: _packed(LISTENERS, each) for each in resources.listeners},
        ROUTES: {each["name"]: _packed(ROUTES, each) for each in resources.routes},
    }


def _packed(kind: str, value: Object) -> Any:  # noqa: ANN401 -- protobuf has no types here
    return _parsed(kind, json.dumps(value))


class _NewFields:
    """Fields of Envoy 1.40 that the newest xds-protos (1.85) does not know: left out of the JSON, put in by number.

    Of ``Http2ProtocolOptions``: ``google.protobuf.UInt32Value max_header_field_size_kb = 19``, as in the descriptor
    that Envoy's binary holds.
    """

    _key: Final = "max_header_field_size_kb"
    _tag: Final = 19

    def __init__(self) -> None:
        self.size = 0

    def taken_out(self, fields: Object) -> Object:
        """For json.loads: every object passes here."""
        self.size = fields.pop(self._key, self.size)
        return fields

    def put_in(self, message: Any) -> None:  # noqa: ANN401 -- the same
        """Into all of these options in *message*, and in whatever it wraps."""
        if isinstance(message, protocol_pb2.Http2ProtocolOptions):
            size = wrappers_pb2.UInt32Value(value=self.size).SerializeToString()
            # Protobuf's wire format: a field of type 2 is its tag, its length and its bytes.
            message.MergeFromString(bytes((self._tag << 3 & 0x7F | 0x82, self._tag >> 4, len(size))) + size)
        elif isinstance(message, any_pb2.Any):
            inner = _DATABASE.GetSymbol(message.TypeName())()
            inner.ParseFromString(message.value)
            self.put_in(inner)
            message.Pack(inner, deterministic=True)
        else:
            for field, value in message.ListFields():
                for each in _messages(field, value):
                    self.put_in(each)


def _messages(field: Any, value: Any) -> Iterable[Any]:  # noqa: ANN401 -- the same
    """The messages in a field."""
    if field.message_type is None:
        return ()
    if field.message_type.GetOptions().map_entry:
        return value.values() if field.message_type.fields_by_name["value"].message_type else ()
    return value if isinstance(value, Sequence) else (value,)


@lru_cache(maxsize=4096)
def _parsed(kind: str, text: str) -> Any:  # noqa: ANN401 -- the same
    """Parsing takes a millisecond; what changes is mostly one resource of many."""
    new = _NewFields()
    message = json_format.ParseDict(json.loads(text, object_hook=new.taken_out), _MESSAGES[kind]())
    if new.size:
        new.put_in(message)
    packed = any_pb2.Any()
    packed.Pack(message, deterministic=True)
    return packed
