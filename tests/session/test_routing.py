"""The session's routes: wishes come in, the helper gets a plan, and only when it changed."""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import cast

import pytest

from meshdev.errors import UsageError
from meshdev.host.plan import LaptopNetwork, LocalRoute
from meshdev.kube.ranges import ClusterRanges
from meshdev.session import routing as module
from meshdev.session.helper_client import HelperClient
from meshdev.session.routing import MAX_NAMED, Routing
from meshdev.wire.control import Welcome
from meshdev.wire.dns import Named
from meshdev.wire.helper.answers import RefusedRoute, RoutesSet
from meshdev.wire.helper.limits import MAX_ROUTES


def ips(*texts: str) -> frozenset[IPv4Address]:
    return frozenset(map(IPv4Address, texts))


def named(*texts: str, service: bool = True) -> frozenset[Named]:
    """Answers of cluster DNS."""
    name = "b.other.svc.cluster.local" if service else "x.default.pod.cluster.local"
    return frozenset(Named(address, name, service) for address in ips(*texts))


WELCOME = Welcome(
    version=1,
    address=IPv4Address("198.18.0.2"),
    mtu=1450,
    offload=7,
    nameservers=(IPv4Address("10.96.0.10"),),
    search=("default.svc.cluster.local",),
    pod="manager",
    namespace="default",
    pod_address=IPv4Address("10.244.0.9"),
)
RANGES = ClusterRanges(services=frozenset({IPv4Network("10.96.0.0/16")}))
COMPLETE = ClusterRanges(RANGES.services, frozenset({IPv4Network("10.244.0.0/24")}), ips("172.20.0.5"))
LAN = LaptopNetwork(
    routes=(LocalRoute(IPv4Network("192.168.77.0/24"), "eth0"),), gateways=(IPv4Address("192.168.77.1"),)
)


class FakeHelper:
    """Has exactly the routes it was told last, and counts how often."""

    def __init__(self) -> None:
        self.routes: tuple[IPv4Network, ...] = ()
        self.calls = 0
        self.translations: tuple[str, ...] = ()
        self.refused: tuple[RefusedRoute, ...] = ()

    async def find_translations(self) -> tuple[str, ...]:
        return self.translations

    async def set_routes(self, routes: tuple[IPv4Network, ...]) -> RoutesSet:
        self.routes = tuple(route for route in routes if route not in {no.route for no in self.refused})
        self.calls += 1
        return RoutesSet(self.routes, self.refused)

    async def add_routes(self, routes: Iterable[IPv4Network]) -> RoutesSet:
        added = tuple(routes)
        assert not set(added) & set(self.routes)
        self.routes = tuple(sorted((*self.routes, *added)))
        self.calls += 1
        return RoutesSet(added, ())


class Machine:
    """A laptop whose network can change."""

    def __init__(self) -> None:
        self.network = LaptopNetwork()
        self.helper = FakeHelper()

    def routing(self, *, also: tuple[str, ...] = (), never: tuple[str, ...] = ()) -> Routing:
        return Routing(cast("HelperClient", self.helper), also, never, lambda: self.network)


def texts(machine: Machine) -> list[str]:
    return [str(route) for route in machine.helper.routes]


async def test_nothing_is_routed_before_there_is_an_address() -> None:
    machine = Machine()
    await machine.routing().set_ranges(RANGES)
    assert machine.helper.calls == 0


async def test_the_manager_and_its_nameserver_are_routed_first() -> None:
    machine = Machine()
    await machine.routing().set_address(WELCOME)
    assert texts(machine) == ["10.96.0.10/32", "10.244.0.9/32"]


async def test_ranges_swallow_their_addresses() -> None:
    machine = Machine()
    routing = machine.routing()
    await routing.set_address(WELCOME)
    await routing.set_objects(frozenset({IPv4Address("10.96.3.4")}))
    await routing.set_ranges(RANGES)
    assert texts(machine) == ["10.96.0.0/16", "10.244.0.9/32"]
    assert routing.inside(IPv4Address("10.96.77.1"))


async def test_the_helper_is_asked_only_for_a_change() -> None:
    machine = Machine()
    routing = machine.routing()
    await routing.set_address(WELCOME)
    await routing.set_ranges(RANGES)
    await routing.set_ranges(RANGES)
    await routing.route_answers(named("10.96.1.1"))
    assert machine.helper.calls == 2


async def test_another_address_sets_all_routes_again() -> None:
    machine = Machine()
    routing = machine.routing()
    await routing.set_address(WELCOME)
    await routing.set_address(WELCOME)
    assert machine.helper.calls == 2


