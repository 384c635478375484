"""Hostile peers on the tunnel port: whatever they do, another session's packets pass meanwhile."""

import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from meshdev.manager.tunnel.server import MAX_UNAUTHENTICATED
from meshdev.wire.control import encode
from meshdev.wire.frames import HELLO, OPTIONAL, PACKET, PING, frame
from tests.manager.standin import Manager, Visitor, hello
from tests.pump.ends import packet

#: The longest an honest packet may take there and back: far below the 5 s at which a carrier counts as silent.
PATIENCE_SECONDS = 3.0


class Honest:
    """A session that sends a packet and waits for its echo from the cluster's side, again and again."""

    def __init__(self, manager: Manager) -> None:
        self._visitor = Visitor(manager)
        address = self._visitor.say(hello("honest")).welcome().address
        self._cluster = manager.network.cluster_side(address)
        os.set_blocking(self._cluster, True)

    def exchange(self, number: int) -> float:
        """Seconds one packet took there and back."""
        begun = time.monotonic()
        self._visitor.say(frame(PACKET, packet(number)))
        os.write(self._cluster, os.read(self._cluster, 1 << 16))
        assert self._visitor.packet() == packet(number)
        return time.monotonic() - begun

    def close(self) -> None:
        self._visitor.close()


@contextmanager
def honest_session(manager: Manager) -> Iterator[list[float]]:
    """An honest session exchanges packets while the block runs; its times, from first to last."""
    honest, stop = Honest(manager), threading.Event()
    times = [honest.exchange(0)]

    def work() -> None:
        while not stop.is_set():
            times.append(honest.exchange(len(times)))

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield times
    finally:
        stop.set()
        worker.join(20)
        assert not worker.is_alive()
        times.append(honest.exchange(len(times)))
        honest.close()
    assert max(times) < PATIENCE_SECONDS


def connect(manager: Manager) -> socket.socket:
    return socket.create_connection(manager.address, timeout=10)


