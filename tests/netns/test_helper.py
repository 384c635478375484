"""The real helper against the real kernel: what it does, and that nothing of it is left, whatever dies."""

import asyncio
import json
import os
import signal
import socket
import sys
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import pytest

from meshdev.errors import AlreadyConnectedError, DeviceError, LaptopError, RouteError
from meshdev.session.helper_client import HelperClient
from meshdev.session.surroundings import look, sources
from meshdev.wire.helper.limits import MAX_ROUTES
from tests.netns.helpers import ADDRESS, ROUTES, Connection, helper, launch, leftovers, restore
from tests.netns.laptop import ADDRESS as OWN
from tests.netns.laptop import GATEWAY, Laptop
from tests.netns.packets import datagram


async def test_it_greets_with_what_it_found(laptop: Laptop) -> None:
    async with helper(laptop, uid=1234) as connection:
        greeting = connection.greeting
        assert greeting.uid == 1234
        assert greeting.dns == "redirect"
        assert greeting.why == f"nameservers={GATEWAY} stub=no resolved=no nft=yes"
        assert greeting.nameservers == (IPv4Address(GATEWAY),)
        assert greeting.search == ("home.example",)
        assert os.getsid(greeting.pid) not in {os.getsid(0), greeting.pid}  # no leader: it can never get a terminal


