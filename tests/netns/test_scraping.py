"""The manager's packet filter at the port of its metrics: it answers, and one address cannot take all of it."""

import socket
import time

from meshdev.config import CONTROL_UID, METRICS_PORT, RELAYS_PORT
from tests.netns.cluster import MANAGER, POD, SECOND_POD, Cluster


def test_control_answers_whoever_scrapes(cluster: Cluster) -> None:
    with cluster.manager.inside(CONTROL_UID):
        server = socket.create_server((str(MANAGER), METRICS_PORT))
    with server, cluster.pod.inside():
        client = socket.create_connection((str(MANAGER), METRICS_PORT), 5)
        with client, server.accept()[0] as accepted:
            accepted.sendall(b"metrics")
            assert client.recv(100) == b"metrics"


def test_one_address_takes_neither_the_others_scrapes_nor_its_own_handshakes(cluster: Cluster) -> None:
    """Forty at once, then 20 a second; what Envoys dial is counted apart."""
    began = time.monotonic()
    answered = sum(cluster.is_answered(POD, METRICS_PORT) for _ in range(200))
    assert 39 <= answered <= min(199, 41 + 20 * (time.monotonic() - began))
    assert all(cluster.is_answered(SECOND_POD, METRICS_PORT) for _ in range(10))
    assert all(cluster.is_answered(POD, RELAYS_PORT) for _ in range(10))
