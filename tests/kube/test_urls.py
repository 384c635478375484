"""Where clients ask for an intercepted port, and what they would speak there."""

from typing import Any

import pytest

from meshdev.intercept.spec import Mode, Port, Protocol
from meshdev.kube.urls import url_of


def asked(
    *ports: dict[str, Any],
    container: str = "",
    cluster_ip: str = "10.96.0.7",
    protocol: Protocol = "tcp",
    mode: Mode = "mesh",
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
        ({}, "", "tcp", "mesh", "http"),  # 8080 is HTTP's by use
        ({"appProtocol": "http"}, "", "http", "mesh", "http"),
        ({"appProtocol": "HTTPS"}, "", "tcp", "proxy", "https"),
        ({"appProtocol": "kubernetes.io/h2c"}, "", "http", "mesh", "h2c"),
        ({"appProtocol": "kubernetes.io/ws"}, "", "http", "mesh", "http"),
        ({"appProtocol": "kubernetes.io/wss"}, "", "tcp", "mesh", "tcp"),
        ({"appProtocol": "postgresql"}, "http", "tcp", "mesh", "tcp"),
        ({"appProtocol": "postgresql"}, "", "http", "mesh", "http"),  # the user says /http
        ({"name": "grpc-api"}, "", "http", "mesh", "grpc"),
        ({"name": "grpc-web"}, "", "http", "mesh", "http"),
        ({"name": "http2"}, "", "http", "mesh", "h2c"),
        ({"name": "https"}, "", "tcp", "proxy", "https"),
        ({"name": "web"}, "grpc", "http", "mesh", "grpc"),
        ({"name": "httpx"}, "", "tcp", "mesh", "http"),
        ({"name": "postgres"}, "", "tcp", "mesh", "tcp"),
        ({"name": "tcp-admin"}, "http", "tcp", "mesh", "tcp"),
        ({"name": ""}, "redis", "tcp", "mesh", "tcp"),
        ({"name": "redis"}, "", "http", "mesh", "http"),
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
        (80, "mesh", "http://web.default/"),
        (443, "proxy", "https://web.default/"),
        (8443, "mesh", "https://web.default:8443/"),
        (5432, "mesh", "tcp://web.default:5432/"),
        (5432, "proxy", "tcp://web.default:5432/"),
        (3306, "proxy", "tcp://web.default:3306/"),
        (6379, "mesh", "tcp://web.default:6379/"),
        (9999, "mesh", "http://web.default:9999/"),  # whoever matches requests has some
        (9999, "proxy", "tcp://web.default:9999/"),
    ],
)
def test_of_a_port_of_which_nothing_is_said_the_number_decides(number: int, mode: Mode, expected: str) -> None:
    made = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": [{"port": number}]}}
    assert url_of({}, [made], [Port(number, "tcp", 1)], mode) == expected


def test_of_several_ports_it_is_one_that_speaks_http() -> None:
    spec = {"ports": [{"name": "db", "port": 5432}, {"name": "http", "port": 80, "targetPort": 9000}]}
    made = {"metadata": {"name": "web", "namespace": "default"}, "spec": spec}
    ports = [Port(53, "udp", 53), Port(5432, "tcp", 5432), Port(9000, "http", 9000)]
    assert url_of({}, [made], ports, "mesh") == "http://web.default/"
    assert url_of({}, [made], ports[:2], "proxy") == "tcp://web.default:5432/"
    assert url_of({}, [made], ports[:1], "proxy") is None
