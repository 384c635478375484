"""Raw TCP for tests and the benchmark. Numbers are big-endian u64.

| port | protocol |
|---|---|
| 7001 sink | client sends a length and that many bytes; answer: the count and the SHA-256 (8 + 32 bytes) |
| 7002 source | client sends a length; answer: that many bytes of pattern.py |
| 7003 echo | every byte comes back |
| 7004 half-close | every byte comes back; after the client's end of stream `bye:COUNT\n`, then the end |
| 7005 plain sink | as 7001, but the answer is the count alone: no hash in a measurement |
"""

import hashlib
import socket
import struct
from typing import Protocol

from tests.cluster.sample.listeners import Handler
from tests.cluster.sample.pattern import BLOCK_SIZE, piece

_LENGTH = struct.Struct("!Q")
_ECHO_PIECE = 65536


class _Hash(Protocol):
    def update(self, data: memoryview, /) -> None: ...


def _length(connection: socket.socket) -> int:
    data = connection.recv(_LENGTH.size, socket.MSG_WAITALL)
    if len(data) < _LENGTH.size:
        raise ConnectionError
    (length,) = _LENGTH.unpack(data)
    return int(length)


def _swallow(connection: socket.socket, digest: _Hash | None) -> int:
    """Read what the length announces; the number of bytes that came."""
    wanted = _length(connection)
    buffer = memoryview(bytearray(BLOCK_SIZE))
    got = 0
    while got < wanted:
        count = connection.recv_into(buffer, min(BLOCK_SIZE, wanted - got))
        if not count:
            raise ConnectionError
        if digest is not None:
            digest.update(buffer[:count])
        got += count
    return got


def _sink(connection: socket.socket) -> None:
    digest = hashlib.sha256()
    count = _swallow(connection, digest)
    connection.sendall(_LENGTH.pack(count) + digest.digest())
    connection.recv(1)


def _plain_sink(connection: socket.socket) -> None:
    connection.sendall(_LENGTH.pack(_swallow(connection, None)))
    connection.recv(1)


def _source(connection: socket.socket) -> None:
    wanted = _length(connection)
    sent = 0
    while sent < wanted:
        part = piece(sent, wanted - sent)
        connection.sendall(part)
        sent += len(part)
    connection.recv(1)


def _echo(connection: socket.socket) -> None:
    while data := connection.recv(_ECHO_PIECE):
        connection.sendall(data)


def _half_close(connection: socket.socket) -> None:
    count = 0
    while data := connection.recv(_ECHO_PIECE):
        count += len(data)
        connection.sendall(data)
    connection.sendall(f"bye:{count}\n".encode())


HANDLERS: dict[int, Handler] = {7001: _sink, 7002: _source, 7003: _echo, 7004: _half_close, 7005: _plain_sink}