async def test_device_address_and_routes(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        device = await connection.client.open_tun(3)
        connection.device = device
        assert (device.name, len(device.queues)) == ("meshdev0", 3)
        answer = await connection.client.set_address(ADDRESS, 1450)
        assert (answer.guard, answer.note) == (True, None)
        link = laptop.run("ip", "-d", "addr", "show", "meshdev0")
        assert "mtu 1450" in link
        assert "qlen 1000" in link
        assert "inet 198.18.0.7/32 scope global" in link
        assert "inet6" not in link
        assert "persist off" in link

        said = await connection.client.set_routes(ROUTES)
        assert said.routes == tuple(sorted(ROUTES))
        assert "10.96.0.0/16 dev meshdev0 proto 253 scope link src 198.18.0.7" in laptop.run("ip", "route")
        again = await connection.client.set_routes(ROUTES)
        assert again == said
        more = await connection.client.add_routes([IPv4Network("10.7.0.1/32"), ROUTES[0]])
        assert set(more.routes) == {IPv4Network("10.7.0.1/32"), ROUTES[0]}
        fewer = await connection.client.set_routes(ROUTES[:1])
        assert fewer.routes == ROUTES[:1]


async def test_a_route_that_exists_is_refused_and_does_not_stop_the_others(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up(dns=False)
        with laptop.inside():
            ours = str(socket.if_nametoindex("meshdev0"))
        laptop.run("ip", "route", "add", "10.7.0.0/24", "via", GATEWAY, "metric", ours)
        said = await connection.client.set_routes([IPv4Network("10.7.0.0/24"), IPv4Network("10.8.0.0/24")])
        assert said.routes == (IPv4Network("10.8.0.0/24"),)
        assert [(str(item.route), "already" in item.reason) for item in said.refused] == [("10.7.0.0/24", True)]
        again = await connection.client.add_routes([IPv4Network("10.7.0.0/24"), IPv4Network("10.8.0.0/24")])
        assert again == said
        assert (await connection.client.set_routes([])).routes == ()
        assert f"10.7.0.0/24 via {GATEWAY}" in laptop.run("ip", "route")


async def test_there_is_an_end_to_routes(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up(dns=False)
        many = [IPv4Network((0x0A000000 + number, 32)) for number in range(MAX_ROUTES)]
        with pytest.raises(RouteError, match="at most"):
            await connection.client.add_routes(many)
        assert len((await connection.client.set_routes(many)).routes) == MAX_ROUTES
        with pytest.raises(RouteError, match="at most"):
            await connection.client.add_routes(ROUTES[:1])


async def test_another_address_takes_the_place_of_the_first(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up(dns=False)
        await connection.client.set_address(IPv4Address("198.19.1.2"), 1400)
        link = laptop.run("ip", "addr", "show", "meshdev0")
        assert "198.19.1.2/32" in link
        assert "198.18.0.7" not in link
        assert (await connection.client.set_routes(ROUTES)).routes == tuple(sorted(ROUTES))


async def test_requests_out_of_order_are_refused_with_a_reason(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        with pytest.raises(DeviceError, match="before open_tun"):
            await connection.client.set_address(ADDRESS, 1450)
        with pytest.raises(DeviceError, match="before open_tun"):
            await connection.client.set_routes(ROUTES)
        await connection.set_up(dns=False)
        with pytest.raises(DeviceError, match="open already"):
            await connection.client.open_tun(1)


async def test_the_session_sees_the_laptop_without_us(laptop: Laptop) -> None:
    with laptop.inside():
        before = look(())
    async with helper(laptop) as connection:
        await connection.set_up(dns=False)
        with laptop.inside():
            assert replace(look(()), sessions=()) == before
            assert look(()).sessions == (ADDRESS,)
    assert [str(route.network) for route in before.routes] == ["192.0.2.0/24"]
    assert before.gateways == (IPv4Address(GATEWAY),)
    assert IPv4Address("192.0.2.2") in before.addresses


async def test_the_way_to_the_resolvers_is_seen_to_change(laptop: Laptop) -> None:
    resolvers = (IPv4Address(GATEWAY), IPv6Address("2001:db8::1"), IPv6Address("fe80::1%lo"))
    with laptop.inside():
        assert sources(resolvers[:2]) == (OWN, None)
        laptop.run("ip", "addr", "replace", "198.51.100.7/24", "dev", "cable")
        laptop.run("ip", "route", "replace", "192.0.2.0/24", "dev", "cable", "src", "198.51.100.7")
        assert sources(resolvers[:1]) == ("198.51.100.7",)
        laptop.run("ip", "link", "set", "cable", "down")
        assert sources(resolvers[:1]) == (None,)
        laptop.run("ip", "addr", "add", "fe80::2/64", "dev", "lo", "nodad")
        assert sources(resolvers[2:]) == ("fe80::2",)


async def test_only_what_was_asked_for_comes_in(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up(dns=False)
        assert connection.device is not None
        queue = connection.device.queues[0].fileno()
        with laptop.inside():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            sock.bind((str(ADDRESS), 4000))
            sock.settimeout(0.3)
            os.writev(queue, [datagram("10.96.0.9", 53, 4000)])
            with pytest.raises(TimeoutError):
                sock.recv(100)
            sock.sendto(b"question", ("10.96.0.9", 53))
            os.writev(queue, [datagram("10.96.0.9", 53, 4000)])
            assert sock.recv(100) == b"hello"


async def test_the_tunnel_cannot_answer_for_another_network(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up(dns=False)
        assert connection.device is not None
        queue = connection.device.queues[0].fileno()
        with laptop.inside():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            sock.bind((OWN, 4000))
            sock.settimeout(0.3)
            sock.sendto(b"question", (GATEWAY, 53))  # by the cable, where nobody answers
            os.writev(queue, [datagram(GATEWAY, 53, 4000, OWN)])
            with pytest.raises((TimeoutError, ConnectionRefusedError)):
                sock.recv(100)


async def test_nothing_comes_in_while_the_address_changes(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up(dns=False)
        assert connection.device is not None
        queue = connection.device.queues[0].fileno()
        with laptop.inside():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            sock.bind(("", 4000))
            sock.setblocking(False)
            for number in range(50):
                moving = asyncio.ensure_future(connection.client.set_address(ADDRESS + number % 2, 1450))
                while not moving.done():
                    for address in (ADDRESS, ADDRESS + 1):
                        os.writev(queue, [datagram("10.96.0.9", 53, 4000, str(address))])
                    await asyncio.sleep(0)
                await moving
            with pytest.raises(BlockingIOError):
                sock.recv(100)


@pytest.mark.parametrize("end", ["close", "eof", "sigterm", "sighup", "sigkill", "garbage", "session killed"])
async def test_nothing_is_left_whatever_ends_it(laptop: Laptop, end: str) -> None:
    before = laptop.snapshot()
    async with helper(laptop) as connection:
        await connection.set_up()
        assert laptop.snapshot() != before
        await _end(connection, end)
        async with asyncio.timeout(5):
            await connection.client.gone.wait()
        if end == "sigkill":
            connection.drop()  # the session ends with its helper
        await connection.helper_ended()
        assert laptop.snapshot() == before
        assert leftovers(laptop) == []
        assert laptop.run("ls", "/run/meshdev") == "0.lock\n"


async def _end(connection: Connection, end: str) -> None:
    match end:
        case "close":
            await connection.client.close()
        case "eof":
            connection.client.abandon()
        case "sigterm":
            connection.kill_helper(signal.SIGTERM)
        case "sighup":
            connection.kill_helper(signal.SIGHUP)
        case "sigkill":
            connection.kill_helper()
        case "garbage":
            connection.client._sock.send(b'{"id": 9, "op": "set_routes", "routes": ["0.0.0.0/0"]}\n')
        case "session killed":
            connection.drop()


async def test_killed_processes_with_a_frozen_session_need_restore(laptop: Laptop) -> None:
    before = laptop.snapshot()
    async with helper(laptop) as connection:
        await connection.set_up()
        assert leftovers(laptop) == []
        live = json.loads(restore(laptop).stdout)
        assert live == {"live": True, "undone": [], "failed": []}
        connection.kill_both()
        await connection.helper_ended()
        left = ["network device meshdev0", "the former /etc/resolv.conf"]  # this laptop has a search list
        assert leftovers(laptop) == left
        done = restore(laptop)
        assert json.loads(done.stdout) == {"live": False, "undone": left[::-1], "failed": []}
        assert done.returncode == 0
        assert laptop.snapshot() == before
        assert leftovers(laptop) == []
        assert json.loads(restore(laptop).stdout) == {"live": False, "undone": [], "failed": []}


async def test_the_next_helper_undoes_what_a_dead_one_left(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up()
        connection.kill_both()
        await connection.helper_ended()
        assert "meshdev0" in laptop.run("ip", "link")
        async with helper(laptop) as second:
            assert "meshdev0" not in laptop.run("ip", "link")
            await second.set_up()


async def test_one_connection_a_user(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up(dns=False)
        other = HelperClient(launch(laptop))
        with pytest.raises(AlreadyConnectedError):
            await other.greeting(5)
        with pytest.raises(LaptopError):
            await other.heartbeat()
        async with helper(laptop, uid=1234) as second:
            device = await second.client.open_tun(1)
            assert device.name == "meshdev1"
            device.close()


async def test_a_foreign_device_of_the_journaled_name_is_left_alone(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up(dns=False)
        connection.kill_both()
        await connection.helper_ended()
        connection.drop()
        laptop.run("ip", "link", "add", "meshdev0", "type", "veth")
        assert leftovers(laptop) == []
        assert json.loads(restore(laptop).stdout) == {"live": False, "undone": [], "failed": []}
        assert "meshdev0" in laptop.run("ip", "link")


async def test_it_is_small_and_quick(laptop: Laptop) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with helper(laptop) as connection:
        assert loop.time() - start < 2  # 0.13 s on an idle machine
        await connection.set_up()
        assert _memory(connection.greeting.pid) < 40_000


def test_without_a_socket_or_root_it_says_why(laptop: Laptop) -> None:
    code = f"{sys.executable} -I -m meshdev.helper < /dev/null 2>&1; echo $?"
    said = laptop.run("sh", "-c", code).splitlines()
    assert "not the session's socket" in json.loads(said[0])["error"]["message"]
    assert said[1] == "50"
    code = f"setpriv --reuid=65534 --clear-groups {sys.executable} -I -m meshdev.helper 2>&1; echo $?"
    said = laptop.run("sh", "-c", code).splitlines()
    assert json.loads(said[0])["error"]["code"] == "sudo"
    assert said[1] == "52"


def test_a_table_without_an_owner_is_journaled_and_restored(laptop: Laptop) -> None:
    before = laptop.snapshot()
    code = """
import os
from ipaddress import IPv4Address
from meshdev.helper.firewall import LaptopFirewall
from meshdev.helper.journal import JournalFile
class Old(LaptopFirewall):  # a kernel before 5.12
    def _probe(self):
        return False
firewall = Old(JournalFile(0))
firewall.guard("meshdev0", IPv4Address("198.18.0.7"))
os._exit(9)
"""
    laptop.run("sh", "-c", f"{sys.executable} -I -c '{code}' || true")
    assert "table inet meshdev_0" in laptop.run("nft", "list", "tables")
    assert leftovers(laptop) == ["nft table inet meshdev_0"]
    assert json.loads(restore(laptop).stdout)["undone"] == ["nft table inet meshdev_0"]
    assert leftovers(laptop) == []
    assert laptop.snapshot() == before


async def test_others_cannot_touch_the_table(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up()
        rules = laptop.run("nft", "list", "table", "inet", "meshdev_0")
        laptop.run("sh", "-c", "! nft delete table inet meshdev_0")
        laptop.run("nft", "flush", "ruleset")
        assert laptop.run("nft", "list", "table", "inet", "meshdev_0") == rules


def _memory(pid: int) -> int:
    """Resident, in KB."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line)
    return int(line.split()[1])
