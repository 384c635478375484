"""What other programs take away from the device is put back by the real helper, and what it cannot put back is said."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network

import pytest

from meshdev.host.upkeep import MOST_REPAIRS
from meshdev.wire.helper.answers import Beat
from tests.netns.helpers import ADDRESS, ROUTES, Connection, helper
from tests.netns.laptop import Laptop
from tests.waiting import until

#: Design: so long after something was taken away it is back.
REPAIRED_SECONDS = 2.0


async def state(laptop: Laptop) -> str:
    """Everything that others may change of the device."""
    routes = "ip route show dev meshdev0; ip route show table local dev meshdev0"
    shown = f"ip -d addr show meshdev0 | grep -v valid_lft; {routes}"
    return await asyncio.to_thread(laptop.run, "sh", "-c", shown)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("ip route del 10.96.0.0/16 dev meshdev0", "the route 10.96.0.0/16 of meshdev0 was deleted"),
        ("ip route flush dev meshdev0", "of meshdev0 were deleted"),
        ("ip link set meshdev0 down", "meshdev0 was set down"),
        ("ip link set meshdev0 down; ip link set meshdev0 up", "of meshdev0 were deleted"),
        ("ip link set meshdev0 mtu 1280", "the MTU of meshdev0 was changed from 1450 to 1280"),
        (f"ip addr del {ADDRESS}/32 dev meshdev0", f"the address {ADDRESS} was removed from meshdev0"),
        ("ip addr flush dev meshdev0", f"the address {ADDRESS} was removed from meshdev0"),
        (
            "ip route del 10.96.0.0/16 dev meshdev0; ip route add 10.96.0.0/16 via 192.0.2.1",
            "the route 10.96.0.0/16 of meshdev0 was deleted",
        ),
    ],
)
async def test_it_is_put_back(laptop: Laptop, harm: str, said: str) -> None:
    async with helper(laptop) as connection:
        await connection.set_up(dns=False)
        before = await state(laptop)
        await asyncio.to_thread(laptop.run, "sh", "-c", harm)
        start = time.monotonic()
        while await state(laptop) != before:
            assert time.monotonic() - start < REPAIRED_SECONDS, await state(laptop)
        print(f"put back within {time.monotonic() - start:.2f} s")
        beat = await connection.client.heartbeat()
        assert beat.problems == ()
        assert any(said in text for text in beat.repaired), beat
        assert (await connection.client.heartbeat()).repaired == ()


async def test_what_was_never_ours_is_not_put_back(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up(dns=False)
        await connection.client.add_routes([IPv4Network("10.7.0.1/32")])
        await connection.client.set_routes(ROUTES[:1])
        laptop.run("ip", "route", "del", "10.96.0.0/16", "dev", "meshdev0")
        await until(lambda: "10.96.0.0/16" in laptop.run("ip", "route"), REPAIRED_SECONDS)
        assert "10.7.0.1" not in laptop.run("ip", "route")
        assert "10.244.0.0" not in laptop.run("ip", "route")


@pytest.mark.parametrize("harm", ["ip link set meshdev0 down", "ip addr flush dev meshdev0"])
async def test_routes_are_taken_in_the_moment_of_a_harm(laptop: Laptop, harm: str) -> None:
    """A device that is down takes none, and neither does one without the address that the routes prefer."""
    async with helper(laptop) as connection:
        await connection.set_up(dns=False)
        for number in range(5):  # the helper may be quicker than we are, but not each time
            laptop.run("sh", "-c", harm)
            wanted = (*ROUTES, IPv4Network(f"10.7.0.{number}/32"))
            answer = await connection.client.set_routes(wanted)
            assert (set(answer.routes), answer.refused) == (set(wanted), ())


async def test_a_removed_device_is_told(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up()
        laptop.run("ip", "link", "del", "meshdev0")
        beat = await _beat_until(connection, lambda beat: beat.problems != ())
        assert beat.problems == ("meshdev0 was removed",)
        await connection.client.close()


async def test_a_fight_is_given_up_and_told(laptop: Laptop) -> None:
    """Another program that deletes our route whenever it sees it neither keeps the helper busy nor goes unsaid."""
    async with helper(laptop) as connection:
        await connection.set_up(dns=False)
        fighter = laptop.command(
            "sh", "-c", "while :; do ip route del 10.96.0.0/16 dev meshdev0 2>/dev/null || sleep 0.01; done"
        )
        process = await asyncio.create_subprocess_exec(*fighter)
        try:
            beat = await _beat_until(connection, lambda beat: "another program" in "".join(beat.problems), 3)
            beat = await _beat_until(connection, lambda beat: "once more" in "".join(beat.problems), 30)
            assert "10.96.0.0/16" in beat.problems[0]
            assert await _repairs(connection, 2.0) <= 1
        finally:
            process.kill()
            await process.wait()
        await _beat_until(connection, lambda beat: beat.problems == (), 10)
        assert "10.96.0.0/16" in laptop.run("ip", "route")
        assert MOST_REPAIRS > 1


async def _repairs(connection: Connection, seconds: float) -> int:
    """How many were reported in that time."""
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        count += len((await connection.client.heartbeat()).repaired)
        await asyncio.sleep(0.05)
    return count


async def _beat_until(connection: Connection, holds: Callable[[Beat], bool], seconds: float = 3) -> Beat:
    """The first beat for which *holds*."""
    found: list[Beat] = []

    async def asked() -> bool:
        found.append(await connection.client.heartbeat())
        return holds(found[-1])

    await _until(asked, seconds)
    return found[-1]


async def _until(condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, f"not within {seconds:g} s"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "harm", ["nft flush ruleset", "nft flush chain inet meshdev_0 guard", "nft delete table inet meshdev_0"]
)
def test_a_table_without_an_owner_is_put_back(laptop: Laptop, harm: str) -> None:
    """As the service of a packet filter does when it starts; with an owner nobody can (test_helper)."""
    code = f"""
import subprocess
from ipaddress import IPv4Address
from meshdev.helper.firewall import LaptopFirewall
from meshdev.helper.journal import JournalFile
from meshdev.wire.helper.requests import RelayTarget
class Old(LaptopFirewall):  # a kernel before 5.12
    def _probe(self):
        return False
def listed():
    return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
firewall = Old(JournalFile(0))
assert firewall.put_back() is None
firewall.guard("meshdev0", IPv4Address("198.18.0.7"))
firewall.redirect_dns({{IPv4Address("192.0.2.1"): 5300}})
firewall.forward_relays("meshdev0", [RelayTarget(20001, "tcp", IPv4Address("127.0.0.1"), 8080)])
before = listed()
assert "20001" in before and "5300" in before
assert firewall.put_back() is None
subprocess.run("{harm}", shell=True, check=True)
assert listed() != before
assert firewall.put_back() == "our nftables table was changed or deleted"
assert listed() == before
assert firewall.put_back() is None
firewall.close()
assert listed() == ""
assert firewall.put_back() is None
"""
    assert laptop.run(sys.executable, "-I", "-c", code) == ""