def wait_for_the_end(sock: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(1 << 16):
            pass


GREETING = encode(hello("eve"))
ENDED_AT_ONCE = [
    b"\x01\xff\xff\xff",
    b"\x02\x01\x00\x01",
    b"\x04\x00\x00\x09",
    b"\x7f\xff\xff\xff" + bytes(1000),
    b"GET / HTTP/1.1\r\n\r\n",
    frame(PACKET, packet(1)),
    frame(HELLO, b"{}"),
    frame(HELLO, b"[" * 60_000),
    frame(HELLO, b'{"a":' * 13_000),
    frame(HELLO, bytes(65_536)),
    GREETING + b"\x01\x00\x00\x05",
    GREETING + GREETING,
    GREETING + b"\xff" * 4,
]


@pytest.mark.parametrize("words", ENDED_AT_ONCE, ids=range(len(ENDED_AT_ONCE)))
def test_what_cannot_be_is_ended_at_once(manager: Manager, words: bytes) -> None:
    with honest_session(manager):
        for _ in range(20):
            with connect(manager) as sock:
                sock.sendall(words)
                wait_for_the_end(sock)
    assert set(manager.holders()) <= {"honest", "eve"}


def test_random_bytes(manager: Manager) -> None:
    dice = random.Random(7)  # noqa: S311 -- the same noise in every run
    with honest_session(manager):
        for _ in range(300):
            with connect(manager) as sock, contextlib.suppress(ConnectionError):
                sock.sendall(GREETING * dice.randint(0, 1) + dice.randbytes(dice.randint(1, 5000)))
    assert set(manager.holders()) <= {"honest", "eve"}


def test_random_bytes_inside_well_formed_frames(manager: Manager) -> None:
    dice = random.Random(8)  # noqa: S311 -- as above
    with honest_session(manager):
        for _ in range(200):
            kinds = [dice.choice([1, 2, 3, 4, 6, 7, 0x80, 0xFF]) for _ in range(20)]
            words = b"".join(bytes([kind, 0, 0, 40]) + dice.randbytes(40) for kind in kinds)
            with connect(manager) as sock, contextlib.suppress(ConnectionError):
                sock.sendall(GREETING + words)


def test_half_frames(manager: Manager) -> None:
    halves = [connect(manager) for _ in range(50)]
    with honest_session(manager):
        for index, sock in enumerate(halves):
            sock.sendall(GREETING[: index + 1])
    for sock in halves:
        sock.close()
    manager.until(lambda: not manager.server._unauthenticated)


def test_a_thousand_idle_connections(manager: Manager) -> None:
    with honest_session(manager) as times:
        idle = [connect(manager) for _ in range(1000)]
        assert manager.ask(lambda: len(manager.server._unauthenticated)) <= MAX_UNAUTHENTICATED
        with Visitor(manager) as newcomer:
            newcomer.say(hello("newcomer")).welcome()
        assert len(times) > 1
    for sock in idle:
        sock.close()
    manager.until(lambda: not manager.server._unauthenticated)
    assert "honest" in manager.holders()


#: Arguments: host, port, whether it reads; standard input: what it says once, and what it says all the time.
FLOOD = """
import contextlib, socket, sys
size = int.from_bytes(sys.stdin.buffer.read(4))
greeting, words = sys.stdin.buffer.read(size), sys.stdin.buffer.read()
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as sock, contextlib.suppress(OSError):
    sock.sendall(greeting)
    while True:
        sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            sock.send(words)
        if sys.argv[3] == "True":
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.recv(1 << 20)
"""

#: A flood, for at least a second and until others have got something through it.
Flood = Callable[[Manager, Callable[[], bool]], None]


def flood(words: bytes, *, listen: bool) -> Flood:
    """A joined session that sends *words* without end, or until it is thrown out: a process, as attackers are."""

    def attack(manager: Manager, enough: Callable[[], bool]) -> None:
        command = [sys.executable, "-c", FLOOD, *map(str, manager.address), str(listen)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            process.stdin.write(len(GREETING).to_bytes(4) + GREETING + words)
            process.stdin.close()
            manager.until(lambda: process.poll() is not None or len(manager.server.observe().sessions) > 1)
            begun = time.monotonic()
            while (lasted := time.monotonic() - begun) < 1 or (lasted < PATIENCE_SECONDS and not enough()):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
                    break
            process.kill()

    return attack


@pytest.mark.parametrize(
    "attack",
    [
        flood(frame(PING, b"12345678") * 5000, listen=True),
        flood(frame(PING, b"12345678") * 5000, listen=False),
        flood(frame(OPTIONAL, b"") * 20_000, listen=False),
        flood(frame(PACKET, packet(0, 30)) * 5000, listen=False),
        flood(frame(PACKET, packet(0, 60_000)) * 4, listen=False),
    ],
    ids=["pings", "pings-unheard", "empty-frames", "small-packets", "large-packets"],
)
def test_a_flood_leaves_room_for_others(manager: Manager, attack: Flood) -> None:
    with honest_session(manager) as times:
        attack(manager, lambda: len(times) > 1)
        assert len(times) > 1


def test_one_who_never_reads_holds_up_nobody(manager: Manager) -> None:
    with Visitor(manager) as deaf:
        address = deaf.say(hello("deaf")).welcome().address
        cluster = manager.network.cluster_side(address)
        with honest_session(manager):
            sent, refused = 0, 0
            while refused < 200 and sent < 5000:
                try:
                    os.write(cluster, packet(sent, 60_000))
                    sent += 1
                except BlockingIOError:
                    refused += 1
                    manager.ask(lambda: None)
        pump = manager.ask(lambda: next(iter(manager.server._sessions.values()))._carriers[0])
        assert manager.ask(lambda: len(pump._batch)) < 1 << 19
        assert refused == 200
