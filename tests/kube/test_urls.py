"""Where clients ask for an intercepted port, and what they would speak there."""

from typing import Any

import pytest

from meshdev.intercept.spec import Port
from meshdev.kube.urls import url_of
from meshdev.wire.modes import MESH, PROXY, Mode
from meshdev.wire.ports import Protocol


def asked(
    *ports: dict[str, Any],
    container: str = "",
    cluster_ip: str = "10.96.0.7",
    protocol: Protocol = "tcp",
    mode: Mode = MESH,
) -> str | None:
    """For port 8080 of pods that declare it, behind a Service with these ports."""
    made = {"metadata": {"name": "b", "namespace": "team-1"}, "spec": {"clusterIP": cluster_ip, "ports": list(ports)}}
    pod = {"containers": [{"ports": [{"name": container, "containerPort": 8080}]}]}
    return url_of(pod, [made], [Port(8080, protocol, 1)], mode)


@pytest.mark.parametrize(
    ("port", "cluster_ip", "expected"),
    [
        ({"port": 80, "targetPort": 8080}, "10.96.0.7", "http://b.team-1/"),
        ({"port": 81, "targetPort": "http"}, "10.96.0.7", "http://b.team-1:81/"),
        ({"port": 80, "targetPort": 8080}, "None", "http://b.team-1:8080/"),
        ({"port": 80, "targetPort": 9}, "10.96.0.7", None),
        ({"port": 80, "targetPort": 8080, "protocol": "UDP"}, "10.96.0.7", None),
    ],
)
def test_where_clients_ask_for_it(port: dict[str, Any], cluster_ip: str, expected: str | None) -> None:
    assert asked(port, container="http", cluster_ip=cluster_ip) == expected


@pytest.mark.parametrize(
    ("said", "container", "protocol", "mode", "scheme"),
    [
        ({}, "", "tcp", MESH, "http"),  # 8080 is HTTP's by use
        ({"appProtocol": "http"}, "", "http", MESH, "http"),
        ({"appProtocol": "HTTPS"}, "", "tcp", PROXY, "https"),
        ({"appProtocol": "kubernetes.io/h2c"}, "", "http", MESH, "h2c"),
        ({"appProtocol": "kubernetes.io/ws"}, "", "http", MESH, "http"),
        ({"appProtocol": "kubernetes.io/wss"}, "", "tcp", MESH, "tcp"),
        ({"appProtocol": "postgresql"}, "http", "tcp", MESH, "tcp"),
        ({"appProtocol": "postgresql"}, "", "http", MESH, "http"),  # the user says /http
        ({"name": "grpc-api"}, "", "http", MESH, "grpc"),
        ({"name": "grpc-web"}, "", "http", MESH, "http"),
        ({"name": "http2"}, "", "http", MESH, "h2c"),
        ({"name": "https"}, "", "tcp", PROXY, "https"),
        ({"name": "web"}, "grpc", "http", MESH, "grpc"),
        ({"name": "httpx"}, "", "tcp", MESH, "http"),
        ({"name": "postgres"}, "", "tcp", MESH, "tcp"),
        ({"name": "tcp-admin"}, "http", "tcp", MESH, "tcp"),
        ({"name": ""}, "redis", "tcp", MESH, "tcp"),
        ({"name": "redis"}, "", "http", MESH, "http"),
    ],
)
def test_what_is_said_decides(
    said: dict[str, Any], container: str, protocol: Protocol, mode: Mode, scheme: str
) -> None:
    found = asked({"port": 81, "targetPort": 8080, **said}, container=container, protocol=protocol, mode=mode)
    assert found == f"{scheme}://b.team-1:81/"


@pytest.mark.parametrize(
    ("number", "mode", "expected"),
    [
        (80, MESH, "http://web.default/"),
        (443, PROXY, "https://web.default/"),
        (8443, MESH, "https://web.default:8443/"),
        (5432, MESH, "tcp://web.default:5432/"),
        (5432, PROXY, "tcp://web.default:5432/"),
        (3306, PROXY, "tcp://web.default:3306/"),
        (6379, MESH, "tcp://web.default:6379/"),
        (9999, MESH, "http://web.default:9999/"),  # whoever matches requests has some
        (9999, PROXY, "tcp://web.default:9999/"),
    ],
)
def test_of_a_port_of_which_nothing_is_said_the_number_decides(number: int, mode: Mode, expected: str) -> None:
    made = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": [{"port": number}]}}
    assert url_of({}, [made], [Port(number, "tcp", 1)], mode) == expected


def test_of_several_ports_it_is_one_that_speaks_http() -> None:
    spec = {"ports": [{"name": "db", "port": 5432}, {"name": "http", "port": 80, "targetPort": 9000}]}
    made = {"metadata": {"name": "web", "namespace": "default"}, "spec": spec}
    ports = [Port(53, "udp", 53), Port(5432, "tcp", 5432), Port(9000, "http", 9000)]
    assert url_of({}, [made], ports, MESH) == "http://web.default/"
    assert url_of({}, [made], ports[:2], PROXY) == "tcp://web.default:5432/"
    assert url_of({}, [made], ports[:1], PROXY) is None
