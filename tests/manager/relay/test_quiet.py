"""Connections where nothing happens cost nothing: the loop reports what has ended again and again to who still asks."""

import socket
import threading
import time
from collections.abc import Callable

import pytest

from tests.manager.relay.world import RelayWorld, TlsClient
from tests.sockets import exactly, reset

MUCH = bytes(8 << 20)
Situation = Callable[[RelayWorld, TlsClient, socket.socket], None]


def fill(sock: socket.socket) -> None:
    """Until nobody takes more."""
    sock.setblocking(False)
    idle = time.monotonic()
    while time.monotonic() - idle < 0.3:
        try:
            sock.send(MUCH)
            idle = time.monotonic()
        except BlockingIOError:
            threading.Event().wait(0.01)
    sock.setblocking(True)


def nothing(_world: RelayWorld, _client: TlsClient, _laptop: socket.socket) -> None: ...


def laptop_ended(_world: RelayWorld, client: TlsClient, laptop: socket.socket) -> None:
    laptop.close()
    assert client.recv(1) == b""


def client_ended(_world: RelayWorld, client: TlsClient, laptop: socket.socket) -> None:
    client.finish()
    client.sock.close()
    assert laptop.recv(1) == b""


def client_half_closed(_world: RelayWorld, client: TlsClient, laptop: socket.socket) -> None:
    client.finish()
    client.sock.shutdown(socket.SHUT_WR)
    assert laptop.recv(1) == b""


def client_reads_nothing(_world: RelayWorld, _client: TlsClient, laptop: socket.socket) -> None:
    fill(laptop)


def client_reads_nothing_of_a_laptop_that_ended(world: RelayWorld, client: TlsClient, laptop: socket.socket) -> None:
    client.finish()
    assert laptop.recv(1) == b""
    client_reads_nothing(world, client, laptop)
    laptop.shutdown(socket.SHUT_WR)


def client_reads_nothing_of_a_laptop_that_reset(world: RelayWorld, client: TlsClient, laptop: socket.socket) -> None:
    client_reads_nothing(world, client, laptop)
    reset(laptop)


def laptop_reads_nothing(_world: RelayWorld, client: TlsClient, _laptop: socket.socket) -> None:
    client.sock.setblocking(False)
    records = memoryview(client.records(MUCH + MUCH))
    idle = time.monotonic()
    while time.monotonic() - idle < 0.3 and records:
        try:
            records = records[client.sock.send(records) :]
            idle = time.monotonic()
        except BlockingIOError:
            threading.Event().wait(0.01)
    assert records


@pytest.mark.parametrize(
    "situation",
    [
        *(nothing, laptop_ended, client_ended, client_half_closed, client_reads_nothing, laptop_reads_nothing),
        *(client_reads_nothing_of_a_laptop_that_ended, client_reads_nothing_of_a_laptop_that_reset),
    ],
)
def test_it_costs_nothing(world: RelayWorld, situation: Situation) -> None:
    client = world.tls(receive_buffer=4096)
    laptop = world.accept(receive_buffer=4096)
    situation(world, client, laptop)
    spent: list[float] = []
    world.do(lambda: spent.append(time.thread_time()))
    began = time.monotonic()
    world.until(lambda: time.monotonic() - began > 0.4)
    assert world.server.open == 1
    world.do(lambda: spent.append(time.thread_time()))
    assert spent[1] - spent[0] < 0.1
    other = world.tls()
    other.sendall(b"fine")
    assert exactly(world.accept(), 4) == b"fine"
