"""Back-pressure: a full stream rests its own queue and no other, holds little memory, and goes on where it stopped."""

import socket
import ssl
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from meshdev.errors import PeerClosed
from meshdev.pump.loop import Loop
from meshdev.pump.pump import BATCH_BYTES, MAX_WAITING_CONTROL
from meshdev.pump.transport import TlsTransport
from meshdev.wire import frames
from meshdev.wire.frames import CLOSE, OPTIONAL, PACKET, PING, frame
from tests.loops import one_round, until
from tests.pump.ends import End, make_end, numbers, packet, put, take

SMALL = 16 * 1024


@pytest.fixture
def end(loop: Loop) -> Iterator[End]:
    end = make_end(loop, buffer=SMALL)
    end.pump.start(ping=False)
    end.attach()
    yield end
    end.pump.end(PeerClosed("the test is over"))
    end.close()


def fill(loop: Loop, end: End, start: int = 0) -> int:
    """Feed packets until neither the pump nor its queue takes more; how many went in."""
    count, stalled = start, 0
    while stalled < 3:
        took = put(end.kernel, (packet(count + index, 1400) for index in range(100)))
        count += took
        one_round(loop)
        stalled = 0 if took else stalled + 1
    return count - start


def test_a_full_stream_rests_its_queue_and_goes_on_with_nothing_lost(loop: Loop, end: End) -> None:
    count = fill(loop, end)
    passed = end.pump.counters.packets_out
    for _ in range(5):
        one_round(loop)
    assert end.pump.counters.packets_out == passed < count
    received: list[int] = []

    def all_of_it() -> bool:
        received.extend(numbers(body for _, body in end.sent()))
        return len(received) >= count

    until(loop, all_of_it)
    assert received == list(range(count))
    put(end.kernel, [packet(count)])
    one_round(loop)
    assert numbers(body for _, body in end.sent()) == [count]


def test_a_full_stream_holds_one_batch_and_costs_no_processor_time(loop: Loop, end: End) -> None:
    fill(loop, end)
    assert 0 < len(end.pump._unsent) <= BATCH_BYTES + frames.HEADER_SIZE + frames.MAX_PACKET
    tracemalloc.start()
    try:
        for _ in range(50):
            one_round(loop)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 4096
    assert {fd for fd, _ in loop._epoll.poll(0)} <= {loop._wake}


def test_other_carriers_go_on(loop: Loop, end: End) -> None:
    other = make_end(loop)
    other.pump.start(ping=False)
    other.attach()
    fill(loop, end)
    put(other.kernel, [packet(number) for number in range(10)])
    one_round(loop)
    assert len(other.sent()) == 10
    other.pump.end(PeerClosed("done"))
    other.close()


def test_a_full_stream_still_receives(loop: Loop, end: End) -> None:
    fill(loop, end)
    take(end.kernel)
    end.wire.send(frame(PACKET, packet(5)) + frame(CLOSE, b"{}"))
    one_round(loop)
    assert end.heard == [(CLOSE, b"{}")]
    assert numbers(take(end.kernel)) == [5]


def test_control_frames_keep_their_order_and_go_ahead_of_packets_that_wait_in_the_queue(loop: Loop, end: End) -> None:
    count = fill(loop, end)
    begun = end.pump.counters.packets_out
    for number in range(5):
        end.pump.send(frame(OPTIONAL, str(number).encode()))
    received: list[tuple[int, bytes]] = []

    def all_of_it() -> bool:
        received.extend(end.sent())
        return len(received) >= count + 5

    until(loop, all_of_it)
    kinds = [kind for kind, _ in received]
    first = kinds.index(OPTIONAL)
    assert first == begun < count
    assert received[first : first + 5] == [(OPTIONAL, str(number).encode()) for number in range(5)]
    assert numbers(body for kind, body in received if kind == PACKET) == list(range(count))


