"""The agent's nft table and the kernel's memory of what former ones redirected."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Final

import pytest

from meshdev.sidecar.agent.client_addresses import ClientAddresses
from meshdev.sidecar.agent.firewall import PodFirewall
from meshdev.sidecar.agent.listener_ports import RANGE
from meshdev.wire.agent import PodPort
from tests.netns.cluster import MANAGER, POD, Cluster

APP: Final = PodPort(8080)
LISTENER: Final = RANGE[0]
CLIENT: Final = (str(MANAGER), 40000)
RESET: Final = struct.pack("ii", 1, 0)  # struct linger: a close sends a reset


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two networks; the pod's translates packets outside of the windows that it knows of a connection, too."""
    made = Cluster()
    made.pod.run("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_tcp_be_liberal=1")
    yield made
    made.close()


def connected(cluster: Cluster, server: socket.socket) -> tuple[socket.socket, socket.socket]:
    """From the same port each time, and the server's end."""
    with cluster.manager.inside():
        client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.settimeout(5)
    client.bind(CLIENT)
    client.connect((str(POD), APP.number))
    accepted, _ = server.accept()
    accepted.settimeout(5)
    return client, accepted


def assert_the_next_one_keeps(cluster: Cluster, app: socket.socket) -> None:
    """A connection from that port to the app itself, which is there when another table comes."""
    client, accepted = connected(cluster, app)
    with client, accepted:
        with cluster.pod.inside():
            second = PodFirewall(POD)
        with contextlib.closing(second):
            client.sendall(b"request")
            assert accepted.recv(100) == b"request"
            accepted.sendall(b"answer")
            assert client.recv(100) == b"answer"


def test_a_port_that_a_redirected_client_had_may_be_in_use_when_the_next_one_comes(cluster: Cluster) -> None:
    with contextlib.ExitStack() as stack:
        with cluster.pod.inside():
            app = stack.enter_context(socket.create_server((str(POD), APP.number)))
            proxy = stack.enter_context(socket.create_server((str(POD), LISTENER)))
            first = PodFirewall(POD)
            first.redirect({APP: LISTENER})
        client, accepted = connected(cluster, proxy)
        first.close()
        client.close()  # nothing tracks its end any more
        accepted.close()
        assert_the_next_one_keeps(cluster, app)


def test_a_port_from_which_a_worker_reached_the_app_may_be_in_use_too(cluster: Cluster) -> None:
    with contextlib.ExitStack() as stack:
        with cluster.pod.inside():
            app = stack.enter_context(socket.create_server((str(POD), APP.number)))
            first = PodFirewall(POD)
            addresses = ClientAddresses(first.number, first.living)
            first.keep_marked(addresses.mark)
            worker = addresses.make()
            worker.setblocking(True)
            worker.settimeout(5)
            worker.bind(CLIENT)
            worker.connect((str(POD), APP.number))
            accepted, _ = app.accept()
        first.close()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        accepted.close()
        worker.close()  # nothing tracks its end any more
        addresses.close()
        assert_the_next_one_keeps(cluster, app)