async def test_the_api_server_stays_outside_of_also() -> None:
    machine = Machine()
    routing = machine.routing(also=("172.30.0.0/30",))
    await routing.keep_outside([IPv4Address("172.30.0.2")])
    await routing.set_address(WELCOME)
    assert not routing.inside(IPv4Address("172.30.0.2"))
    assert routing.inside(IPv4Address("172.30.0.1"))
    assert any("172.30.0.2" in note for note in routing.notes)


async def test_an_api_server_that_moves_is_followed() -> None:
    machine = Machine()
    routing = machine.routing(also=("172.30.0.0/24",))
    await routing.set_address(WELCOME)
    await routing.keep_outside([IPv4Address("172.30.0.2")])
    await routing.keep_outside([IPv4Address("172.30.0.3")])
    assert not routing.inside(IPv4Address("172.30.0.2"))
    assert not routing.inside(IPv4Address("172.30.0.3"))


async def test_an_answer_of_dns_is_routed_unless_it_must_not_be() -> None:
    machine = Machine()
    routing = machine.routing(never=("10.50.0.0/16",))
    await routing.set_address(WELCOME)
    await routing.route_answers(named("10.60.0.1", "10.50.0.1", "127.0.0.1"))
    assert routing.inside(IPv4Address("10.60.0.1"))
    assert not routing.inside(IPv4Address("10.50.0.1"))
    assert not routing.inside(IPv4Address("127.0.0.1"))
    assert sorted(routing.notes) == [
        f"{address} is not routed, though it is what b.other.svc.cluster.local resolves to: this machine or the "
        "connection to the cluster needs it outside of the tunnel."
        for address in ("10.50.0.1", "127.0.0.1")
    ]


