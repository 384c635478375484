"""What is missing, in which order it is put back, and when it is not worth it any more."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from meshdev.host.upkeep import (
    MOST_REPAIRS,
    PAUSE_SECONDS,
    RESTLESS_REPAIRS,
    RESTLESS_SECONDS,
    WINDOW_SECONDS,
    DeviceState,
    Repairs,
    damages,
)

ADDRESS = IPv4Address("198.18.0.7")
ROUTES = tuple(IPv4Network((0x0A600000 + number, 32)) for number in range(5))
WHOLE = DeviceState(True, 1450, frozenset({ADDRESS}), frozenset(ROUTES))


@pytest.mark.parametrize(
    ("actual", "texts"),
    [
        (WHOLE, []),
        (
            replace(
                WHOLE, addresses=WHOLE.addresses | {ADDRESS + 1}, routes=WHOLE.routes | {IPv4Network("10.0.0.0/8")}
            ),
            [],
        ),
        (replace(WHOLE, up=False, mtu=9), ["tun was set down"]),
        (replace(WHOLE, mtu=1280), ["the MTU of tun was changed from 1450 to 1280"]),
        (replace(WHOLE, routes=WHOLE.routes - {ROUTES[1]}), ["the route 10.96.0.1/32 of tun was deleted"]),
        (
            DeviceState(False, 0, frozenset(), frozenset()),
            [
                "tun was set down",
                "the address 198.18.0.7 was removed from tun",
                "the routes 10.96.0.0/32, 10.96.0.1/32, 10.96.0.2/32 and 2 more of tun were deleted",
            ],
        ),
    ],
)
def test_damages(actual: DeviceState, texts: list[str]) -> None:
    assert [damage.text for damage in damages("tun", WHOLE, actual)] == texts


def test_all_missing_routes_are_named_for_the_repair() -> None:
    (damage,) = damages("tun", WHOLE, replace(WHOLE, routes=frozenset()))
    assert damage.routes == ROUTES


def test_repairs_are_made_at_once_until_there_are_too_many() -> None:
    repairs = Repairs()
    for number in range(MOST_REPAIRS):
        assert repairs.due(number / 10) == number / 10
        repairs.made(number / 10)
    last = (MOST_REPAIRS - 1) / 10
    assert repairs.due(last + 0.1) == last + PAUSE_SECONDS
    repairs.made(last + PAUSE_SECONDS)
    assert repairs.due(last + PAUSE_SECONDS + 0.1) == last + 2 * PAUSE_SECONDS
    assert not repairs.fighting(last + PAUSE_SECONDS + WINDOW_SECONDS)
    assert repairs.due(1000) == 1000


def test_what_is_put_back_all_the_time_is_restless() -> None:
    repairs = Repairs()
    for number in range(RESTLESS_REPAIRS):
        assert not repairs.restless(number / 4)
        repairs.made(number / 4)
    assert repairs.restless((RESTLESS_REPAIRS - 1) / 4)
    assert not repairs.restless(RESTLESS_SECONDS + 0.1)


def test_one_in_a_while_is_no_fight() -> None:
    repairs = Repairs()
    for number in range(10 * MOST_REPAIRS):
        now = number * WINDOW_SECONDS / (MOST_REPAIRS - 1)
        assert not repairs.fighting(now)
        repairs.made(now)
