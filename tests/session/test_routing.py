"""The session's routes: wishes come in, the helper gets a plan, and only when it changed."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import cast

import pytest

from meshdev.errors import UsageError
from meshdev.host.plan import Laptop, LocalRoute
from meshdev.session.helper_client import HelperClient
from meshdev.session.routing import MAX_NAMED, Routing
from meshdev.wire.control import Welcome
from meshdev.wire.helper.answers import RoutesSet

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
SERVICES = IPv4Network("10.96.0.0/16")


class FakeHelper:
    """Has exactly the routes it was told last, and counts how often."""

    def __init__(self) -> None:
        self.routes: tuple[IPv4Network, ...] = ()
        self.calls = 0

    async def set_routes(self, routes: tuple[IPv4Network, ...]) -> RoutesSet:
        self.routes = routes
        self.calls += 1
        return RoutesSet(routes, ())

    async def add_routes(self, routes: Iterable[IPv4Network]) -> RoutesSet:
        added = tuple(routes)
        assert not set(added) & set(self.routes)
        self.routes = tuple(sorted((*self.routes, *added)))
        self.calls += 1
        return RoutesSet(added, ())


class Machine:
    """A laptop whose network can change."""

    def __init__(self) -> None:
        self.network = Laptop()
        self.helper = FakeHelper()

    def routing(self, *, also: tuple[str, ...] = (), never: tuple[str, ...] = ()) -> Routing:
        return Routing(cast("HelperClient", self.helper), also, never, lambda: self.network)


def texts(machine: Machine) -> list[str]:
    return [str(route) for route in machine.helper.routes]


async def test_nothing_is_routed_before_there_is_an_address() -> None:
    machine = Machine()
    await machine.routing().want(ranges=[SERVICES])
    assert machine.helper.calls == 0


async def test_the_manager_and_its_nameserver_are_routed_first() -> None:
    machine = Machine()
    await machine.routing().moved(WELCOME)
    assert texts(machine) == ["10.96.0.10/32", "10.244.0.9/32"]


async def test_ranges_swallow_their_addresses() -> None:
    machine = Machine()
    routing = machine.routing()
    await routing.moved(WELCOME)
    await routing.want(ranges=[SERVICES], hosts=frozenset({IPv4Address("10.96.3.4")}))
    assert texts(machine) == ["10.96.0.0/16", "10.244.0.9/32"]
    assert routing.inside(IPv4Address("10.96.77.1"))


async def test_the_helper_is_asked_only_for_a_change() -> None:
    machine = Machine()
    routing = machine.routing()
    await routing.moved(WELCOME)
    await routing.want(ranges=[SERVICES])
    await routing.want(ranges=[SERVICES])
    await routing.name(frozenset({IPv4Address("10.96.1.1")}))
    assert machine.helper.calls == 2


async def test_another_address_sets_all_routes_again() -> None:
    machine = Machine()
    routing = machine.routing()
    await routing.moved(WELCOME)
    await routing.moved(WELCOME)
    assert machine.helper.calls == 2


async def test_the_api_server_stays_outside_of_also() -> None:
    machine = Machine()
    routing = machine.routing(also=("172.30.0.0/30",))
    await routing.keep_outside([IPv4Address("172.30.0.2")])
    await routing.moved(WELCOME)
    assert not routing.inside(IPv4Address("172.30.0.2"))
    assert routing.inside(IPv4Address("172.30.0.1"))
    assert any("172.30.0.2" in note for note in routing.notes)


async def test_an_api_server_that_moves_is_followed() -> None:
    machine = Machine()
    routing = machine.routing(also=("172.30.0.0/24",))
    await routing.moved(WELCOME)
    await routing.keep_outside([IPv4Address("172.30.0.2")])
    await routing.keep_outside([IPv4Address("172.30.0.3")])
    assert not routing.inside(IPv4Address("172.30.0.2"))
    assert not routing.inside(IPv4Address("172.30.0.3"))


async def test_an_answer_of_dns_is_routed_unless_it_must_not_be() -> None:
    machine = Machine()
    routing = machine.routing(never=("10.50.0.0/16",))
    await routing.moved(WELCOME)
    await routing.name(frozenset({IPv4Address("10.60.0.1"), IPv4Address("10.50.0.1"), IPv4Address("127.0.0.1")}))
    assert routing.inside(IPv4Address("10.60.0.1"))
    assert not routing.inside(IPv4Address("10.50.0.1"))
    assert not routing.inside(IPv4Address("127.0.0.1"))


async def test_answers_of_dns_are_bounded() -> None:
    machine = Machine()
    routing = machine.routing()
    await routing.moved(WELCOME)
    first = IPv4Address("11.0.0.0")
    await routing.name(frozenset(first + number for number in range(MAX_NAMED + 10)))
    assert len(machine.helper.routes) == MAX_NAMED + 2


async def test_a_network_that_appears_is_left_alone() -> None:
    machine = Machine()
    routing = machine.routing()
    await routing.moved(WELCOME)
    await routing.want(ranges=[SERVICES])
    machine.network = Laptop(routes=(LocalRoute(IPv4Network("10.96.128.0/17"), "wlan0"),))
    await routing.refresh()
    assert texts(machine) == ["10.96.0.0/17", "10.244.0.9/32"]
    assert "wlan0" in routing.notes[0]


def test_a_range_that_is_none_is_an_error_of_the_command_line() -> None:
    with pytest.raises(UsageError, match="--also"):
        Machine().routing(also=("10.0.0.0/40",))
