"""The agent's environment, and its doors."""

import socket
from ipaddress import IPv4Address

import pytest

from meshdev.errors import ConfigError
from meshdev.sidecar.agent.listener_ports import ListenerPorts
from meshdev.sidecar.agent.settings import Settings, settings
from meshdev.wire.agent import PodPort, Probe

GOOD = {
    "MESHDEV_MANAGER": "10.96.0.7:15010",
    "POD_NAME": "b-1",
    "POD_UID": "uid",
    "POD_NAMESPACE": "default",
    "POD_IP": "10.244.0.7",
}


def test_what_it_is_told() -> None:
    probes = '[{"port": 8080, "path": "/healthz", "agent": "kube-probe/"}]'
    expected = Settings("b-1", "uid", "default", IPv4Address("10.244.0.7"), "10.96.0.7", 15010)
    assert settings(GOOD) == expected
    assert settings({**GOOD, "MESHDEV_PROBES": probes}).probes == (Probe(8080, "/healthz"),)
    assert settings({**GOOD, "MESHDEV_STAYS": "1"}).stays


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "") for name in GOOD),
        ("MESHDEV_MANAGER", "10.96.0.7"),
        ("MESHDEV_MANAGER", "a b:1"),
        ("POD_IP", "fd00::1"),
        ("MESHDEV_PROBES", "["),
        ("MESHDEV_PROBES", "{}"),
        ("MESHDEV_PROBES", '[{"port": 0, "path": "/", "agent": ""}]'),
    ],
)
def test_what_it_cannot_use(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        settings({**GOOD, name: value})


def test_a_door_is_free_and_stays() -> None:
    web, voice = PodPort(8080, "udp"), PodPort(9090, "udp")
    first = ListenerPorts().of([web])[web]
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", first))
        doors = ListenerPorts()
        found = doors.of([web, voice])
    assert found[web] != first
    assert found[web] != found[voice]
    assert doors.of([web]) == found
