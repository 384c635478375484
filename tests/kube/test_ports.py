"""Which ports a workload has, and which one is meant."""

from typing import Any

import pytest

from meshdev.errors import InterceptError, UsageError
from meshdev.intercept.ports import parse_port
from meshdev.intercept.spec import Port
from meshdev.kube.ports import Ports, ServicePort, TargetPort, ports_of, resolve_ports
from meshdev.wire.modes import MESH, PROXY, Mode
from tests.kube.objects import service

Object = dict[str, Any]


def pod_spec(*ports: Object, sidecar: Object | None = None) -> Object:
    init = [
        {"name": "s", "restartPolicy": "Always", "ports": [sidecar]},
        {"name": "i", "ports": [{"containerPort": 1}]},
    ]
    return {"containers": [{"name": "b", "ports": list(ports)}], "initContainers": init if sidecar else []}


B = pod_spec(
    {"name": "http", "containerPort": 8080},
    {"name": "udp", "containerPort": 9090, "protocol": "UDP"},
    {"name": "admin", "containerPort": 9000},
)
SERVICES = [service("b"), service("b-admin", [{"name": "ui", "port": 8080, "targetPort": "admin"}])]


def test_all_that_is_known() -> None:
    assert ports_of(B, SERVICES) == Ports(
        (
            TargetPort(8080, "http", frozenset({"http"})),
            TargetPort(9000, "tcp", frozenset({"admin", "ui"})),
            TargetPort(9090, "udp", frozenset({"udp"})),
        )
    )
    assert ports_of(B, SERVICES, "b-admin").service == (ServicePort(8080, "ui", 9000, "tcp"),)


def test_ports_that_only_a_service_tells_of_and_those_of_native_sidecars() -> None:
    found = ports_of(pod_spec(sidecar={"containerPort": 15000}), [service("b", [{"port": 80}])])
    assert [port.number for port in found.known] == [80, 15000]


def test_a_named_target_port_that_no_container_has_leads_nowhere() -> None:
    ports = ports_of(
        pod_spec({"containerPort": 1}), [service("b", [{"port": 80, "targetPort": "web", "name": "w"}])], "b"
    )
    assert (ports.service, ports.dead) == ((), ((80, "w", "web"),))
    for typed in ("80", "8080:80", "8080:w"):
        with pytest.raises(
            InterceptError, match=f"--port {typed}: port 80 of service/b has the targetPort web, which no"
        ):
            resolve_ports([parse_port(typed)], ports, MESH, "service/b")
    assert resolve_ports([parse_port("8080:1")], ports, MESH, "service/b") == (Port(1, "tcp", 8080),)


def test_sctp_is_left_alone() -> None:
    sctp = {"containerPort": 1, "protocol": "SCTP"}
    assert ports_of(pod_spec(sctp), [service("b", [{"port": 1, "protocol": "SCTP"}])], "b") == Ports(())


@pytest.mark.parametrize(
    ("container", "ports", "expected"),
    [
        ("", [], "tcp"),
        ("http", [], "http"),
        ("http-api", [], "http"),
        ("httpx", [], "tcp"),
        ("https", [], "tcp"),
        ("grpc", [], "http"),
        ("grpc-web", [], "http"),
        ("", [{"name": "http"}], "http"),
        ("", [{"name": "web", "appProtocol": "http"}], "http"),
        ("", [{"appProtocol": "HTTP"}], "http"),
        ("", [{"appProtocol": "kubernetes.io/h2c"}], "http"),
        ("", [{"appProtocol": "kubernetes.io/ws"}], "http"),
        ("", [{"appProtocol": "kubernetes.io/wss"}], "tcp"),
        ("", [{"appProtocol": "grpc"}], "http"),
        ("http", [{"appProtocol": "tcp"}], "tcp"),
        ("", [{"name": "http", "appProtocol": "https"}], "tcp"),
        ("", [{"name": "http"}, {"appProtocol": "mysql"}], "tcp"),
    ],
)
def test_what_is_known_as_http(container: str, ports: list[Object], expected: str) -> None:
    services = [service("b", [{"port": 80, "targetPort": 8080, **each}]) for each in ports]
    (found,) = ports_of(pod_spec({"name": container, "containerPort": 8080}), services).known
    assert found.protocol == expected


def resolved(typed: list[str], mode: Mode = MESH, asked: str | None = None) -> list[tuple[int, str, int]]:
    found = resolve_ports([parse_port(each) for each in typed], ports_of(B, SERVICES, asked), mode, "deployment/b")
    return [(port.remote, port.protocol, port.local) for port in found]


