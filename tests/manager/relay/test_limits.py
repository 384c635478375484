"""Many connections, slow ones, and garbage: who is refused, and who goes on."""

import os
import resource
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.manager.relay import server
from meshdev.manager.relay.admission import Admission
from meshdev.pump.end import SocketEnd
from tests.manager.relay.conftest import Make
from tests.manager.relay.test_client_hello import TLS12
from tests.manager.relay.world import RelayWorld
from tests.sockets import exactly, is_reset


def works(world: RelayWorld) -> None:
    client, laptop = world.both()
    client.sendall(b"fine")
    assert exactly(laptop, 4) == b"fine"


@pytest.mark.parametrize("words", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\0\0", TLS12 + b"x", b"\0" * 20000])
def test_garbage_is_reset_at_once(world: RelayWorld, words: bytes) -> None:
    sock = world.client()
    sock.sendall(words)
    assert is_reset(sock)
    works(world)


def test_who_says_nothing_or_little_is_reset_in_time(world: RelayWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.5)
    began = time.monotonic()
    silent, slow = world.client(), world.client()
    for byte in TLS12[:20]:  # a slow loris
        slow.sendall(bytes([byte]))
        world.do(lambda: None)
    assert is_reset(silent)
    assert is_reset(slow)
    assert 0.4 < time.monotonic() - began < 4
    works(world)


def test_who_goes_silent_in_the_middle_of_the_handshake(world: RelayWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.5)
    sock = world.client()
    hello = TLS12.replace(b"20001.relay", b"%d.relay" % world.relay)
    sock.sendall(hello)
    assert sock.recv(1 << 16)
    assert is_reset(sock)


def test_a_handshake_is_bounded(world: RelayWorld) -> None:
    sock = world.client()
    sock.sendall(TLS12.replace(b"20001.relay", b"%d.relay" % world.relay))
    assert sock.recv(1 << 16)
    message = b"\x0b\x01\x00\x00" + bytes(65536)  # a Certificate of 64 KiB
    for at in range(0, len(message), 16000):
        piece = message[at : at + 16000]
        try:
            sock.sendall(b"\x16\x03\x03" + len(piece).to_bytes(2, "big") + piece)
        except ConnectionResetError:
            return
    assert is_reset(sock)


def test_a_thousand_that_say_nothing(world: RelayWorld) -> None:
    """They have the whole port for themselves, but for whoever speaks."""
    silent = [world.client() for _ in range(1000)]
    works(world)
    world.until(lambda: len(world.server._admission) <= 768)
    assert is_reset(silent[0])
    began = time.monotonic()
    for _ in range(20):
        works(world)
    assert time.monotonic() - began < server.HANDSHAKE_SECONDS


def test_the_oldest_handshake_of_a_source_makes_room(make: Make) -> None:
    world = make(admission=Admission(8, 4))
    waiting = [world.client() for _ in range(4)]
    world.until(lambda: world.server.open == 4)
    works(world)
    assert is_reset(waiting[0])
    assert world.server.open == 4


def test_more_than_all_are_reset_at_once(make: Make) -> None:
    world = make(descriptors=64 + 2 * 64)
    pairs = [world.both() for _ in range(world.server.most // 2)]
    sock = world.client()
    assert len(pairs) == 32
    with pytest.raises(ConnectionResetError):
        world.tls()  # half of all are this key's
    other = world.issue()
    world.permit(other.key.key_id, world.workload.key.key_id)
    more = [world.tls(other.context()) for _ in range(world.server.most - world.server.open)]
    assert len(more) == 31
    with pytest.raises(ConnectionResetError):
        world.tls(other.context())
    sock.close()
    world.until(lambda: world.server.open < world.server.most)
    more.append(world.tls(other.context()))


def test_no_descriptor_left_is_a_pause(world: RelayWorld, caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    pair = world.both()
    waiting = socket.socket()
    waiting.settimeout(10)
    context = world.workload.context()
    used = max(int(each) for each in os.listdir("/proc/self/fd")) + 1  # noqa: PTH208 -- numbers
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    try:
        waiting.connect(world.listener.getsockname())
        world.until(lambda: "connections are not accepted for a while" in caplog.text)
        pair[0].sendall(b"fine")
        assert exactly(pair[1], 4) == b"fine"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)
    world.until(lambda: world.server.open == 2)
    waiting.close()
    world.tls(context)


def test_what_peers_can_cause_is_logged_now_and_then(world: RelayWorld, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(50):
        sock = world.client()
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert is_reset(sock)
    lines = [each.getMessage() for each in caplog.records]
    assert lines == ["127.0.0.1 is refused: not a TLS handshake"]
    world.do(world.server.close)
    assert caplog.records[-1].getMessage() == "127.0.0.1 is refused: not a TLS handshake (49 such in 10 s)"


def test_nothing_stays_open(world: RelayWorld) -> None:
    pairs = [world.both() for _ in range(5)]
    waiting = world.client()
    world.do(world.server.close)
    for client, laptop in pairs:
        assert is_reset(laptop)
        assert is_reset(client.sock)
    assert is_reset(waiting)
    assert SocketEnd(world.listener).fd >= 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=60))
def test_admission_keeps_its_limits(steps: list[tuple[str, int]]) -> None:
    """*steps*: who enters, and which of those inside leaves before (0 to 9; above that nobody does)."""
    admission: Admission[int] = Admission(6, 4)
    inside: list[tuple[str, int]] = []
    for number, (source, leaving) in enumerate(steps):
        if leaving < len(inside) and leaving < 10:
            admission.leave(inside.pop(leaving)[1])
        of_source = [each for each in inside if each[0] == source]
        out = admission.enter(source, number)
        if len(of_source) == 4:
            assert out == of_source[0][1]
        elif len(inside) == 6:
            assert out is not None
            whose = next(each for each in inside if each[1] == out)[0]
            counts = {each: sum(other[0] == each for other in inside) for each in "abc"}
            assert counts[whose] == max(counts.values())
            assert out == min(each[1] for each in inside if each[0] == whose)
        else:
            assert out is None
        inside = [each for each in inside if each[1] != out]
        inside.append((source, number))
        assert len(admission) == len(inside) <= 6
        assert admission.oldest() == inside[0][1]
