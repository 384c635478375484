"""The laptop's DNS comes to the forwarder and goes back, whatever happens to the session."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from meshdev.errors import FirewallError
from meshdev.helper.firewall import MARK
from meshdev.session.helper_client import ForwarderSockets
from meshdev.wire.helper.limits import BEAT_LIMIT_SECONDS
from tests.netns.helpers import ADDRESS, helper, leftovers, restore
from tests.netns.laptop import GATEWAY, RESOLV_CONF, Laptop
from tests.netns.resolver import Resolver, ask_tcp, ask_udp, listening
from tests.waiting import until

_GATEWAY6 = "fd00::1"


@contextmanager
def _former(laptop: Laptop, address: str = GATEWAY) -> Iterator[None]:
    """The resolver that the laptop had before us."""
    with laptop.inside(neighbour=True):
        resolver = Resolver("former", *listening(address))
    try:
        yield
    finally:
        resolver.close()


@contextmanager
def _forwarder(sockets: ForwarderSockets) -> Iterator[None]:
    """A stand-in for the forwarder on the helper's last listener for this machine's own programs."""
    listener = [listener for listener in sockets.listeners if listener.at.address.is_loopback][-1]
    listener.udp.setblocking(True)
    listener.tcp.setblocking(True)
    resolver = Resolver("forwarder", listener.udp.dup(), listener.tcp.dup())
    try:
        yield
    finally:
        resolver.close()


def _udp(laptop: Laptop, server: str = GATEWAY) -> socket.socket:
    with laptop.inside():
        return socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)


def _asked_over_tcp(laptop: Laptop, server: str = GATEWAY) -> str:
    with laptop.inside():
        sock = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET)
    return ask_tcp(sock, server)


def _asked(laptop: Laptop, server: str = GATEWAY) -> tuple[str, str]:
    """Who answers a new question over UDP, and over TCP."""
    with _udp(laptop, server) as sock:
        return ask_udp(sock, server), _asked_over_tcp(laptop, server)


async def test_redirect_and_the_way_past_it(laptop: Laptop) -> None:
    with _former(laptop), _udp(laptop) as old:
        assert ask_udp(old, GATEWAY) == "former"
        async with helper(laptop) as connection:
            await connection.set_up()
            assert connection.sockets is not None
            with _forwarder(connection.sockets):
                assert await asyncio.to_thread(_asked, laptop) == ("forwarder", "forwarder")
                # A socket that had its flow tracked before us: forgotten, or it would go past the redirect.
                assert ask_udp(old, GATEWAY) == "forwarder"
                upstreams = connection.sockets.upstreams[IPv4Address(GATEWAY)]
                assert len(upstreams) == 4
                assert len({sock.getsockname() for sock in upstreams}) == 4
                for sock in upstreams:
                    assert ask_udp(sock) == "former"
                tcp = await connection.client.upstream_tcp(IPv4Address(GATEWAY))
                assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == MARK
                assert ask_tcp(tcp, GATEWAY) == "former"
                # Other servers than resolv.conf's are asked as ever: nobody listens on this one.
                assert ask_udp(old, "192.0.2.99", 0.2) == "nobody"
            await connection.client.close()
        assert ask_udp(old, GATEWAY) == "former"
        assert _asked(laptop) == ("former", "former")


async def test_a_silent_session_loses_dns_and_gets_it_back(laptop: Laptop) -> None:
    with _former(laptop), _udp(laptop) as old:
        async with helper(laptop) as connection:
            await connection.set_up()
            assert connection.sockets is not None
            assert (await connection.client.heartbeat()).active
            # The session is stopped: it neither answers nor beats.
            assert ask_udp(old, GATEWAY, 0.2) == "nobody"
            assert ask_udp(old, GATEWAY, 0.2) == "nobody"
            # The retries on the same socket.
            await until(lambda: ask_udp(old, GATEWAY, 0.2) == "former", BEAT_LIMIT_SECONDS + 0.7)
            assert _asked(laptop) == ("former", "former")
            # It goes on.
            beat = await connection.client.heartbeat()
            assert beat.active
            with _forwarder(connection.sockets):
                assert await asyncio.to_thread(_asked, laptop) == ("forwarder", "forwarder")


async def test_redirect_follows_another_network(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up()
        assert connection.sockets is not None
        laptop.run("sh", "-c", "printf 'nameserver 192.0.2.77\\nsearch cafe.example\\n' > /etc/resolv.conf")
        beat = await connection.client.heartbeat()
        assert beat.nameservers == (IPv4Address("192.0.2.77"),)
        assert beat.search == ("cafe.example",)
        with _forwarder(connection.sockets):
            assert await asyncio.to_thread(_asked, laptop, "192.0.2.77") == ("forwarder", "forwarder")
        fresh = await connection.client.dns_sockets(beat.nameservers)
        assert fresh.listeners[0].at == replace(connection.sockets.listeners[0].at, server=IPv4Address("192.0.2.77"))
        fresh.close()


async def test_redirect_of_an_ipv6_nameserver(laptop: Laptop) -> None:
    laptop.run("ip", "addr", "add", "fd00::2/64", "dev", "cable", "nodad")
    with laptop.inside(neighbour=True):
        pass
    async with helper(laptop) as connection:
        await connection.set_up()  # in a network without IPv6
        laptop.run("sh", "-c", f"printf 'nameserver {_GATEWAY6}\\n' > /etc/resolv.conf")
        beat = await connection.client.heartbeat()
        connection.sockets = await connection.client.dns_sockets(beat.nameservers)
        await connection.client.set_dns(["default.svc.cluster.local"], ["."])
        assert [str(listener.at.address) for listener in connection.sockets.listeners] == ["::1", str(ADDRESS)]
        assert len(connection.sockets.upstreams[IPv6Address(_GATEWAY6)]) == 4
        with _forwarder(connection.sockets):
            assert await asyncio.to_thread(_asked, laptop, _GATEWAY6) == ("forwarder", "forwarder")


async def test_each_nameserver_has_a_listener_of_its_own(laptop: Laptop) -> None:
    servers = ("127.0.0.1", GATEWAY)
    laptop.run("sh", "-c", "printf 'nameserver %s\\n' " + " ".join(servers) + " > /etc/resolv.conf")
    async with helper(laptop) as connection:
        await connection.set_up()
        assert connection.sockets is not None
        listeners = {str(listener.at.server): listener for listener in connection.sockets.listeners}
        for server in servers:
            resolver = Resolver(f"for {server}", listeners[server].udp.dup(), listeners[server].tcp.dup())
            try:
                assert await asyncio.to_thread(_asked, laptop, server) == (f"for {server}",) * 2
            finally:
                resolver.close()


async def test_a_loopback_nameserver_is_redirected_and_still_asked_past_it(laptop: Laptop) -> None:
    laptop.run("sh", "-c", "printf 'nameserver 127.0.0.11\\n' > /etc/resolv.conf")
    with laptop.inside():
        resolver = Resolver("former", *listening("127.0.0.11"))
    async with helper(laptop) as connection:
        await connection.set_up()
        assert connection.sockets is not None
        with _forwarder(connection.sockets):
            assert await asyncio.to_thread(_asked, laptop, "127.0.0.11") == ("forwarder", "forwarder")
            assert ask_udp(connection.sockets.upstreams[IPv4Address("127.0.0.11")][0]) == "former"
    resolver.close()


# The redirect and the laptop's search list


async def test_the_clusters_search_domain_comes_first_and_goes(laptop: Laptop) -> None:
    inode = laptop.run("stat", "-c", "%i", "/etc/resolv.conf")
    async with helper(laptop) as connection:
        assert connection.greeting.dns == "redirect"
        await connection.set_up()
        lines = _resolv_conf(laptop).splitlines()
        assert lines[1:3] == [f"nameserver {GATEWAY}", "search default.svc.cluster.local home.example"]
        beat = await connection.client.heartbeat()
        assert (beat.nameservers, beat.search) == ((IPv4Address(GATEWAY),), ("home.example",))
        # The session is silent: its name servers are not asked any more, and its names not searched.
        await until(lambda: _resolv_conf(laptop) == RESOLV_CONF, BEAT_LIMIT_SECONDS + 0.7)
        assert (await connection.client.heartbeat()).active
        assert _resolv_conf(laptop).splitlines() == [*lines]
        await connection.client.close()
    assert _resolv_conf(laptop) == RESOLV_CONF
    assert laptop.run("stat", "-c", "%i", "/etc/resolv.conf") == inode


async def test_a_laptop_without_search_list_keeps_its_file(laptop: Laptop) -> None:
    laptop.run("sh", "-c", f"printf 'nameserver {GATEWAY}\\n' > /etc/resolv.conf")
    before = laptop.run("stat", "-c", "%i %Y %s", "/etc/resolv.conf")
    async with helper(laptop) as connection:
        await connection.set_up()
        await connection.client.heartbeat()
        assert laptop.run("stat", "-c", "%i %Y %s", "/etc/resolv.conf") == before


async def test_the_search_list_of_another_network(laptop: Laptop) -> None:
    other = "nameserver 192.0.2.77\nsearch cafe.example\n"
    async with helper(laptop) as connection:
        await connection.set_up()
        laptop.run("sh", "-c", f"printf '{other}' > /etc/resolv.conf")
        beat = await connection.client.heartbeat()
        assert (beat.nameservers, beat.search) == ((IPv4Address("192.0.2.77"),), ("cafe.example",))
        lines = _resolv_conf(laptop).splitlines()
        assert lines[1:3] == ["nameserver 192.0.2.77", "search default.svc.cluster.local cafe.example"]
    assert _resolv_conf(laptop) == other


async def test_a_file_that_cannot_be_written_costs_no_more_than_the_order(laptop: Laptop) -> None:
    laptop.run("mount", "-o", "remount,ro,bind", "/etc/resolv.conf")
    async with helper(laptop) as connection:
        await connection.set_up()
        beat = await connection.client.heartbeat()
        assert beat.active
        assert beat.problems == ()
        assert _resolv_conf(laptop) == RESOLV_CONF
    laptop.run("mount", "-o", "remount,rw,bind", "/etc/resolv.conf")


async def test_the_file_is_as_before_though_the_helper_was_killed(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up()
        assert _resolv_conf(laptop) != RESOLV_CONF
        connection.kill_helper()
        await until(lambda: _resolv_conf(laptop) == RESOLV_CONF, 2)
        connection.drop()
        await connection.helper_ended()
        assert leftovers(laptop) == []


async def test_the_file_is_restored_after_sigkill_of_everything(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up()
        connection.kill_both()
        connection.drop()
        await connection.helper_ended()
        assert leftovers(laptop) == ["the former /etc/resolv.conf"]
        assert json.loads(restore(laptop).stdout)["undone"] == ["the former /etc/resolv.conf"]
        assert _resolv_conf(laptop) == RESOLV_CONF


# The way without nftables


@pytest.fixture
def bare_laptop(laptop: Laptop) -> Laptop:
    """A laptop without libnftables."""
    laptop.hide_nftables()
    return laptop


def _resolv_conf(laptop: Laptop) -> str:
    return laptop.run("cat", "/etc/resolv.conf")


async def test_without_a_packet_filter_there_is_no_device(bare_laptop: Laptop) -> None:
    before = bare_laptop.snapshot()
    async with helper(bare_laptop) as connection:
        with pytest.raises(FirewallError, match=r"no packet filter .* libnftables.so.1 is not installed") as refused:
            await connection.client.open_tun(1)
        assert "--unguarded" in str(refused.value.hint)
        assert bare_laptop.snapshot() == before


async def test_file(bare_laptop: Laptop) -> None:
    inode = bare_laptop.run("stat", "-c", "%i", "/etc/resolv.conf")
    async with helper(bare_laptop) as connection:
        assert connection.greeting.dns == "file"
        assert "nft=no" in connection.greeting.why
        connection.device = await connection.client.open_tun(1, unguarded=True)
        answer = await connection.client.set_address(IPv4Address("198.18.0.7"), 1450)
        assert not answer.guard
        assert "libnftables.so.1 is not installed" in str(answer.note)
        connection.sockets = await connection.client.dns_sockets(connection.greeting.nameservers)
        await connection.client.set_dns(["default.svc.cluster.local"], ["."])
        lines = _resolv_conf(bare_laptop).splitlines()
        assert lines[1:3] == ["nameserver 127.0.0.153", "search default.svc.cluster.local home.example"]
        assert (await connection.client.heartbeat()).nameservers == (IPv4Address(GATEWAY),)
        with _forwarder(connection.sockets):
            assert await asyncio.to_thread(_asked, bare_laptop, "127.0.0.153") == ("forwarder", "forwarder")
        await until(lambda: _resolv_conf(bare_laptop) == RESOLV_CONF, BEAT_LIMIT_SECONDS + 0.2)
        assert (await connection.client.heartbeat()).active
        assert "127.0.0.153" in _resolv_conf(bare_laptop)
    assert _resolv_conf(bare_laptop) == RESOLV_CONF
    assert bare_laptop.run("stat", "-c", "%i", "/etc/resolv.conf") == inode


async def test_file_is_restored_after_sigkill_of_everything(bare_laptop: Laptop) -> None:
    async with helper(bare_laptop) as connection:
        await connection.set_up(unguarded=True)
        connection.kill_both()
        connection.drop()
        await connection.helper_ended()
        assert "127.0.0.153" in _resolv_conf(bare_laptop)
        assert leftovers(bare_laptop) == ["the former /etc/resolv.conf"]
        bare_laptop.run("mount", "-o", "remount,ro,bind", "/etc/resolv.conf")
        failed = restore(bare_laptop)
        assert failed.returncode == 50
        assert "/etc/resolv.conf cannot be written" in json.loads(failed.stderr)["error"]["message"]
        bare_laptop.run("mount", "-o", "remount,rw,bind", "/etc/resolv.conf")
        assert json.loads(restore(bare_laptop).stdout)["undone"] == ["the former /etc/resolv.conf"]
        assert _resolv_conf(bare_laptop) == RESOLV_CONF
        assert leftovers(bare_laptop) == []


async def test_file_is_restored_after_the_power_went(bare_laptop: Laptop) -> None:
    async with helper(bare_laptop) as connection:
        await connection.set_up(unguarded=True)
        assert leftovers(bare_laptop, 1234) == []  # another user's, and alive
        connection.kill_both()
        connection.drop()
        await connection.helper_ended()
        bare_laptop.run("sh", "-c", "rm /run/meshdev/*")  # what was in memory
        assert leftovers(bare_laptop, 1234) == ["the former /etc/resolv.conf"]
        ours = _resolv_conf(bare_laptop)
        assert json.loads(restore(bare_laptop).stdout)["undone"] == ["the former /etc/resolv.conf"]
        assert _resolv_conf(bare_laptop) == RESOLV_CONF
        bare_laptop.run("sh", "-c", f"printf '{ours}' > /etc/resolv.conf")
        async with helper(bare_laptop) as second:
            assert second.greeting.nameservers == (IPv4Address(GATEWAY),)
            assert _resolv_conf(bare_laptop) == RESOLV_CONF


async def test_a_file_that_somebody_else_wrote_meanwhile_is_the_former_one(bare_laptop: Laptop) -> None:
    other = "nameserver 192.0.2.77\n"
    async with helper(bare_laptop) as connection:
        await connection.set_up(unguarded=True)
        bare_laptop.run("sh", "-c", f"printf '{other}' > /etc/resolv.conf")
        beat = await connection.client.heartbeat()
        assert beat.nameservers == (IPv4Address("192.0.2.77"),)
        assert "127.0.0.153" in _resolv_conf(bare_laptop)
    assert _resolv_conf(bare_laptop) == other


async def test_a_file_that_cannot_be_written_is_an_error_and_stays(bare_laptop: Laptop) -> None:
    async with helper(bare_laptop) as connection:
        await connection.set_up(dns=False, unguarded=True)
        connection.sockets = await connection.client.dns_sockets([])
        bare_laptop.run("mount", "-o", "remount,ro,bind", "/etc/resolv.conf")
        with pytest.raises(Exception, match="cannot be written"):
            await connection.client.set_dns([], ["."])
        assert not (await connection.client.heartbeat()).active
        bare_laptop.run("mount", "-o", "remount,rw,bind", "/etc/resolv.conf")
    assert _resolv_conf(bare_laptop) == RESOLV_CONF
