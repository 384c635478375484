"""Bytes both ways, and how the ends of one side reach the other."""

import socket
import threading
import time
from ipaddress import IPv4Address

import pytest

from meshdev.manager.relay import legs, server
from meshdev.pump.end import SocketEnd
from meshdev.wire.relay import RelayEndpoint, RelayRemoved, RelaysSynced
from tests.manager.relay.world import RelayWorld, TlsClient
from tests.sockets import everything, exactly, is_reset, reset

BODY = bytes(range(256)) * 8192  # 2 MiB


def ended(world: RelayWorld) -> None:
    world.until(lambda: not world.server.open)


def in_thread(step: object, *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=step, args=arguments)  # type: ignore[arg-type] # a bound method of either side
    thread.start()
    return thread


def test_large_bodies_both_ways_at_once(world: RelayWorld) -> None:
    client, laptop = world.both()
    received: list[bytes] = []
    threads = [
        in_thread(laptop.sendall, BODY),
        in_thread(lambda: received.append(exactly(laptop, len(BODY)))),
        in_thread(client.sock.sendall, client.records(BODY)),
    ]
    assert exactly(client, len(BODY)) == BODY
    for thread in threads:
        thread.join(10)
    assert received == [BODY]


def test_small_pieces_in_turns(world: RelayWorld) -> None:
    client, laptop = world.both()
    for number in range(500):
        client.sendall(b"%03d" % number)
        assert exactly(laptop, 3) == b"%03d" % number
        laptop.sendall(b"%04d" % number)
        assert exactly(client, 4) == b"%04d" % number


def test_records_in_pieces_of_a_byte(world: RelayWorld) -> None:
    client, laptop = world.both()
    for byte in client.records(b"hello"):
        client.sock.sendall(bytes([byte]))
    assert exactly(laptop, 5) == b"hello"


def test_the_laptop_speaks_first(world: RelayWorld) -> None:
    speaker = in_thread(lambda: world.accept().sendall(b"220 hello"))
    assert world.tls().recv(100) == b"220 hello"
    speaker.join(10)


def test_a_close_notify_ends_one_direction(world: RelayWorld) -> None:
    client, laptop = world.both()
    client.sendall(b"question")
    client.finish()
    assert everything(laptop) == b"question"
    laptop.sendall(BODY)
    laptop.close()
    assert everything(client) == BODY
    ended(world)


def test_a_fin_of_the_laptop_ends_one_direction(world: RelayWorld) -> None:
    client, laptop = world.both()
    laptop.sendall(b"answer")
    laptop.shutdown(socket.SHUT_WR)
    assert everything(client) == b"answer"
    sender = in_thread(client.sock.sendall, client.records(BODY))
    assert exactly(laptop, len(BODY)) == BODY
    sender.join(10)
    client.finish()
    assert laptop.recv(100) == b""
    ended(world)


def test_a_fin_of_the_laptop_in_the_middle_of_a_record_of_the_client(world: RelayWorld) -> None:
    """OpenSSL is asked for the client's close_notify then, and must not lose the record."""
    client, laptop = world.both()
    record = client.records(b"x" * 1000)
    client.sock.sendall(record[:500])
    laptop.shutdown(socket.SHUT_WR)
    assert client.recv(100) == b""
    client.sock.sendall(record[500:])
    assert exactly(laptop, 1000) == b"x" * 1000


def test_the_last_bytes_of_the_client_come_with_its_end(world: RelayWorld) -> None:
    """In one read, and after the laptop's end."""
    client, laptop = world.both()
    laptop.shutdown(socket.SHUT_WR)
    assert client.recv(100) == b""
    client.sock.sendall(client.records(b"a" * 100) + client.records(b"b" * 100) + client.ending())
    assert everything(laptop) == b"a" * 100 + b"b" * 100
    ended(world)


def test_both_ends_at_once(world: RelayWorld) -> None:
    for _ in range(20):
        client, laptop = world.both()
        closer = in_thread(laptop.shutdown, socket.SHUT_WR)
        client.finish()
        assert (laptop.recv(1), client.recv(1)) == (b"", b"")
        closer.join(10)
    ended(world)


def test_a_client_that_closes_is_a_fin(world: RelayWorld) -> None:
    """As Envoy closes: close_notify, and the socket at once."""
    client, laptop = world.both()
    client.sendall(BODY[:100_000])
    client.finish()
    client.sock.close()
    assert everything(laptop) == BODY[:100_000]
    send_until_reset(laptop)
    ended(world)


def test_an_end_without_close_notify_is_a_truncation(world: RelayWorld) -> None:
    client, laptop = world.both()
    client.sendall(b"half")
    assert exactly(laptop, 4) == b"half"
    client.sock.shutdown(socket.SHUT_WR)
    assert is_reset(laptop)
    assert is_reset(client.sock)
    ended(world)


def test_who_only_looks_whether_the_laptop_listens_resets_nothing(world: RelayWorld) -> None:
    client, laptop = world.both()
    client.sock.close()
    assert laptop.recv(1) == b""
    world.until(lambda: not world.server.open)


def test_a_reset_of_the_client(world: RelayWorld) -> None:
    client, laptop = world.both()
    reset(client.sock)
    assert is_reset(laptop)
    ended(world)


