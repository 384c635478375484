"""The packet pump between a memory device and a socket: packets, control frames, heartbeat, and its end."""

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshdev.errors import MeshdevError, PeerClosed, ProtocolError, TunnelError
from meshdev.pump.loop import Loop
from meshdev.pump.pump import BATCH_PACKETS
from meshdev.pump.transport import SocketTransport
from meshdev.wire import frames
from meshdev.wire.frames import CLOSE, OPTIONAL, PACKET, PING, PONG, frame
from tests.loops import Clock, one_round, pass_time, until
from tests.pump.ends import End, drain, make_end, numbers, packet, put, take
from tests.sockets import reset


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Iterator[Loop]:
    loop = Loop(clock)
    yield loop
    loop.close()


@pytest.fixture
def end(loop: Loop) -> Iterator[End]:
    end = make_end(loop)
    end.pump.start(ping=False)
    end.attach()
    yield end
    end.pump.end(PeerClosed("the test is over"))
    end.close()


def test_packets_leave_in_order_each_in_its_frame(loop: Loop, end: End) -> None:
    put(end.kernel, [packet(number) for number in range(5)])
    one_round(loop)
    sent = end.sent()
    assert sent == [(PACKET, packet(number)) for number in range(5)]
    assert (end.pump.counters.packets_out, end.pump.counters.bytes_out) == (5, 5 * 64)


def test_packets_arrive_in_order(loop: Loop, end: End) -> None:
    end.wire.send(b"".join(frame(PACKET, packet(number)) for number in range(5)))
    one_round(loop)
    assert take(end.kernel) == [packet(number) for number in range(5)]
    assert (end.pump.counters.packets_in, end.pump.counters.bytes_in) == (5, 5 * 60)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(30, 9000), min_size=1, max_size=30), st.integers(1, 3000))
def test_packets_arrive_whole_however_the_stream_is_cut(sizes: list[int], piece: int) -> None:
    loop = Loop()
    end = make_end(loop)
    end.pump.start(ping=False)
    end.attach()
    sent = [packet(number, size) for number, size in enumerate(sizes)]
    wire = b"".join(frame(PACKET, one) for one in sent)
    arrived: list[bytes] = []
    for start in range(0, len(wire), piece):
        end.wire.send(wire[start : start + piece])
        one_round(loop)
        arrived += take(end.kernel)
    assert arrived == sent
    end.pump.end(PeerClosed("done"))
    end.close()
    loop.close()


def test_the_largest_packet_passes_both_ways(loop: Loop, end: End) -> None:
    largest = packet(1, frames.MAX_PACKET)
    put(end.kernel, [largest])
    one_round(loop)
    assert end.sent() == [(PACKET, largest)]
    end.wire.setblocking(True)
    end.wire.sendall(frame(PACKET, largest))
    until(loop, lambda: end.pump.counters.packets_in)
    assert take(end.kernel) == [largest]


def test_a_batch_is_bounded_and_the_rest_follows(loop: Loop, end: End) -> None:
    count = put(end.kernel, (packet(number) for number in range(3 * BATCH_PACKETS)))
    one_round(loop)
    assert end.pump.counters.packets_out == BATCH_PACKETS
    until(loop, lambda: end.pump.counters.packets_out == count)
    assert numbers(body for _, body in end.sent()) == list(range(count))


def test_a_runt_of_a_raw_socket_is_dropped_and_nothing_else(loop: Loop, end: End) -> None:
    put(end.kernel, [packet(1), b"x" * 12, packet(2)])
    until(loop, lambda: end.pump.counters.packets_out == 2)
    assert numbers(body for _, body in end.sent()) == [1, 2]
    assert end.pump.counters.dropped == 1


