"""The tunnel server with real TCP: who is let in, what each may do, and when a session ends."""

import errno
import os
import socket
from pathlib import Path

import pytest

from meshdev.config import ADDRESS_POOLS, GRACE_SECONDS, PROTOCOL
from meshdev.errors import FirewallError
from meshdev.manager.tunnel import server
from meshdev.manager.tunnel.server import HELLO_SECONDS, MAX_UNAUTHENTICATED
from meshdev.pump.transport import SocketTransport
from meshdev.wire.control import Close, Sessions
from meshdev.wire.frames import HELLO, OPTIONAL, PACKET, PING, PONG, frame
from meshdev.wire.manager import ManagerAddress, Seen, Synced, decode_to_control
from tests.manager.standin import POD, Manager, Visitor, hello
from tests.pump.ends import numbers, packet, put, take

BYE = Close("bye", "the laptop disconnects")


def test_welcome_says_all_that_the_laptop_needs(manager: Manager) -> None:
    with Visitor(manager) as ann:
        welcome = ann.say(hello("ann", carriers=2)).welcome()
    assert vars(welcome) == {
        "version": PROTOCOL,
        "address": ADDRESS_POOLS[0][2],
        "mtu": 1450,
        "offload": 7,
        "nameservers": (ADDRESS_POOLS[0][2].__class__("10.96.0.10"),),
        "search": ("default.svc.cluster.local",),
        "pod": "manager-1",
        "namespace": "default",
        "pod_address": ADDRESS_POOLS[0][2].__class__("10.244.0.9"),
    }


def test_packets_pass_both_ways(manager: Manager) -> None:
    with Visitor(manager) as ann:
        address = ann.say(hello("ann")).welcome().address
        cluster = manager.network.cluster_side(address)
        ann.say(frame(PACKET, packet(1)), frame(PACKET, packet(2)), frame(OPTIONAL, b"?"), frame(PING, b"12345678"))
        assert ann.frame() == (PONG, b"12345678")
        assert numbers(take(cluster)) == [1, 2]
        os.write(cluster, packet(3))
        assert ann.packet() == packet(3)


@pytest.mark.parametrize(
    ("oldest", "newest", "version"), [(1, 1, 1), (1, 2, 2), (0, 2, 2), (2, 2, 2), (1, 9, 2), (2, 3, 2)]
)
def test_the_newest_version_both_speak_is_chosen(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, oldest: int, newest: int, version: int
) -> None:
    monkeypatch.setattr(server, "PROTOCOL", 2)
    with Visitor(manager) as ann:
        assert ann.say(hello("ann", oldest=oldest, newest=newest)).welcome().version == version


@pytest.mark.parametrize(("oldest", "newest"), [(0, 0), (3, 9), (2, 1)])
def test_a_version_that_is_not_spoken_is_refused_and_told_who_else_is_there(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, oldest: int, newest: int
) -> None:
    monkeypatch.setattr(server, "PROTOCOL", 2)
    with Visitor(manager) as ann, Visitor(manager) as bob:
        ann.say(hello("ann")).welcome()
        refusal = bob.say(hello("bob", oldest=oldest, newest=newest)).refusal()
        assert (refusal.code, refusal.sessions) == ("version", 1)
        assert refusal.reason == f"the manager speaks protocol 1 to 2, you speak {oldest} to {newest}"
        assert bob.gone()
        assert manager.holders() == ["ann"]


def test_another_secret_does_not_join_a_session(manager: Manager) -> None:
    with Visitor(manager) as ann, Visitor(manager) as eve:
        ann.say(hello("ann")).welcome()
        assert eve.say(hello("ann", secret="e" * 32)).refusal().code == "secret"
        assert eve.gone()
        ann.say(frame(PING, b"12345678"))
        assert ann.frame() == (PONG, b"12345678")


def test_coming_back_within_the_grace_finds_address_and_device_as_they_were(timed: Manager) -> None:
    with Visitor(timed) as ann:
        address = ann.say(hello("ann")).welcome().address
        device = timed.network.devices[address]
    timed.until(lambda: timed.network.attached(address) == [False])
    timed.pass_time(GRACE_SECONDS - 1)
    with Visitor(timed) as ann:
        assert ann.say(hello("ann")).welcome().address == address
        assert timed.network.devices[address] is device
        timed.until(lambda: timed.network.attached(address) == [True])
        for _ in range(12):  # the grace is over, not only suspended
            ann.say(frame(PING, b"12345678"))
            assert ann.frame() == (PONG, b"12345678")
            timed.pass_time(1)
        assert timed.holders() == ["ann"]


