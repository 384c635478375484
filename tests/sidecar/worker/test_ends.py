"""Clients that vanish, do not read, or are slow: how long they are kept, and what they get before the end."""

import os
import socket
import threading

import pytest

from meshdev.sidecar.worker import worker
from tests.sidecar.worker.world import SECONDS, World, answers, everything


def rounds(world: World) -> None:
    """The worker does whatever has already come."""
    for _ in range(20):
        done = threading.Event()
        world.loop.post(done.set)
        assert done.wait(SECONDS)


def test_more_connections_read_less_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PIECES_BYTES", 4 * worker.PIECE_BYTES)
    body = os.urandom(1 << 20)
    world.start(answers(body))
    clients = [world.client() for _ in range(4)]
    world.until(lambda: world.worker.open == 4)
    assert len(world.worker.piece) == worker.PIECE_BYTES
    clients += [world.client() for _ in range(12)]
    world.until(lambda: world.worker.open == 16)
    rounds(world)
    assert len(world.worker.piece) == worker.PIECE_BYTES // 4
    clients += [world.client() for _ in range(64)]
    world.until(lambda: world.worker.open == 80)
    rounds(world)
    assert len(world.worker.piece) == 8 << 10
    clients[0].sendall(b"\0\r\n\r\n")
    clients[0].shutdown(socket.SHUT_WR)
    assert everything(clients[0]).endswith(body)
    for client in clients:
        client.close()
    world.until(lambda: len(world.worker.piece) == worker.PIECE_BYTES)