def test_a_packet_that_the_queue_refuses_is_dropped_and_counted(loop: Loop, end: End) -> None:
    """TUN drops what is no packet; a memory queue refuses when it is full."""
    many = frame(PACKET, packet(0, 60_000)) * 100
    end.wire.setblocking(False)
    while many:
        many = many[end.wire.send(many) :]
        one_round(loop)
    until(loop, lambda: end.pump.counters.packets_in + end.pump.counters.dropped == 100)
    assert end.pump.counters.dropped > 0
    assert len(take(end.kernel)) == end.pump.counters.packets_in
    assert end.ended == []


def test_a_packet_with_a_header_that_no_kernel_makes_is_dropped_and_the_others_pass(loop: Loop, end: End) -> None:
    bad = b"\1\1" + b"\xff" * 8 + packet(2)[10:]
    end.wire.send(b"".join(frame(PACKET, one) for one in (packet(1), bad, packet(3))))
    one_round(loop)
    assert numbers(take(end.kernel)) == [1, 3]
    counters = end.pump.counters
    assert (counters.packets_in, counters.dropped, counters.malformed, end.ended) == (2, 1, 1, [])


def test_a_pump_that_has_ended_is_not_attached(loop: Loop) -> None:
    end = make_end(loop)
    end.pump.start(ping=False)
    end.wire.close()
    until(loop, lambda: end.ended)
    with pytest.raises(TunnelError, match="ended before it was attached"):
        end.attach()
    put(end.kernel, [packet(1)])
    one_round(loop)
    assert end.pump.counters.packets_out == 0
    end.close()


def test_a_packet_before_the_session_is_agreed_ends_the_carrier(loop: Loop) -> None:
    end = make_end(loop)
    end.pump.start(ping=False)
    end.wire.send(frame(PACKET, packet(1)))
    one_round(loop)
    assert [type(error) for error in end.ended] == [ProtocolError]
    end.close()


def test_other_frames_go_to_the_owner(loop: Loop, end: End) -> None:
    end.wire.send(frame(CLOSE, b"{}") + frame(OPTIONAL, b"") + frame(PACKET, packet(7)))
    one_round(loop)
    assert end.heard == [(CLOSE, b"{}"), (OPTIONAL, b"")]
    assert numbers(take(end.kernel)) == [7]


def test_nothing_is_read_after_the_owner_ended_the_pump_from_within(loop: Loop) -> None:
    end = make_end(loop)
    end.pump._on_frame = lambda *_: end.pump.end(TunnelError("enough"))
    end.pump.start(ping=False)
    end.attach()
    end.wire.send(frame(CLOSE, b"") + frame(PACKET, packet(1)) + b"\xff" * 100)
    one_round(loop)
    assert [error.message for error in end.ended] == ["enough"]
    assert take(end.kernel) == []
    end.close()


# -- heartbeat -----------------------------------------------------------------------------------------------------


def test_the_greeting_is_the_first_frame_then_a_ping_each_second(loop: Loop, clock: Clock) -> None:
    end = make_end(loop)
    end.pump.start(ping=True, greeting=frame(CLOSE, b"hello"))
    assert [kind for kind, _ in end.sent()] == [CLOSE, PING]
    pass_time(loop, clock, 3)
    assert [kind for kind, _ in end.sent()] == [PING] * 3
    end.pump.end(PeerClosed("done"))
    end.close()


def test_a_pong_tells_the_round_trip(loop: Loop, clock: Clock) -> None:
    end = make_end(loop)
    end.pump.start(ping=True)
    ((_, question),) = end.sent()
    clock.now += 0.25
    end.wire.send(frame(PONG, question))
    one_round(loop)
    assert end.pump.round_trip == pytest.approx(0.25)
    end.wire.send(frame(PONG, b"\xff" * 8))
    one_round(loop)
    assert end.pump.round_trip == 0
    end.pump.end(PeerClosed("done"))
    end.close()


def test_a_ping_is_answered_with_its_own_bytes_and_a_flood_of_them_once_a_turn(loop: Loop, end: End) -> None:
    end.wire.send(frame(PING, b"question"))
    one_round(loop)
    assert end.sent() == [(PONG, b"question")]
    end.wire.send(b"".join(frame(PING, number.to_bytes(8, "big")) for number in range(1000)))
    one_round(loop)
    assert end.sent() == [(PONG, (999).to_bytes(8, "big"))]