def test_after_the_grace_the_session_is_gone(timed: Manager) -> None:
    with Visitor(timed) as ann:
        address = ann.say(hello("ann")).welcome().address
    timed.until(lambda: timed.network.attached(address) == [False])
    timed.pass_time(GRACE_SECONDS + 1)
    assert timed.network.devices == {}
    assert timed.holders() == []
    with Visitor(timed) as ann:
        assert ann.say(hello("ann", wanted=address)).welcome().address == address


def test_a_silent_session_goes_after_silence_and_grace(timed: Manager) -> None:
    with Visitor(timed) as ann:
        ann.say(hello("ann")).welcome()
        timed.pass_time(7)
        assert ann.gone()
        assert timed.holders() == ["ann"]
        timed.pass_time(GRACE_SECONDS)
        assert timed.holders() == []


def test_bye_frees_at_once_whichever_carrier_says_it(manager: Manager) -> None:
    with Visitor(manager) as one, Visitor(manager) as two:
        one.say(hello("ann", carriers=2)).welcome()
        two.say(hello("ann", carriers=2, carrier=1)).welcome()
        two.say(BYE, BYE)
        assert two.gone()
        assert one.gone()
        assert manager.holders() == []
        assert manager.network.devices == {}


def test_a_dead_carrier_leaves_its_queue_and_the_other_goes_on(manager: Manager) -> None:
    with Visitor(manager) as two:
        with Visitor(manager) as one:
            address = one.say(hello("ann", carriers=2)).welcome().address
            two.say(hello("ann", carriers=2, carrier=1)).welcome()
            manager.until(lambda: manager.network.attached(address) == [True, True])
        manager.until(lambda: manager.network.attached(address) == [False, True])
        os.write(manager.network.cluster_side(address, 1), packet(1))
        assert two.packet() == packet(1)
        with Visitor(manager) as one:
            one.say(hello("ann", carriers=2)).welcome()
            manager.until(lambda: manager.network.attached(address) == [True, True])


def test_a_carrier_that_comes_twice_replaces_the_first(manager: Manager) -> None:
    with Visitor(manager) as old, Visitor(manager) as new:
        address = old.say(hello("ann")).welcome().address
        assert new.say(hello("ann")).welcome().address == address
        assert old.gone()
        new.say(frame(PACKET, packet(1)), frame(PING, b"12345678"))
        assert new.frame() == (PONG, b"12345678")
        assert numbers(take(manager.network.cluster_side(address))) == [1]


def test_a_carrier_with_a_number_beyond_the_sessions_is_ended(manager: Manager) -> None:
    with Visitor(manager) as ann, Visitor(manager) as more:
        ann.say(hello("ann")).welcome()
        more.say(hello("ann", carriers=2, carrier=1)).welcome()
        assert more.gone()
        assert manager.holders() == ["ann"]


def test_an_observer_sees_everybody_and_takes_no_place(manager: Manager) -> None:
    with Visitor(manager) as ann, Visitor(manager) as observer:
        address = ann.say(hello("ann")).welcome().address
        seen = observer.say(hello("observer", observer=True)).message()
        assert isinstance(seen, Sessions)
        assert [(info.holder, info.address) for info in seen.sessions] == [("ann", address)]
        assert observer.gone()
        assert manager.holders() == ["ann"]


def test_addresses_differ_and_the_wanted_one_is_given_where_it_is_free(manager: Manager) -> None:
    with Visitor(manager) as ann, Visitor(manager) as bob, Visitor(manager) as eve:
        wanted = ADDRESS_POOLS[0][700]
        assert ann.say(hello("ann", wanted=wanted)).welcome().address == wanted
        assert bob.say(hello("bob", wanted=wanted)).welcome().address == wanted + 1
        assert eve.say(hello("eve", pools=ADDRESS_POOLS[1:])).welcome().address in ADDRESS_POOLS[1]


def test_what_the_network_refuses_is_told_in_its_words(manager: Manager) -> None:
    manager.network.refusal = FirewallError("nft refused: Error: busy\n  add element")
    with Visitor(manager) as ann:
        refusal = ann.say(hello("ann")).refusal()
        assert (refusal.code, refusal.reason) == ("address", "nft refused: Error: busy add element")
        assert ann.gone()
    with Visitor(manager) as bob:
        assert bob.say(hello("bob", pools=())).refusal().code == "address"
    assert manager.holders() == []


