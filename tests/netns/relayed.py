"""A manager's relays as a pod meets them, and the container *control* played by the test."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from meshdev.wire.intercepts import Relay
from meshdev.wire.manager import Allow, Claimed
from tests.manager.claims import Listener
from tests.netns.cluster import MANAGER, POD, Cluster


def control(cluster: Cluster) -> Listener:
    """Connected to the manager's socket, which lies in its own mount namespace."""
    return Listener(Path(f"/proc/{cluster.manager_pid}/root/run/meshdev"))


def allow(listener: Listener, relay: Relay, *addresses: IPv4Address) -> None:
    listener.say(Allow(relay.relay, addresses, False))


def claimed_up(listener: Listener, *, up: bool) -> Claimed:
    """Wait until a claim is told with that state of its ports."""
    while True:
        claim = listener.claimed()
        if bool(claim.up) == up:
            return claim


def call(cluster: Cluster, relay: Relay, source: IPv4Address = POD, seconds: float = 5) -> socket.socket:
    """A TCP connection from a pod to the relay."""
    with cluster.pod.inside():
        sock = socket.socket()
    sock.settimeout(seconds)
    try:
        sock.bind((str(source), 0))
        sock.connect((str(MANAGER), relay.relay))
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def datagrams(cluster: Cluster, source: IPv4Address = POD) -> Iterator[socket.socket]:
    """A UDP socket of a pod."""
    with cluster.pod.inside():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(5)
        sock.bind((str(source), 0))
        yield sock
