"""Local ports: who listens, told at once and at each change; a copier where only ::1 does."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import IPv4Address

import pytest

from meshdev.netlink.sock import Netlink
from meshdev.session import local
from meshdev.session.local import Family, LocalPorts, LocalTarget, Look, kernel_look
from meshdev.wire.ports import TRANSPORTS, Transport
from tests.waiting import until

LOCALHOST = IPv4Address("127.0.0.1")


class Machine:
    """Ports and by what the loopback answers at them."""

    def __init__(self) -> None:
        self.open: dict[int, Family] = {}
        self.looks = 0
        self.broken = False

    def _look(self, port: int, _: Transport) -> Family | None:
        self.looks += 1
        if self.broken:
            raise OSError(errno.ENOBUFS, "no buffer")
        return self.open.get(port)

    @contextmanager
    def __call__(self) -> Iterator[Look]:
        yield self._look


@asynccontextmanager
async def watching(
    look: Callable[[], contextlib.AbstractContextManager[Look]] | None = None,
) -> AsyncIterator[LocalPorts]:
    ports = LocalPorts(look=look)
    task = asyncio.create_task(ports.run())
    try:
        yield ports
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


def listening(host: str, transport: Transport, port: int = 0) -> socket.socket:
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    if transport == "tcp":
        sock.listen()
    return sock


async def test_a_watcher_is_told_at_once_and_at_each_change() -> None:
    machine, told, other = Machine(), list[LocalTarget | None](), list[LocalTarget | None]()
    async with watching(machine) as ports:
        ports.watch(3000, "tcp", told.append)
        await until(lambda: told == [None])
        machine.open[3000] = "ipv4"
        await until(lambda: told == [None, LocalTarget(LOCALHOST, 3000)])
        stop = ports.watch(3000, "tcp", other.append)
        await until(lambda: other == [LocalTarget(LOCALHOST, 3000)])
        stop()
        stop()
        del machine.open[3000]
        await until(lambda: told[2:] == [None])
        assert len(other) == 1


async def test_nothing_is_asked_while_nothing_is_watched() -> None:
    machine, told = Machine(), list[LocalTarget | None]()
    async with watching(machine) as ports:
        stop = ports.watch(3000, "tcp", told.append)
        await until(lambda: told)
        stop()
        await asyncio.sleep(0)
        looks = machine.looks
        await asyncio.wait([asyncio.create_task(asyncio.Event().wait())], timeout=3 * local.LOOK_SECONDS)
        assert machine.looks == looks
        ports.watch(3000, "tcp", told.append)
        await until(lambda: len(told) == 2)


async def test_a_watcher_may_end_itself_and_others() -> None:
    machine, told, stops = Machine(), list[str](), list[Callable[[], None]]()

    def first(_: LocalTarget | None) -> None:
        told.append("first")
        for stop in stops:
            stop()

    async with watching(machine) as ports:
        stops.append(ports.watch(1, "tcp", first))
        stops.append(ports.watch(1, "tcp", lambda _: told.append("second")))
        ports.watch(2, "tcp", lambda _: told.append("third"))
        await until(lambda: "third" in told)
        assert told == ["first", "third"]


async def test_a_look_that_fails_changes_nothing() -> None:
    machine, told = Machine(), list[LocalTarget | None]()
    machine.open[3000] = "ipv4"
    async with watching(machine) as ports:
        ports.watch(3000, "tcp", told.append)
        await until(lambda: told)
        machine.broken, looks = True, machine.looks
        await until(lambda: machine.looks > looks + 1)
        machine.broken, looks = False, machine.looks
        await until(lambda: machine.looks > looks + 1)
        assert told == [LocalTarget(LOCALHOST, 3000)]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_kernel_is_asked(transport: Transport) -> None:
    told = list[LocalTarget | None]()
    async with watching() as ports:
        with listening("127.0.0.1", transport) as sock:
            port = sock.getsockname()[1]
            ports.watch(port, transport, told.append)
            await until(lambda: told == [LocalTarget(LOCALHOST, port)])
        await until(lambda: told[1:] == [None])
        with listening("127.0.0.3", transport, port):
            later = list[LocalTarget | None]()
            ports.watch(port, transport, later.append)
            await until(lambda: later == [None])
            assert told[2:] == []
        everywhere = LocalTarget(LOCALHOST if transport == "tcp" else IPv4Address(0), port)
        with listening("::", transport, port):
            await until(lambda: told[2:] == [everywhere])


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_one_on_ipv6_only_gets_a_copier(transport: Transport) -> None:
    told = list[LocalTarget | None]()
    async with watching() as ports:
        with listening("::1", transport) as sock:
            sock.settimeout(5)
            port = sock.getsockname()[1]
            stop = ports.watch(port, transport, told.append)
            await until(lambda: told)
            (target,) = told
            assert target is not None
            assert (target.address, target.port != port) == (LOCALHOST, True)
            with socket.socket(socket.AF_INET, sock.type) as client:
                client.connect(("127.0.0.1", target.port))
                client.send(b"hello")
                end = (await asyncio.to_thread(sock.accept))[0] if transport == "tcp" else sock
                with end:
                    assert await asyncio.to_thread(end.recv, 100) == b"hello"
        await until(lambda: told[1:] == [None])
        with pytest.raises(OSError, match="refused"):
            _try(target.port, transport)
        stop()


def _try(port: int, transport: Transport) -> None:
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as client:
        client.settimeout(5)
        client.connect(("127.0.0.1", port))
        client.send(b"?")
        client.recv(1)


async def test_the_copier_goes_with_its_last_watcher() -> None:
    told = list[LocalTarget | None]()
    async with watching() as ports:
        with listening("::1", "tcp") as sock:
            port = sock.getsockname()[1]
            stops = [ports.watch(port, "tcp", told.append) for _ in range(2)]
            await until(lambda: len(told) == 2)
            assert told[0] == told[1]
            assert told[0] is not None
            stops[0]()
            socket.create_connection(("127.0.0.1", told[0].port)).close()
            stops[1]()
            await until(lambda: _refuses(told[0]))


def _refuses(target: LocalTarget | None) -> bool:
    assert target is not None
    try:
        _try(target.port, "tcp")
    except ConnectionRefusedError:
        return True
    return False


def test_a_kernel_that_does_not_tell_counts_as_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOENT, "no handler")

    monkeypatch.setattr(Netlink, "dump", refuse)
    with kernel_look() as look:
        assert look(9, "tcp") == look(9, "udp") == "ipv4"
    monkeypatch.setattr(Netlink, "__init__", refuse)
    with kernel_look() as look:
        assert look(9, "tcp") == "ipv4"