def test_one_session_too_many(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_SESSIONS", 2)
    with Visitor(manager) as ann, Visitor(manager) as bob, Visitor(manager) as eve:
        ann.say(hello("ann")).welcome()
        bob.say(hello("bob")).welcome()
        refusal = eve.say(hello("eve")).refusal()
        assert (refusal.code, refusal.sessions) == ("full", 2)
        bob.say(BYE)
        assert bob.gone()
        with Visitor(manager) as eve_again:
            eve_again.say(hello("eve")).welcome()


def test_one_carrier_too_many(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CARRIERS_IN_ALL", 2)
    with Visitor(manager) as ann, Visitor(manager) as second, Visitor(manager) as third, Visitor(manager) as bob:
        ann.say(hello("ann", carriers=3)).welcome()
        second.say(hello("ann", carriers=3, carrier=1)).welcome()
        assert third.say(hello("ann", carriers=3, carrier=2)).refusal().code == "full"
        assert bob.say(hello("bob")).refusal().code == "full"
        second.close()
        manager.until(lambda: [other.carriers for other in manager.server._sessions.values()] == [1])
    with Visitor(manager) as bob:
        bob.say(hello("bob")).welcome()


def test_a_stranger_too_many_ends_the_oldest_stranger(manager: Manager) -> None:
    peers = [Visitor(manager) for _ in range(MAX_UNAUTHENTICATED)]
    manager.until(lambda: len(manager.server._unauthenticated) == MAX_UNAUTHENTICATED)
    with Visitor(manager) as ann:
        ann.say(hello("ann")).welcome()
        assert peers[0].gone()
        peers[1].say(hello("bob")).welcome()
    for peer in peers:
        peer.close()


def test_a_stranger_who_says_nothing_is_ended(timed: Manager) -> None:
    with Visitor(timed) as silent, Visitor(timed) as slow:
        timed.until(lambda: len(timed.server._unauthenticated) == 2)
        slow.say(frame(PING, b"12345678"))
        timed.pass_time(HELLO_SECONDS - 1)
        slow.say(frame(PING, b"12345678"))
        timed.pass_time(1.5)
        assert silent.gone()
        assert slow.frame() == (PONG, b"12345678")
        assert slow.frame() == (PONG, b"12345678")
        assert slow.gone()


def test_frames_out_of_turn_end_the_carrier(manager: Manager) -> None:
    for words in ([frame(PACKET, packet(1))], [frame(99, b"{}")], [Sessions(())], [frame(HELLO, b"[]")]):
        with Visitor(manager) as peer:
            peer.say(*words)
            assert peer.gone()
    with Visitor(manager) as ann:
        ann.say(hello("ann")).welcome()
        ann.say(hello("ann"))
        assert ann.gone()
    assert manager.holders() == ["ann"]


def test_draining_says_goodbye_and_takes_nobody_more(manager: Manager) -> None:
    with Visitor(manager) as ann:
        address = ann.say(hello("ann")).welcome().address
        manager.ask(manager.server.drain)
        manager.ask(manager.server.drain)
        assert ann.refusal().code == "draining"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(manager.address)
        os.write(manager.network.cluster_side(address), packet(1))
        assert ann.packet() == packet(1)
        manager.ask(manager.server.close)
        assert ann.gone()
        assert manager.network.devices == {}


def test_events_tell_who_comes_and_goes(manager: Manager, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, Visitor(manager) as ann:
        listener.settimeout(10)
        listener.connect(str(tmp_path / "tunnel.sock"))
        manager.until(lambda: manager.control._connections)
        address = ann.say(hello("ann")).welcome().address
        ann.say(BYE)
        said = [decode_to_control(listener.recv(4096)) for _ in range(4)]
    assert said == [ManagerAddress(POD.address), Synced(), Seen("joined", "ann", address), Seen("left", "ann", address)]


def test_a_listener_that_goes_or_stalls_costs_the_tunnel_nothing(manager: Manager, tmp_path: Path) -> None:
    stalled = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(6)]
    for listener in stalled:
        listener.connect(str(tmp_path / "tunnel.sock"))
    manager.until(lambda: len(manager.control._connections) == 4)
    for listener in stalled[:4]:
        listener.close()
    for _ in range(300):
        manager.ask(lambda: manager.control.seen(Seen("joined", "x" * 1000, POD.address)))
    assert manager.ask(lambda: len(manager.control._connections)) == 2
    for listener in stalled:
        listener.close()


def test_a_carrier_that_breaks_while_it_is_welcomed_takes_no_queue(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_send(_data: object, _flags: int = 0) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    class Broken(SocketTransport):
        def __init__(self, sock: socket.socket) -> None:
            super().__init__(sock)
            self.send = broken_send

    with Visitor(manager) as ann:
        address = ann.say(hello("ann", carriers=2)).welcome().address
        manager.until(lambda: manager.network.attached(address) == [True, False])
        monkeypatch.setattr(server, "SocketTransport", Broken)
        with Visitor(manager) as broken:
            assert broken.say(hello("ann", carriers=2, carrier=1)).gone()
        with Visitor(manager) as broken:
            assert broken.say(hello("ann", carriers=2, carrier=0)).gone()
        assert manager.network.attached(address) == [True, False]
        put(manager.network.cluster_side(address), [packet(7)])
        assert numbers([ann.packet()]) == [7], "the first one was not replaced by one that is of no use"
