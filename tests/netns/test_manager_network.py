"""The manager's kernel network: forwarding, masquerade, and what a session may not send, with hand-made packets."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from meshdev.config import CONTROL_PORT, RELAYS_PORT, TUNNEL_PORT, gateway_of
from meshdev.wire import frames
from tests.manager.standin import hello
from tests.netns.bare_session import PORT, Session, arrives_alone, pod_listener, received, syn, udp
from tests.netns.cluster import MANAGER, METADATA, MTU, POD, SECOND_POD, Cluster


@pytest.fixture
def session(cluster: Cluster) -> Iterator[Session]:
    session = Session(cluster, hello("ann"))
    yield session
    session.close()


def test_welcome_tells_of_the_pods_own_interface(session: Session) -> None:
    welcome = session.welcome
    assert (welcome.mtu, welcome.pod_address, welcome.pod, welcome.namespace) == (MTU, MANAGER, "manager-1", "default")


def test_a_packet_reaches_a_pod_from_the_managers_address_and_its_reply_comes_back(
    cluster: Cluster, session: Session
) -> None:
    with pod_listener(cluster) as pod:
        session.packets(udp(session.address, POD, b"ping"))
        text, (source, port) = pod.recvfrom(100)
        assert (text, source) == (b"ping", str(MANAGER))
        pod.sendto(b"pong", (source, port))
        (reply,) = received(session, lambda packets: len(packets) == 1)
    body = reply[frames.VNET_HEADER_SIZE :]
    assert body[12:20] == POD.packed + session.address.packed
    assert body[28:] == b"pong"


def test_a_wrong_source_is_dropped(cluster: Cluster, session: Session) -> None:
    wrong = [session.address + 1, POD, MANAGER, SECOND_POD, IPv4Address("127.0.0.1"), IPv4Address(0)]
    arrives_alone(cluster, session, *(udp(source, POD, b"spoofed") for source in wrong))


def test_the_address_of_another_session_is_a_wrong_source(cluster: Cluster, session: Session) -> None:
    other = Session(cluster, hello("bob"))
    try:
        arrives_alone(cluster, session, udp(other.address, POD, b"spoofed"))
        arrives_alone(cluster, other, udp(session.address, POD, b"spoofed"))
    finally:
        other.close()


def test_an_address_that_went_is_a_wrong_source_for_its_devices_next_owner(cluster: Cluster) -> None:
    first = Session(cluster, hello("first"))
    first.close()
    second = Session(cluster, hello("second"))
    try:
        assert second.address != first.address
        arrives_alone(cluster, second, udp(first.address, POD, b"spoofed"))
    finally:
        second.close()


def test_link_local_addresses_are_out_of_reach(cluster: Cluster, session: Session) -> None:
    with pod_listener(cluster, METADATA) as metadata, cluster.manager.inside():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"the way is there", (str(METADATA), PORT))
        assert metadata.recv(100) == b"the way is there"
    arrives_alone(cluster, session, udp(session.address, METADATA, b"forbidden"))


def test_nonsense_is_dropped(cluster: Cluster, session: Session) -> None:
    ipv6 = bytes(10) + bytes.fromhex("60000000 0008 11 40") + bytes(15) + b"\1" + bytes(15) + b"\2" + bytes(8)
    hostile_header = bytes([1, 1]) + b"\xff" * 8 + udp(session.address, POD, b"offload")[10:]
    short = bytes(10) + b"\x45" * 20
    arrives_alone(cluster, session, ipv6, hostile_header, short, bytes(10) + b"\xff" * 100)


def test_sessions_do_not_reach_each_other(cluster: Cluster, session: Session) -> None:
    other = Session(cluster, hello("bob"))
    try:
        arrives_alone(cluster, session, udp(session.address, other.address, b"neighbour"))
        assert other.received() == []
    finally:
        other.close()


def test_the_managers_loopback_is_out_of_reach(cluster: Cluster, session: Session) -> None:
    loopback = IPv4Address("127.0.0.1")
    arrives_alone(cluster, session, syn(session.address, loopback, TUNNEL_PORT), udp(session.address, loopback, b"x"))
    assert [one for one in session.received() if one[19] == 6] == []


def test_the_tunnel_does_not_listen_on_the_pods_address(cluster: Cluster, session: Session) -> None:
    session.packets(syn(session.address, MANAGER, TUNNEL_PORT))
    (reset,) = received(session, lambda packets: len(packets) == 1)
    assert reset[frames.VNET_HEADER_SIZE + 20 + 13] & 0x04
    with cluster.pod.inside(), pytest.raises(ConnectionRefusedError):
        socket.create_connection((str(MANAGER), TUNNEL_PORT), timeout=5)


@pytest.mark.parametrize("port", [CONTROL_PORT, RELAYS_PORT])
def test_sessions_do_not_reach_the_ports_of_sidecars(cluster: Cluster, session: Session, port: int) -> None:
    """Who dials there is limited by address, and they have the tunnel for all that they say."""
    with cluster.manager.inside():
        server = socket.create_server(("", port))
    with server:
        for address in (MANAGER, gateway_of(session.address)):
            assert address is not None
            session.packets(syn(session.address, address, port))
            (reset,) = received(session, lambda packets: len(packets) == 1)
            assert reset[frames.VNET_HEADER_SIZE + 20 + 13] & 0x04
        with cluster.pod.inside():
            socket.create_connection((str(MANAGER), port), timeout=5).close()


def test_only_replies_reach_a_laptop(cluster: Cluster, session: Session) -> None:
    with pod_listener(cluster) as pod, pod_listener(cluster, SECOND_POD) as second:
        for sock in (pod, second):
            sock.sendto(b"unsolicited", (str(session.address), 6000))
        session.packets(udp(session.address, POD, b"question"))
        _, asker = pod.recvfrom(100)
        second.sendto(b"from another", asker)
        pod.sendto(b"answer", asker)
        packets = received(session, lambda packets: len(packets) >= 1)
    assert [one[frames.VNET_HEADER_SIZE + 28 :] for one in packets] == [b"answer"]


def test_a_session_leaves_no_device_and_no_rule(cluster: Cluster) -> None:
    session = Session(cluster, hello("guest", carriers=8))
    address = str(session.address)
    assert address in cluster.manager.run("nft", "list", "table", "inet", "meshdev")
    assert "mesh0" in cluster.manager.run("ip", "link")
    session.close()
    assert address not in cluster.manager.run("nft", "list", "table", "inet", "meshdev")
    assert "mesh0" not in cluster.manager.run("ip", "link")


def test_sixty_sessions_and_one_more(cluster: Cluster) -> None:
    sessions = [Session(cluster, hello(f"n{number}")) for number in range(60)]
    try:
        assert len({session.address for session in sessions}) == 60
        with pytest.raises(AssertionError):
            Session(cluster, hello("one-more"))
        arrives_alone(cluster, sessions[30], udp(sessions[31].address, POD, b"spoofed"))
    finally:
        for session in sessions:
            session.close()


def test_offloads_are_those_that_both_have(cluster: Cluster) -> None:
    for offered, agreed in ((0, 0), (1, 1), (7, 7)):
        session = Session(cluster, replace(hello("ann"), offload=offered))
        assert session.welcome.offload == agreed
        session.close()


def test_memory_of_the_manager(cluster: Cluster) -> None:
    """Behind the sixty sessions, so that what they left counts too."""
    at_rest = cluster.manager_rss()
    sessions = [Session(cluster, hello(f"n{number}", carriers=2)) for number in range(3)]
    busy = cluster.manager_rss()
    for session in sessions:
        session.close()
    print(f"manager at rest {at_rest} MiB, with 3 sessions {busy} MiB")
    assert busy <= 60