@pytest.mark.parametrize(
    ("typed", "mode", "asked", "expected"),
    [
        ([], MESH, None, [(8080, "http", 8080), (9000, "tcp", 9000)]),
        ([], PROXY, None, [(8080, "http", 8080), (9000, "tcp", 9000), (9090, "udp", 9090)]),
        ([], MESH, "b", [(8080, "http", 8080)]),
        (["3000"], MESH, "b", [(8080, "http", 3000)]),
        (["9000"], MESH, None, [(9000, "tcp", 9000)]),  # LOCAL alone: the port of that number, of several
        (["8080"], MESH, None, [(8080, "http", 8080)]),
        (["9090"], PROXY, None, [(9090, "udp", 9090)]),
        (["8080"], MESH, "b-admin", [(9000, "tcp", 8080)]),  # the Service's own port comes first
        (["80"], MESH, "b", [(8080, "http", 80)]),
        (["9000"], MESH, "b", [(9000, "tcp", 9000)]),  # no port of the Service, one of the pods
        (["9090"], MESH, "b", [(8080, "http", 9090)]),  # a mesh has no use for UDP: the only port
        (["9000/http"], MESH, None, [(9000, "http", 9000)]),
        (["3000:80"], MESH, "b", [(8080, "http", 3000)]),
        (["3000:80"], MESH, None, [(80, "tcp", 3000)]),  # a container port that is not declared
        (["3000:8080"], MESH, "b-admin", [(9000, "tcp", 3000)]),  # the Service's own port comes first
        (["3000:8080"], MESH, None, [(8080, "http", 3000)]),
        (["3000:ui"], MESH, "b-admin", [(9000, "tcp", 3000)]),
        (["3000:http"], MESH, "b-admin", [(8080, "http", 3000)]),
        (["3000:admin/http"], MESH, None, [(9000, "http", 3000)]),
        (["3000:8080/tcp"], MESH, None, [(8080, "tcp", 3000)]),
        (["3000:9090"], PROXY, None, [(9090, "udp", 3000)]),
        (["3000/udp"], PROXY, None, [(9090, "udp", 3000)]),
        (["3000:53/udp"], PROXY, None, [(53, "udp", 3000)]),
        (["3000:9090/tcp"], MESH, None, [(9090, "tcp", 3000)]),
        (["1:9000", "1:http"], MESH, None, [(8080, "http", 1), (9000, "tcp", 1)]),
    ],
)
def test_which_port_is_meant(
    typed: list[str], mode: Mode, asked: str | None, expected: list[tuple[int, str, int]]
) -> None:
    assert resolved(typed, mode, asked) == expected


@pytest.mark.parametrize(
    ("typed", "mode", "kind", "words"),
    [
        (["3000"], MESH, InterceptError, "has the ports 8080/tcp (http), 9000/tcp (admin, ui)"),
        (["3000:web"], MESH, InterceptError, "no port named web; it has the ports 8080/tcp (http), 9000"),
        (["3000:udp"], MESH, InterceptError, "UDP has no headers"),
        (["3000:53/udp"], MESH, InterceptError, "UDP has no headers"),
        (["1:8080", "2:http"], MESH, UsageError, "port 8080/tcp of deployment/b twice"),
    ],
)
def test_what_cannot_be_meant(typed: list[str], mode: Mode, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        resolved(typed, mode)
    assert words in str(caught.value)


def test_a_name_of_several_ports_is_asked_about_and_one_of_both_transports_is_that_of_requests() -> None:
    ports = Ports(
        (
            TargetPort(53, "tcp", frozenset({"dns"})),
            TargetPort(53, "udp", frozenset({"dns"})),
            TargetPort(8080, "http", frozenset({"http"})),
            TargetPort(8081, "http", frozenset({"http"})),
        ),
        (
            ServicePort(53, "dns", 53, "udp"),
            ServicePort(53, "dns2", 53, "tcp"),
        ),
    )
    with pytest.raises(InterceptError, match=r"more than one port named http: the ports 8080/tcp .*, 8081/tcp"):
        resolve_ports([parse_port("3000:http")], ports, MESH, "deployment/b")
    assert resolve_ports([parse_port("3000:53")], ports, MESH, "deployment/b") == (Port(53, "tcp", 3000),)
    assert resolve_ports([parse_port("3000:53")], ports, PROXY, "deployment/b") == (Port(53, "udp", 3000),)


def test_a_workload_without_ports() -> None:
    with pytest.raises(InterceptError, match="declares no TCP port") as caught:
        resolve_ports([], Ports(()), MESH, "deployment/b")
    assert caught.value.hint == "name one: --port LOCAL:REMOTE"
    with pytest.raises(InterceptError, match="declares no TCP port") as caught:
        resolve_ports([], Ports((TargetPort(53, "udp"),)), MESH, "deployment/b")
    assert caught.value.hint == "meshdev proxy takes UDP, too; or name one: --port LOCAL:REMOTE"
    with pytest.raises(InterceptError, match="has no declared port"):
        resolve_ports([parse_port("1")], Ports(()), MESH, "deployment/b")
    assert resolve_ports([parse_port("1:2")], Ports(()), MESH, "deployment/b") == (Port(2, "tcp", 1),)
    many = tuple(TargetPort(number, "tcp") for number in range(1, 66))
    with pytest.raises(InterceptError, match="at most 64"):
        resolve_ports([], Ports(many), MESH, "deployment/b")
