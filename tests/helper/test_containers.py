"""How often the kernel is asked for bridges, and what is done with the containers behind them."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any, cast
from unittest.mock import Mock

import pytest

from meshdev.errors import LaptopError
from meshdev.helper import containers
from meshdev.helper.bridges import Bridge
from meshdev.helper.containers import Containers

OURS = IPv4Address("127.0.0.1")
SERVERS = (IPv4Address("192.0.2.1"),)
BRIDGE = Bridge("docker0", IPv4Network("172.17.0.0/16"))


class Machine:
    """A machine with a bridge. ``news`` grows with what changes; ``looks`` counts how often it was looked at."""

    def __init__(self) -> None:
        self.news, self.looks = 0, 0
        self.bridges: tuple[Bridge, ...] = (BRIDGE,)
        self.error: OSError | None = None
        self.firewall = Mock()
        self.device: Any = Mock(address=OURS, index=7)
        self.device.name = "meshdev0"
        self.containers = Containers(cast("Any", None), lambda: self.news)

    def find(self, _netlink: object) -> tuple[Bridge, ...]:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.bridges

    def follow(self) -> None:
        self.containers.follow(self.device, SERVERS)

    def carried(self) -> tuple[tuple[str, ...], tuple[IPv4Address, ...]]:
        """Bridges, and servers whose questions come to us, as the firewall was told last."""
        _, _, bridges, dns = self.firewall.carry.call_args.args
        return tuple(bridge.name for bridge in bridges), dns.servers


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine()
    monkeypatch.setattr(containers, "find_bridges", made.find)
    monkeypatch.setattr(containers, "forwards", lambda _bridge: False)
    monkeypatch.setattr(containers, "forget_flows", lambda _chosen: None)
    made.containers.guarded(made.firewall)
    made.containers.listen(OURS)
    yield made
    made.containers.close()


def test_the_kernel_is_asked_when_it_has_news(machine: Machine) -> None:
    for _ in range(10):
        machine.follow()
    assert machine.containers.note() is not None
    assert machine.looks == 1
    machine.bridges += (Bridge("podman0", IPv4Network("10.88.0.0/16")),)
    machine.news += 1
    for _ in range(10):
        machine.follow()
    assert (machine.looks, machine.carried()) == (2, (("docker0", "podman0"), SERVERS))


def test_what_could_not_be_seen_is_looked_at_again(machine: Machine) -> None:
    machine.error = OSError(105, "No buffer space available")
    with pytest.raises(LaptopError):
        machine.follow()
    machine.error = None
    machine.follow()
    assert machine.carried() == (("docker0",), SERVERS)


def test_silence_needs_no_look(machine: Machine) -> None:
    machine.follow()
    assert machine.containers.asks_us
    machine.error, machine.news = OSError(105, "No buffer space available"), 1
    machine.containers.silence()
    assert machine.carried() == (("docker0",), ())
    assert not machine.containers.asks_us


def test_silence_that_fails_is_tried_again(machine: Machine) -> None:
    machine.follow()
    machine.firewall.carry.side_effect = LaptopError("no")
    with pytest.raises(LaptopError):
        machine.containers.silence()
    assert machine.containers.asks_us


def test_without_a_guard_nobody_gets_in(machine: Machine) -> None:
    machine.follow()
    machine.firewall.reset_mock()
    machine.containers.guarded(None)
    assert machine.containers.listen(OURS) == []
    machine.follow()
    machine.containers.silence()
    machine.firewall.carry.assert_not_called()
    assert "that needs nftables" in str(machine.containers.note())
