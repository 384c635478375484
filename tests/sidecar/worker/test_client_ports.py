"""From which ports the app is dialled, and what that leaves to its own connections; on loopback."""

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from meshdev.sidecar.worker import client_ports
from meshdev.sidecar.worker.client_ports import SHARE, TAKEN_SECONDS, ClientPorts, CrowdedError

HOST = "127.0.79.1"
CLIENT = "127.0.79.9"
#: A port of this machine's own range that a test of another process hardly uses at CLIENT.
LOW, HIGH = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
PORT = (LOW + HIGH) // 2


class Ports:
    """What is tested, and a clock that stands."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.now = 100.0
        self.tested = ClientPorts(lambda: self.now)
        self.app = stack.enter_context(socket.create_server((HOST, 0), backlog=100))

    def connect(self, port: int, connection: object = None) -> socket.socket:
        """Closing it leaves no TIME_WAIT."""
        sock = self._stack.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        error = self.tested.connect(sock, (CLIENT, port), self.app.getsockname(), connection or sock)
        if error:
            raise OSError(error, "connect")
        assert sock.getsockname() == (CLIENT, port)
        return sock

    def close(self, sock: socket.socket) -> None:
        sock.close()
        self.tested.closed(sock)


@pytest.fixture
def ports() -> Iterator[Ports]:
    with ExitStack() as stack:
        yield Ports(stack)


@pytest.fixture
def older_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses the option, as this one does one of 250."""
    monkeypatch.setattr(client_ports, "_IP_LOCAL_PORT_RANGE", 250)


def small(ports: Ports, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """Have the range read from a file."""
    file = tmp_path / "range"
    file.write_text(text)
    monkeypatch.setattr(client_ports, "_RANGE", file)
    ports.tested.sweep()


def own(port: int) -> bool:
    """Whether an unbound connection may have that port: it is the only one that it is offered."""
    with socket.create_server((HOST, 0)) as server, socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_IP, 51, (port << 16 | port).to_bytes(4, sys.byteorder))
        return sock.connect_ex(server.getsockname()) == 0


def test_a_port_of_the_range_is_shared(ports: Ports) -> None:
    ports.connect(PORT)
    assert own(PORT)


@pytest.mark.usefixtures("older_kernel")
def test_a_port_that_is_bound_by_number_is_not(ports: Ports) -> None:
    """Why it is done, and that the test above sees it."""
    ports.connect(PORT + 1)
    assert not own(PORT + 1)


def test_a_port_outside_of_the_range_is_bound(ports: Ports) -> None:
    ports.connect(LOW - 2)
    ports.connect(HIGH + 2)


def test_one_that_somebody_has_bound_by_number_is_bound_so_too(ports: Ports) -> None:
    with socket.socket() as other:
        other.bind((HOST, PORT + 2))
        ports.connect(PORT + 2)


def test_ends_that_are_connected_are_in_use(ports: Ports) -> None:
    first = ports.connect(PORT + 3)
    with pytest.raises(OSError, match="connect") as refusal:
        ports.connect(PORT + 3)
    assert refusal.value.errno == errno.EADDRNOTAVAIL
    ports.close(first)
    ports.connect(PORT + 3)


@pytest.mark.usefixtures("older_kernel")
def test_few_ports_are_bound_by_number(ports: Ports, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """While they are open, and for as long after that as the kernel keeps them."""
    small(ports, monkeypatch, tmp_path, f"{PORT}\t{PORT + 3 * SHARE - 1}\n")
    first, _, _ = (ports.connect(PORT + number) for number in range(3))
    crowded(ports, PORT + 3)
    ports.connect(PORT + 3 * SHARE)  # outside of the range
    ports.close(first)
    ports.close(first)
    crowded(ports, PORT + 3)
    again = ports.connect(PORT)  # it is taken already
    ports.now += TAKEN_SECONDS
    ports.tested.sweep()
    crowded(ports, PORT + 3)
    ports.close(again)
    ports.now += TAKEN_SECONDS - 0.1
    ports.tested.sweep()
    crowded(ports, PORT + 3)
    ports.now += 0.2
    ports.tested.sweep()
    ports.connect(PORT + 3)
    crowded(ports, PORT + 4)


def crowded(ports: Ports, port: int) -> None:
    with pytest.raises(CrowdedError):
        ports.connect(port)


@pytest.mark.parametrize("text", ["", "1", "a b"])
def test_a_range_that_cannot_be_read(ports: Ports, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """Nothing is shared, unless it could be read before."""
    small(ports, monkeypatch, tmp_path, text)
    ports.connect(PORT + 5)
    assert own(PORT + 5)
    ports.tested = ClientPorts(lambda: ports.now)
    ports.connect(PORT + 6)
    assert not own(PORT + 6)
