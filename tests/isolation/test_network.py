"""Sockets of another network, from a process in there."""

import errno
import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread
from typing import Final

import pytest

from meshdev.isolation.network import THIS_NETWORK, NetworkSockets, OtherNetwork
from meshdev.isolation.socket_server import ANSWER, REQUEST, serve
from meshdev.netlink import diag
from meshdev.netlink.sock import Netlink
from tests.isolation.places import AS_USER, DEADLINE, GROUP, USER, python
from tests.sockets import wait_for

#: As the helper does it; then a program listens there.
_HELPER: Final = """
import socket
from pathlib import Path
from meshdev.isolation.own import enter_own_network
from meshdev.isolation.socket_server import fork_server
peer = socket.socket(fileno=int(sys.argv[2]))
enter_own_network(Path(sys.argv[1]))
with fork_server() as server:
    socket.send_fds(peer, [b"."], [server.fileno()])
with socket.create_server(("127.0.0.1", 0)) as listener:
    peer.sendall(listener.getsockname()[1].to_bytes(2, "big"))
    while listener in __import__("select").select([listener, peer], [], [])[0]:
        with listener.accept()[0] as sock:
            sock.sendall(b"there")
"""


class Helper:
    """A process in a network of its own, where a program listens at *port*."""

    def __init__(self, process: "subprocess.Popen[bytes]", network: OtherNetwork, port: int) -> None:
        self.process = process
        self.network = network
        self.port = port

    def server(self) -> int:
        """A pidfd of the process that makes sockets."""
        (child,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return os.pidfd_open(int(child))


@contextmanager
def running(folder: Path) -> Iterator[Helper]:
    folder.mkdir()
    file = folder / "resolv.conf"
    file.touch()
    for path in (folder, file):
        os.chown(path, USER, GROUP)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [*AS_USER, *python(_HELPER, str(file), str(theirs.fileno()))]
        with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
            theirs.close()
            ours.settimeout(DEADLINE)
            _, (server,), _, _ = socket.recv_fds(ours, 1, 1)
            port = int.from_bytes(ours.recv(2), "big")
            with closing(OtherNetwork(socket.socket(fileno=server))) as network:
                try:
                    yield Helper(process, network, port)
                finally:
                    ours.close()


@pytest.fixture(scope="module")
def helper(folder: Path) -> Iterator[Helper]:
    with running(folder / "network") as found:
        yield found


def received(network: NetworkSockets, port: int) -> bytes:
    """What who listens there sends."""
    with network.open_socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.connect(("127.0.0.1", port))
        return sock.recv(10)


def test_sockets_are_of_that_network_and_ours_of_this_one(helper: Helper) -> None:
    assert received(helper.network, helper.port) == b"there"
    with pytest.raises(ConnectionRefusedError):
        received(THIS_NETWORK, helper.port)
    with helper.network.open_socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        assert (sock.family, sock.type) == (socket.AF_INET6, socket.SOCK_DGRAM)
        assert not sock.get_inheritable()


def test_who_listens_there_is_listed(helper: Helper) -> None:
    with Netlink(diag.NETLINK_SOCK_DIAG, helper.network.open_socket) as netlink:
        bodies = netlink.dump(diag.sockets_dump(diag.AF_INET, diag.TCP, (diag.LISTEN,)))
    found = [each for body in bodies if (each := diag.parse_socket(body)) is not None]
    assert [each.port for each in found] == [helper.port]


@pytest.mark.parametrize(
    ("family", "kind", "protocol"),
    [
        (socket.AF_INET, socket.SOCK_RAW, 0),
        (socket.AF_UNIX, socket.SOCK_STREAM, 0),
        (socket.AF_NETLINK, socket.SOCK_RAW, 0),
        (socket.AF_NETLINK, socket.SOCK_RAW, 12),
        (-1, 1 << 30, 0),
    ],
)
def test_only_plain_sockets_are_made(helper: Helper, family: int, kind: int, protocol: int) -> None:
    with pytest.raises(PermissionError):
        helper.network.open_socket(family, kind, protocol)
    assert received(helper.network, helper.port) == b"there"


def test_descriptors_are_not_kept(helper: Helper) -> None:
    ours, theirs = Path("/proc/self/fd"), Path(f"/proc/{_pid(helper)}/fd")
    before = len(list(ours.iterdir())), len(list(theirs.iterdir()))
    for _ in range(50):
        helper.network.open_socket(socket.AF_INET, socket.SOCK_STREAM).close()
    # The server closes its copy of a socket once it has sent it.
    wait_for(lambda: (len(list(ours.iterdir())), len(list(theirs.iterdir()))) == before)


def _pid(helper: Helper) -> int:
    return int(Path(f"/proc/{helper.process.pid}/task/{helper.process.pid}/children").read_text())


def test_an_answer_that_comes_too_late_is_no_answer_to_the_next_request(helper: Helper) -> None:
    server = helper.server()
    signal.pidfd_send_signal(server, signal.SIGSTOP)
    with pytest.raises(BlockingIOError):
        helper.network.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
    signal.pidfd_send_signal(server, signal.SIGCONT)
    os.close(server)
    with helper.network.open_socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        assert sock.type == socket.SOCK_STREAM


def test_the_server_can_do_nothing_else(helper: Helper) -> None:
    status = Path(f"/proc/{_pid(helper)}/status").read_text()
    capabilities = {line.split()[1] for line in status.splitlines() if line.startswith(("CapEff", "CapPrm", "CapInh"))}
    assert capabilities == {"0" * 16}


@pytest.mark.parametrize("end", ["helper killed", "closed"])
def test_the_server_ends_with_either_side(folder: Path, end: str) -> None:
    with running(folder / end.replace(" ", "-")) as found:
        server = found.server()
        if end == "closed":
            found.network.close()
        else:
            found.process.kill()
        try:
            assert select.select([server], [], [], DEADLINE)[0], "it still runs"
        finally:
            os.close(server)
        with pytest.raises(OSError, match=r"gone|Bad file descriptor|Broken pipe|reset"):
            found.network.open_socket(socket.AF_INET, socket.SOCK_STREAM)


@pytest.mark.parametrize("request_", [b"", b"short", b"x" * (REQUEST.size + 1)])
def test_the_server_ends_by_what_is_no_request(request_: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        serving = Thread(target=serve, args=[theirs])
        serving.start()
        if request_:
            ours.send(request_)
        else:
            ours.close()
        serving.join(DEADLINE)
        assert not serving.is_alive()


@pytest.mark.parametrize("answer", [b"", b"x", ANSWER.pack(1, 0), ANSWER.pack(1, errno.EMFILE)])
def test_whatever_a_server_answers_is_an_error_at_most(answer: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, closing(OtherNetwork(ours)) as network:
        if answer:
            theirs.send(answer)
        else:
            theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(OSError, match=r"gone|Too many open files"):
            network.open_socket(socket.AF_INET, socket.SOCK_STREAM)