@pytest.mark.parametrize("ping", [True, False])
def test_silence_ends_the_carrier(loop: Loop, clock: Clock, ping: bool) -> None:
    end = make_end(loop)
    end.pump.start(ping=ping)
    pass_time(loop, clock, 5)
    assert end.ended == []
    pass_time(loop, clock, 1.5)
    assert [error.message for error in end.ended] == ["nothing came through the carrier for 5 seconds"]
    end.close()


def test_any_byte_is_a_sign_of_life(loop: Loop, clock: Clock, end: End) -> None:
    for _ in range(10):
        end.wire.send(frame(PACKET, packet(1)))
        pass_time(loop, clock, 4)
    assert end.ended == []


def test_a_process_that_was_stopped_reads_what_waits_before_it_judges(clock: Clock, end: End) -> None:
    clock.now += 60
    end.wire.send(frame(PING, b"question"))
    end.pump._beat(ping=False)
    assert end.ended == []
    assert end.sent() == [(PONG, b"question")]
    clock.now += 60
    end.pump._beat(ping=False)
    assert [type(error) for error in end.ended] == [TunnelError]


# -- the end -------------------------------------------------------------------------------------------------------


def test_the_end_of_the_stream(loop: Loop, end: End) -> None:
    end.wire.send(frame(PACKET, packet(3)))
    end.wire.close()
    until(loop, lambda: end.ended)
    assert [type(error) for error in end.ended] == [PeerClosed]
    assert numbers(take(end.kernel)) == [3]


def test_a_reset() -> None:
    loop = Loop()
    listener = socket.create_server(("127.0.0.1", 0))
    far = socket.create_connection(listener.getsockname())
    near, _ = listener.accept()
    end = make_end(loop, transport=SocketTransport(near))
    end.pump.start(ping=False)
    reset(far)
    until(loop, lambda: end.ended)
    assert end.ended[0].message == "the carrier broke: Connection reset by peer"
    end.close()
    listener.close()
    loop.close()


@pytest.mark.parametrize("noise", [b"\xff" * 40, b"\x01\x00\x00\x00", b"\x02\x01\x00\x01", b"\x04\0\0\0"])
def test_hostile_bytes_end_the_carrier(loop: Loop, end: End, noise: bytes) -> None:
    end.wire.send(noise)
    one_round(loop)
    assert [type(error) for error in end.ended] == [ProtocolError]
    assert drain(end.wire) == b""


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=2000))
def test_noise_never_breaks_the_loop(noise: bytes) -> None:
    loop = Loop()
    end = make_end(loop)
    end.pump.start(ping=False)
    end.attach()
    end.wire.send(noise)
    one_round(loop)
    assert all(isinstance(error, MeshdevError) for error in end.ended)
    end.pump.end(PeerClosed("done"))
    end.close()
    loop.close()


def test_the_end_closes_the_stream_once_and_lets_go_of_queue_and_buffers(loop: Loop, end: End) -> None:
    end.pump.end(TunnelError("first"))
    end.pump.end(TunnelError("second"))
    end.pump.send(frame(CLOSE, b""))
    assert [error.message for error in end.ended] == ["first"]
    assert end.wire.recv(1) == b""
    assert end.device.queues[0].fileno() >= 0
    assert len(end.pump._batch) == 0
    assert loop._callbacks.keys() == {loop._wake}


def test_a_call_without_need_does_no_harm(clock: Clock, end: End) -> None:
    """Events of a descriptor whose number was used again (see Loop)."""
    heard = end.pump.last_received
    clock.now += 1
    for events in (1, 4, 8, 16, 0x2000):
        end.pump._on_stream(events)
        end.pump._on_queue(events)
    assert end.ended == []
    assert end.pump.last_received == heard