def test_a_queue_attached_while_the_stream_is_full_rests_at_once(loop: Loop) -> None:
    end = make_end(loop, buffer=SMALL)
    end.pump.start(ping=False)
    for _ in range(20):
        end.pump.send(frame(OPTIONAL, bytes(60_000)))
    end.attach()
    put(end.kernel, [packet(1)])
    one_round(loop)
    assert end.pump.counters.packets_out == 0
    until(loop, lambda: any(kind == PACKET for kind, _ in end.sent()))
    end.pump.end(PeerClosed("done"))
    end.close()


def test_control_frames_that_nobody_takes_end_the_carrier(loop: Loop, end: End) -> None:
    fill(loop, end)
    for _ in range(MAX_WAITING_CONTROL + 1):
        end.pump.send(frame(OPTIONAL, b"x"))
    assert [error.message for error in end.ended] == ["the carrier takes no more control messages"]


def test_a_peer_that_asks_and_never_listens_is_ended_with_little_memory_spent(loop: Loop, end: End) -> None:
    fill(loop, end)
    flood = frame(PING, b"12345678") * 100
    for _ in range(MAX_WAITING_CONTROL + 5):
        if end.ended:
            break
        end.wire.send(flood)
        one_round(loop)
    assert len(end.ended) == 1


# -- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    subprocess.run(["openssl", *command.split(), "-keyout", path, "-out", path], check=True, capture_output=True)
    return path


def tls_pair(certificate: Path) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    near, far = socket.socketpair()
    for sock in (near, far):
        sock.setblocking(False)
    client = client_context.wrap_socket(near, do_handshake_on_connect=False)
    server = server_context.wrap_socket(far, server_side=True, do_handshake_on_connect=False)
    done = set[ssl.SSLSocket]()
    for turn in range(100):
        side = (client, server)[turn % 2]
        try:
            side.do_handshake()
            done.add(side)
        except ssl.SSLWantReadError:
            continue
        if len(done) == 2:
            return client, server
    raise AssertionError("no handshake")


def test_packets_both_ways_through_tls_in_order_and_nothing_stays_hidden_in_it(loop: Loop, certificate: Path) -> None:
    near, far = tls_pair(certificate)
    ends = [make_end(loop, transport=TlsTransport(sock)) for sock in (near, far)]
    for end in ends:
        end.pump.start(ping=False)
        end.attach()
    received: list[list[int]] = [[], []]
    sent, total = [0, 0], 300

    def all_of_it() -> bool:
        for index, end in enumerate(ends):
            if sent[index] < total:
                wanted = (packet(number, 20_000) for number in range(sent[index], total))
                sent[index] += put(end.kernel, wanted)
            received[1 - index] += numbers(take(ends[1 - index].kernel))
        return all(len(one) == total for one in received)

    until(loop, all_of_it)
    assert received == [list(range(total))] * 2
    ends[0].pump.end(PeerClosed("done"))
    until(loop, lambda: ends[1].ended)
    for end in ends:
        end.close()


def repeat(call: Callable[[], int]) -> NoReturn:
    """Until it raises; no call moves more than a TLS record."""
    while True:
        assert 0 < call() <= 16 * 1024


def test_the_transport_says_would_block_in_the_words_of_a_plain_socket(certificate: Path) -> None:
    near, far = tls_pair(certificate)
    transport = TlsTransport(near)
    room = memoryview(bytearray(1 << 16))
    with pytest.raises(BlockingIOError):
        repeat(lambda: transport.recv_into(room))
    with pytest.raises(BlockingIOError):
        repeat(lambda: transport.send(bytes(1 << 20)))
    transport.close()
    transport.close()
    far.close()


def test_a_pump_without_packets_costs_no_batch() -> None:
    loop = Loop()
    end = make_end(loop)
    end.pump.start(ping=False)
    assert len(end.pump._batch) == 0
    end.pump.end(PeerClosed("done"))
    end.close()
    loop.close()
