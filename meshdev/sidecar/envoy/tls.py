"""TLS of Envoy's connections to the manager: with the workload's certificate, to the manager's names alone.

Key, certificate and trust anchor are secrets that the agent serves (sidecar.agent.secret_discovery). Before it has
them a cluster that needs them is warming, for as long as it takes.
"""

from typing import Any, Final

from meshdev.sidecar.envoy.http import OFF, typed

Object = dict[str, Any]

#: The secrets: key and certificate to show, and the trust anchor that the manager's certificates are checked against.
IDENTITY: Final = "identity"
AUTHORITY: Final = "authority"
#: DNS names in the manager's certificates: the control container's, and the relays'.
CONTROL_NAME: Final = "control.meshdev"
RELAY_NAME: Final = "relay.meshdev"
#: How soon Envoy asks again after a stream has ended. By itself it waits up to 30 s.
RETRY: Final = {"base_interval": "0.1s", "max_interval": "1s"}
#: The same of secrets. The first attempt comes too early: Envoy (1.40) may initialize the cluster that needs secrets
#: before the one that serves them ("Cluster not available").
_RETRY_SECRETS: Final = {"base_interval": "0.01s", "max_interval": "1s"}
#: The cluster that serves them.
_SECRETS: Final = "secrets"
_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TLS: Final = "envoy.transport_sockets.tls"
_CONTEXT: Final = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


def secrets_cluster(path: str) -> Object:
    """Where secrets come from: the agent's unix socket at *path*."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": path}}}}
    return {
        "name": _SECRETS,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: typed(_HTTP_OPTIONS, explicit_http_config={"http2_protocol_options": {}})
        },
        "load_assignment": {"cluster_name": _SECRETS, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def to_control() -> Object:
    """The transport socket of Envoy's stream to the control container."""
    return _socket(
        _common(CONTROL_NAME, {"tls_maximum_protocol_version": "TLSv1_3"}, alpn_protocols=["h2"]), sni=CONTROL_NAME
    )


def to_relay() -> Object:
    """The transport socket of a connection to a relay, which the endpoint's hostname names.

    TLS 1.2 exactly: a relay that does not take the certificate refuses it before the connection exists for Envoy, so
    that the request is tried elsewhere. In TLS 1.3 the client's side is complete before that (RFC 8446, 2). And each
    connection shows its certificate: a session is not resumed.
    """
    version = {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_2"}
    return _socket(_common(RELAY_NAME, version), auto_host_sni=True, max_session_keys=0)


def _socket(common: Object, **more: object) -> Object:
    return {"name": _TLS, "typed_config": typed(_CONTEXT, common_tls_context=common, **more)}


def _common(name: str, version: Object, **more: object) -> Object:
    return {
        "tls_params": version,
        "tls_certificate_sds_secret_configs": [_secret(IDENTITY)],
        "combined_validation_context": {
            "default_validation_context": {
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": name}}]
            },
            "validation_context_sds_secret_config": _secret(AUTHORITY),
        },
        **more,
    }


def _secret(name: str) -> Object:
    service = {"envoy_grpc": {"cluster_name": _SECRETS, "retry_policy": {"retry_back_off": _RETRY_SECRETS}}}
    source = {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [service],
    }
    return {
        "name": name,
        "sds_config": {
            "api_config_source": source,
            "resource_api_version": "V3",
            # By itself Envoy goes on after 15 s without them, and fails until they come.
            "initial_fetch_timeout": OFF,
        },
    }
