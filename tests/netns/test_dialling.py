"""What one pod's address may do to the ports of control and of the relay process, with the manager's real firewall."""

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from meshdev.config import CONTROL_PORT, CONTROL_UID, RELAYS_PORT
from meshdev.manager.tunnel.firewall import CONNECTIONS
from tests.netns.cluster import MANAGER, POD, SECOND_POD, Cluster, running
from tests.waiting import until


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """One that has counted nothing yet."""
    with running() as cluster:
        yield cluster


def test_one_address_does_not_keep_the_others_from_a_handshake(cluster: Cluster) -> None:
    """A thousand at once, whoever listens; then 500 a second."""

    began = time.monotonic()
    answered = [cluster.is_answered(POD, RELAYS_PORT) for _ in range(1500)]
    assert sum(answered) >= 900
    assert sum(answered) <= min(1499, 1001 + 500 * (time.monotonic() - began))
    assert all(cluster.is_answered(SECOND_POD, RELAYS_PORT) for _ in range(10))


async def test_one_address_does_not_keep_all_connections_to_control(cluster: Cluster) -> None:
    """What says nothing counts, too; what it closes it may open again, and others are not held."""

    def opened(stack: contextlib.ExitStack, source: IPv4Address) -> socket.socket | None:
        with cluster.pod.inside():
            sock = stack.enter_context(socket.socket())
        sock.bind((str(source), 0))
        sock.settimeout(0.5)
        try:
            sock.connect((str(MANAGER), CONTROL_PORT))
        except TimeoutError:
            return None
        return sock

    with contextlib.ExitStack() as stack:
        with cluster.manager.inside(CONTROL_UID):
            server = stack.enter_context(socket.create_server((str(MANAGER), CONTROL_PORT), backlog=2 * CONNECTIONS))
        kept = [opened(stack, POD) for _ in range(CONNECTIONS)]
        assert None not in kept
        assert opened(stack, POD) is None
        assert opened(stack, SECOND_POD) is not None
        with server.accept()[0] as accepted:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: opened(stack, POD) is not None)
