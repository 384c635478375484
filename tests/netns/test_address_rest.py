"""An address that had a session: nobody else meets what that session left in the kernel's connection tracking."""

import socket
import struct
import time
import tracemalloc
from contextlib import suppress
from ipaddress import IPv4Address

import pytest

from meshdev.netlink import messages
from meshdev.netlink.netfilter import forget_addresses
from meshdev.netlink.sock import NETLINK_NETFILTER, Netlink
from meshdev.wire import frames
from tests.manager.standin import hello
from tests.netns.bare_session import PORT, Session, checksum, ip_packet, received, syn, udp
from tests.netns.cluster import POD, Cluster

_ACK = 0x10


def connected(cluster: Cluster, session: Session) -> socket.socket:
    """The server's end of a TCP connection that *session* opened to the pod, idle now."""
    with cluster.pod.inside():
        listener = socket.create_server((str(POD), PORT))
    with listener:
        listener.settimeout(10)
        session.packets(syn(session.address, POD, PORT))
        (answer,) = received(session, lambda packets: len(packets) == 1)
        tcp = answer[frames.VNET_HEADER_SIZE + 20 :]
        (theirs,) = struct.unpack_from(">I", tcp, 4)
        body = struct.pack(">HHIIBBHHH", 6000, PORT, 2, theirs + 1, 5 << 4, _ACK, 1000, 0, 0)
        pseudo = session.address.packed + POD.packed + struct.pack(">BBH", 0, 6, len(body))
        body = body[:16] + struct.pack(">H", checksum(pseudo + body)) + body[18:]
        session.packets(ip_packet(session.address, POD, 6, body))
        server, _ = listener.accept()
    return server


def forgotten(cluster: Cluster, address: IPv4Address) -> bool:
    """Whether the manager's pod tracks nothing of *address*."""
    with cluster.manager.inside(), Netlink(NETLINK_NETFILTER) as netlink:
        flows = [messages.parse_flow(body) for body in netlink.dump(messages.flows_dump(socket.AF_INET))]
    return all(flow is not None and address.packed not in {flow.source[0], flow.went_to[0]} for flow in flows)


def wait_until_forgotten(cluster: Cluster, address: IPv4Address) -> None:
    deadline = time.monotonic() + 10
    while not forgotten(cluster, address):
        assert time.monotonic() < deadline, "the manager still tracks connections of the address"


def test_another_session_sees_nothing_of_a_connection_that_was_left(cluster: Cluster) -> None:
    ann = Session(cluster, hello("ann"))
    address = ann.address
    with connected(cluster, ann) as server:
        assert not forgotten(cluster, address)
        ann.close()
        wait_until_forgotten(cluster, address)
        bob = Session(cluster, hello("bob", secret="c" * 32, wanted=address))
        try:
            assert bob.address != address, "it rests, and bob has not its session's secret"
            server.sendall(b"for ann only")
            assert bob.received() == []
            server.settimeout(10)
            with pytest.raises(ConnectionResetError):  # the connection was forgotten: nobody is there any more
                server.recv(1)
        finally:
            bob.close()


def test_datagrams_of_a_connection_that_was_left_end_at_the_manager(cluster: Cluster) -> None:
    with cluster.pod.inside():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server:
        server.settimeout(10)
        server.bind((str(POD), PORT))
        ann = Session(cluster, hello("ann"))
        ann.packets(udp(ann.address, POD, b"question"))
        _, asker = server.recvfrom(100)
        address = ann.address
        assert not forgotten(cluster, address)
        ann.close()
        wait_until_forgotten(cluster, address)
        again = Session(cluster, hello("ann", wanted=address))
        try:
            assert again.address == address, "the secret is the former session's"
            server.sendto(b"late answer", asker)
            assert again.received() == []
        finally:
            again.close()


def test_the_session_itself_finds_its_connections_again(cluster: Cluster) -> None:
    """It lost every carrier for longer than the grace, as in a tunnel through the mountains."""
    ann = Session(cluster, hello("ann"))
    address = ann.address
    with connected(cluster, ann) as server:
        ann.vanish()
        again = Session(cluster, hello("ann", wanted=address))
        try:
            assert again.address == address
            server.sendall(b"still there")
            packets = received(again, bool)
            assert packets[0].endswith(b"still there")
        finally:
            again.close()


def test_a_table_of_many_connections_is_never_held_as_a_whole(cluster: Cluster) -> None:
    """Whoever asks a whole network for something leaves as many: the container has 128 MiB for them and all else."""
    ours = IPv4Address("127.77.0.1")
    with cluster.manager.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((str(ours), 0))
        for number in range(20_000):
            with suppress(ConnectionRefusedError):  # the answer to an earlier one
                sender.sendto(b"", (str(IPv4Address("127.78.0.1") + number), 9))
        assert not forgotten(cluster, ours)
        tracemalloc.start()
        try:
            forget_addresses({ours})
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert forgotten(cluster, ours)
    assert most < 2 << 20, f"{most:,} bytes"
