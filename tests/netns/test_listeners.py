"""The forwarder's listeners: a port is found on a busy machine, and only this machine reaches them."""

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from meshdev.helper.sockets import close_all, listeners
from tests.netns.helpers import ADDRESS, helper
from tests.netns.laptop import ADDRESS as OWN
from tests.netns.laptop import Laptop
from tests.netns.resolver import Resolver, ask_tcp, ask_udp, listening

_LOCALHOST = IPv4Address("127.0.0.1")
_PORTS = range(40000, 40032)


@contextlib.contextmanager
def _taken(laptop: Laptop, kind: socket.SocketKind, ports: range) -> Iterator[None]:
    """Other programs of the laptop have those ports of 127.0.0.1."""
    with contextlib.ExitStack() as stack:
        with laptop.inside():
            for port in ports:
                sock = stack.enter_context(socket.socket(socket.AF_INET, kind))
                sock.bind(("127.0.0.1", port))
                if kind == socket.SOCK_STREAM:
                    sock.listen()
        yield


def _found(laptop: Laptop) -> list[int]:
    """The ports of 20 pairs of listeners, which are open at once."""
    made = []
    try:
        with laptop.inside():
            made = [listeners(_LOCALHOST, 0) for _ in range(20)]
        ports = [{sock.getsockname() for sock in pair} for pair in made]
        assert all(len(one) == 1 for one in ports)
        return [one.pop()[1] for one in ports]
    finally:
        for pair in made:
            close_all(pair)


@pytest.fixture
def busy_laptop(laptop: Laptop) -> Laptop:
    """A laptop with 32 ports for programs that do not choose one."""
    laptop.run("sysctl", "-qw", f"net.ipv4.ip_local_port_range={_PORTS.start} {_PORTS.stop - 1}")
    return laptop


@pytest.mark.parametrize("scarce", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_a_port_that_only_one_protocol_has_free_is_not_taken(busy_laptop: Laptop, scarce: socket.SocketKind) -> None:
    with _taken(busy_laptop, scarce, _PORTS[:12]):
        assert sorted(_found(busy_laptop)) == list(_PORTS[12:])


def test_there_are_ports_beside_the_kernels_choice(busy_laptop: Laptop) -> None:
    with _taken(busy_laptop, socket.SOCK_STREAM, _PORTS), _taken(busy_laptop, socket.SOCK_DGRAM, _PORTS):
        assert not {*_found(busy_laptop)} & {*_PORTS}


async def test_a_helper_gets_its_listeners_on_a_busy_machine(busy_laptop: Laptop) -> None:
    with _taken(busy_laptop, socket.SOCK_STREAM, _PORTS[:-1]), _taken(busy_laptop, socket.SOCK_DGRAM, _PORTS[:12]):
        async with helper(busy_laptop) as connection:
            await connection.set_up()
            assert connection.sockets is not None
            assert connection.sockets.listeners[0].at.port == _PORTS[-1]


def _neighbour(laptop: Laptop, kind: socket.SocketKind) -> socket.socket:
    with laptop.inside(neighbour=True):
        return socket.socket(socket.AF_INET, kind)


def test_only_this_machine_is_answered_without_a_packet_filter_too(laptop: Laptop) -> None:
    """The listener of systemd-resolved's way: port 53 of the session's address."""
    laptop.run("ip", "tuntap", "add", "dev", "tun7", "mode", "tun")
    laptop.run("ip", "link", "set", "tun7", "up")
    laptop.run("ip", "addr", "add", f"{ADDRESS}/32", "dev", "tun7")
    laptop.route_to_session(ADDRESS)
    with laptop.inside():
        resolver = Resolver("forwarder", *_blocking(listeners(ADDRESS, 53)))
        own_udp, own_tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
    try:
        with own_udp, _neighbour(laptop, socket.SOCK_DGRAM) as udp:
            assert ask_udp(own_udp, str(ADDRESS)) == "forwarder"
            assert ask_tcp(own_tcp, str(ADDRESS)) == "forwarder"
            assert ask_udp(udp, str(ADDRESS), 0.3) == "nobody"
            assert ask_tcp(_neighbour(laptop, socket.SOCK_STREAM), str(ADDRESS)) == "nobody"
    finally:
        resolver.close()


def test_a_socket_connected_while_the_address_was_missing_is_answered(laptop: Laptop) -> None:
    """It keeps the source address of the route at that time; systemd-resolved sends its repetitions by it."""
    laptop.run("ip", "tuntap", "add", "dev", "tun7", "mode", "tun")
    laptop.run("ip", "link", "set", "tun7", "up")
    with laptop.inside():
        udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
        udp.connect((str(ADDRESS), 53))
        tcp.bind((OWN, 0))
    laptop.run("ip", "addr", "add", f"{ADDRESS}/32", "dev", "tun7")
    with laptop.inside():
        resolver = Resolver("forwarder", *_blocking(listeners(ADDRESS, 53)))
    try:
        assert udp.getsockname()[0] == OWN
        assert ask_udp(udp) == "forwarder"
        assert ask_tcp(tcp, str(ADDRESS)) == "forwarder"
    finally:
        udp.close()
        resolver.close()


async def test_neighbours_reach_nothing_at_the_sessions_address(laptop: Laptop) -> None:
    laptop.route_to_session(ADDRESS)
    with laptop.inside():
        resolver = Resolver("any program", *listening("0.0.0.0"))
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        async with helper(laptop) as connection:
            await connection.set_up(dns=False)
            with own, _neighbour(laptop, socket.SOCK_DGRAM) as udp:
                assert ask_udp(own, str(ADDRESS)) == "any program"
                assert ask_udp(udp, OWN) == "any program"
                assert ask_tcp(_neighbour(laptop, socket.SOCK_STREAM), OWN) == "any program"
                assert ask_udp(udp, str(ADDRESS), 0.3) == "nobody"
                assert ask_tcp(_neighbour(laptop, socket.SOCK_STREAM), str(ADDRESS)) == "nobody"
    finally:
        resolver.close()


def _blocking(pair: list[socket.socket]) -> list[socket.socket]:
    for sock in pair:
        sock.setblocking(True)
    return pair