def test_a_reset_of_the_laptop_comes_after_what_it_sent(world: RelayWorld) -> None:
    client, laptop = world.both()
    laptop.sendall(BODY[:300_000])
    world.until(lambda: legs_are_empty(laptop))
    reset(laptop)
    assert exactly(client, 300_000) == BODY[:300_000]
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    ended(world)


def legs_are_empty(sock: socket.socket) -> bool:
    """Whether the other kernel has all that was sent: a reset takes away the rest."""
    return SocketEnd(sock).unacknowledged == 0


def test_a_laptop_that_resets_while_it_is_sent_to(world: RelayWorld) -> None:
    client, laptop = world.both()
    sender = in_thread(send_until_reset, client)
    exactly(laptop, 100_000)
    reset(laptop)
    sender.join(10)
    assert not sender.is_alive()
    ended(world)


def send_until_reset(end: socket.socket | TlsClient) -> None:
    try:
        while True:
            end.sendall(BODY)
    except (ConnectionResetError, BrokenPipeError):
        pass


def test_a_laptop_that_stops_reading_for_a_while_is_no_silent_one(
    world: RelayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that is stopped in a debugger; with TCP_USER_TIMEOUT its connection would end."""
    monkeypatch.setattr(legs, "SILENT_SECONDS", 0.5)
    client = world.tls()
    laptop = world.accept(receive_buffer=4096)
    sender = in_thread(client.sock.sendall, client.records(BODY))
    began = time.monotonic()
    world.until(lambda: time.monotonic() - began > 2.5)
    assert exactly(laptop, len(BODY)) == BODY
    sender.join(10)


def test_a_client_that_never_reads_keeps_little_here(world: RelayWorld) -> None:
    client = world.tls(receive_buffer=4096)
    laptop = world.accept()
    laptop.setblocking(False)
    sent = 0
    idle = time.monotonic()
    while time.monotonic() - idle < 0.5:
        try:
            sent += laptop.send(BODY)
            idle = time.monotonic()
        except BlockingIOError:
            world.do(lambda: None)
    (connection,) = world.server._connections
    streams = connection._streams
    assert streams is not None
    assert 0 < len(streams._client.out) <= server.PIECE_BYTES + 4096
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    laptop.setblocking(True)
    laptop.shutdown(socket.SHUT_WR)
    assert len(everything(client)) == sent


def test_garbage_after_the_handshake(world: RelayWorld) -> None:
    client, laptop = world.both()
    client.sendall(b"fine")
    assert exactly(laptop, 4) == b"fine"
    client.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert is_reset(laptop)
    assert is_reset(client.sock)


def test_a_record_that_is_too_large(world: RelayWorld) -> None:
    client, laptop = world.both()
    client.sock.sendall(b"\x17\x03\x03\xff\xff" + bytes(1000))
    assert is_reset(laptop)


def test_a_bug_ends_one_connection_only(
    world: RelayWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client, laptop = world.both()
    other, its_laptop = world.both()
    other.sendall(b"fine")
    assert exactly(its_laptop, 4) == b"fine"

    def broken(*_: object) -> int:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr("meshdev.manager.relay.tls.TlsStream.decrypt", broken)
        client.sendall(b"x")
        assert is_reset(laptop)
    assert "a connection ends by an internal error" in caplog.text
    other.sendall(b"fine")
    assert exactly(its_laptop, 4) == b"fine"


@pytest.mark.parametrize("how", ["key", "address"])
def test_what_is_no_longer_permitted_ends_at_once(world: RelayWorld, how: str) -> None:
    client, laptop = world.both()
    if how == "key":
        world.permit("0" * 64)
    else:
        world.take(RelayEndpoint(world.relay, IPv4Address("127.0.77.3"), frozenset({world.workload.key.key_id})))
    assert is_reset(laptop)
    assert is_reset(client.sock)
    assert not world.server.open


@pytest.mark.parametrize("how", ["removed", "not named again"])
def test_what_is_on_its_way_when_a_claim_ends_is_finished(
    world: RelayWorld, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(server, "DRAIN_SECONDS", 0.5)
    client, laptop = world.both()
    if how == "removed":
        world.take(RelayRemoved(world.relay))
    else:
        world.do(world.server.control_connected)
        world.take(RelaysSynced())
    with pytest.raises(ConnectionResetError):
        world.tls()
    client.sendall(b"question")
    assert exactly(laptop, 8) == b"question"
    laptop.sendall(b"answer")
    assert client.recv(100) == b"answer"
    assert is_reset(laptop)
    assert is_reset(client.sock)


def test_a_relay_that_comes_again_keeps_its_connections(world: RelayWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DRAIN_SECONDS", 0.1)
    client, laptop = world.both()
    world.take(RelayRemoved(world.relay))
    world.permit()
    over = world.loop.clock() + 0.3
    world.until(lambda: world.loop.clock() > over)
    client.sendall(b"fine")
    assert exactly(laptop, 4) == b"fine"


def test_what_stays_permitted_goes_on(world: RelayWorld) -> None:
    client, laptop = world.both()
    world.permit("0" * 64, world.workload.key.key_id)
    world.do(world.server.control_connected)
    world.permit()
    world.take(RelaysSynced())
    client.sendall(b"fine")
    assert exactly(laptop, 4) == b"fine"