async def test_a_name_of_a_pod_chooses_no_address(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    machine.network = LAN
    routing = machine.routing()
    await routing.set_address(WELCOME)
    before = texts(machine)
    await routing.route_answers(named("8.8.4.4", service=False))
    await routing.route_answers(named("192.168.77.55", service=False))
    await routing.route_answers(named("10.60.0.1", service=False))
    assert texts(machine) == before
    said = "is not routed, though it is what x.default.pod.cluster.local resolves to"
    assert routing.notes == (
        (
            f"8.8.4.4 {said}: it is a public address, and in none of the cluster's known ranges. "
            "--also 8.8.4.4/32 routes it."
        ),
        (
            f"192.168.77.55 {said}: it is in this machine's own network 192.168.77.0/24 (eth0). "
            "--also 192.168.77.55/32 routes it."
        ),
        f"10.60.0.1 {said}: it is in none of the cluster's known ranges. --also 10.60.0.1/32 routes it.",
    )
    for note in routing.notes:
        assert note in caplog.text
    await routing.set_objects(ips("10.60.0.1"))
    assert routing.inside(IPv4Address("10.60.0.1"))
    assert not any("10.60.0.1" in note for note in routing.notes)


async def test_names_add_nothing_where_the_ranges_are_complete() -> None:
    machine = Machine()
    routing = machine.routing()
    await routing.set_address(WELCOME)
    await routing.set_ranges(COMPLETE)
    await routing.route_answers(named("10.60.0.1", "172.20.0.5"))
    assert texts(machine) == ["10.96.0.0/16", "10.244.0.0/24", "172.20.0.5/32"]


async def test_endpoints_with_addresses_of_others() -> None:
    machine = Machine()
    machine.network = LAN
    routing = machine.routing()
    await routing.set_address(WELCOME)
    await routing.set_objects(ips("8.8.4.4", "192.168.77.55", "192.168.77.56", "192.168.77.1", "10.20.30.40"))
    assert texts(machine) == ["10.20.30.40/32", "10.96.0.10/32", "10.244.0.9/32"]
    of = "of Services or endpoints in the namespace"
    assert routing.notes == (
        (
            f"8.8.4.4, {of}, is not routed: it is a public address, and in none of the cluster's known ranges. "
            "--also 8.8.4.4/32 routes it."
        ),
        (
            f"192.168.77.55, 192.168.77.56, {of}, are not routed: it is in this machine's own network 192.168.77.0/24 "
            "(eth0). --also 192.168.77.55/32 routes it."
        ),
    )
    await routing.set_objects(ips("10.20.30.40"))
    assert not routing.notes


async def test_also_overrides() -> None:
    machine = Machine()
    machine.network = LAN
    routing = machine.routing(also=("8.8.4.4/32", "192.168.77.55/32"))
    await routing.set_address(WELCOME)
    await routing.set_objects(ips("8.8.4.4"))
    await routing.route_answers(named("192.168.77.55", service=False))
    assert texts(machine) == ["8.8.4.4/32", "10.96.0.10/32", "10.244.0.9/32", "192.168.77.55/32"]
    assert routing.notes == ()


async def test_answers_of_dns_are_bounded_and_those_in_use_stay() -> None:
    machine = Machine()
    routing = machine.routing()
    await routing.set_address(WELCOME)
    first = IPv4Address("10.1.0.0")
    await routing.route_answers(named(str(first)))
    for start in range(1, 2 * MAX_NAMED, MAX_NAMED // 2):
        await routing.route_answers(named(*(str(first + start + number) for number in range(MAX_NAMED // 2))))
        await routing.route_answers(named(str(first)))
    assert len(machine.helper.routes) == MAX_NAMED + 2
    assert routing.inside(first)


async def test_names_never_take_the_place_of_objects() -> None:
    machine = Machine()
    routing = machine.routing()
    await routing.set_address(WELCOME)
    await routing.route_answers(named(*(str(IPv4Address("10.1.0.0") + number) for number in range(MAX_NAMED))))
    objects = frozenset(IPv4Address("10.2.0.0") + number for number in range(MAX_ROUTES - 100))
    await routing.set_objects(objects)
    assert all(IPv4Network(address) in machine.helper.routes for address in objects)
    assert len(machine.helper.routes) == MAX_ROUTES


async def test_a_network_that_appears_is_left_alone() -> None:
    machine = Machine()
    routing = machine.routing()
    await routing.set_address(WELCOME)
    await routing.set_ranges(RANGES)
    machine.network = LaptopNetwork(routes=(LocalRoute(IPv4Network("10.96.128.0/17"), "wlan0"),))
    await routing.refresh()
    assert texts(machine) == ["10.96.0.0/17", "10.244.0.9/32"]
    assert "wlan0" in routing.notes[0]


async def test_translations_of_others_are_told_while_they_are_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "TRANSLATIONS_SECONDS", 0)
    machine = Machine()
    routing = machine.routing()
    await routing.set_address(WELCOME)
    machine.helper.translations = ("packets to 10.96.0.1 get another destination",)
    await routing.refresh()
    await routing.refresh()
    assert routing.notes == machine.helper.translations
    assert caplog.text.count(machine.helper.translations[0]) == 1
    machine.helper.translations = ()
    await routing.refresh()
    assert not routing.notes


def test_a_range_that_is_none_is_an_error_of_the_command_line() -> None:
    with pytest.raises(UsageError, match="--also"):
        Machine().routing(also=("10.0.0.0/40",))


async def test_a_network_that_comes_later_and_keeps_the_cluster_out_is_a_problem_until_it_goes() -> None:
    machine = Machine()
    machine.network = lan = replace(LAN, routes=(*LAN.routes, LocalRoute(IPv4Network("10.244.7.0/24"), "tun7")))
    routing = machine.routing()
    await routing.set_address(WELCOME)
    await routing.set_ranges(ClusterRanges(RANGES.services, frozenset({IPv4Network("10.244.0.0/16")})))
    await routing.refresh()
    assert not routing.problems, "what was there from the beginning is a note"
    assert any("10.244.7.0/24" in note for note in routing.notes)
    machine.network = replace(lan, routes=(*lan.routes, LocalRoute(IPv4Network("10.96.0.0/17"), "lo")))
    await routing.refresh()
    (problem,) = routing.problems
    assert problem == "the route 10.96.0.0/17 (lo), which came later, keeps addresses of the cluster outside"
    machine.network = lan
    await routing.refresh()
    assert not routing.problems


async def test_a_refused_route_is_a_problem_and_is_tried_again() -> None:
    """Another program may have set the device down at that very moment."""
    machine = Machine()
    routing = machine.routing()
    await routing.set_address(WELCOME)
    machine.helper.refused = (RefusedRoute(IPv4Network("10.96.0.0/16"), "Network is down"),)
    await routing.set_ranges(RANGES)
    assert routing.problems == ("the kernel refuses the route 10.96.0.0/16: Network is down",)
    await routing.set_objects(ips("10.97.0.1"))
    assert routing.problems, "an address more is no reason to forget it"
    machine.helper.refused = ()
    await routing.refresh()
    assert not routing.problems
    assert texts(machine) == ["10.96.0.0/16", "10.97.0.1/32", "10.244.0.9/32"]
    calls = machine.helper.calls
    await routing.refresh()
    assert machine.helper.calls == calls
