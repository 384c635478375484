"""The measurements: plain TCP clients of the testbed's ``bulk`` and ``c`` Services, whatever path leads there.

The protocol of the bulk ports is described in tests/cluster/sample/bulk.py.
"""

import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

PLAIN_SINK: Final = 7005
SOURCE: Final = 7002
ECHO: Final = 7003
HTTP: Final = 8080

_LENGTH: Final = struct.Struct("!Q")
_BLOCK: Final = memoryview(bytes(1 << 20))
_TIMEOUT_SECONDS: Final = 60.0
_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: c\r\n\r\n"


@dataclass(frozen=True)
class Endpoint:
    """Where the ports of one program are reached: host and port by the pod's port."""

    addresses: dict[int, tuple[str, int]]

    def connect(self, port: int) -> socket.socket:
        """A new connection with Nagle off."""
        sock = socket.create_connection(self.addresses[port], _TIMEOUT_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock


def up(endpoint: Endpoint, size: int) -> None:
    """Send *size* bytes and have them counted."""
    with endpoint.connect(PLAIN_SINK) as sock:
        sock.sendall(_LENGTH.pack(size))
        left = size
        while left:
            piece = min(left, len(_BLOCK))
            sock.sendall(_BLOCK[:piece])
            left -= piece
        (counted,) = _LENGTH.unpack(sock.recv(_LENGTH.size, socket.MSG_WAITALL))
    if counted != size:
        raise ConnectionError(f"{counted} of {size} bytes arrived")


def down(endpoint: Endpoint, size: int) -> None:
    """Ask for *size* bytes and count them."""
    buffer = memoryview(bytearray(1 << 20))
    with endpoint.connect(SOURCE) as sock:
        sock.sendall(_LENGTH.pack(size))
        got = 0
        while got < size:
            count = sock.recv_into(buffer)
            if not count:
                raise ConnectionError(f"{got} of {size} bytes arrived")
            got += count


def throughput(transfer: Callable[[Endpoint, int], None], endpoint: Endpoint, size: int, connections: int) -> float:
    """MB/s of *size* bytes shared by that many connections at once."""
    failures: list[OSError] = []

    def run() -> None:
        try:
            transfer(endpoint, size // connections)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(connections)]
    since = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return size / (time.perf_counter() - since) / 1e6


def round_trips(endpoint: Endpoint, count: int) -> list[float]:
    """Microseconds of each of *count* echoes of 64 bytes on one connection."""
    times = []
    with endpoint.connect(ECHO) as sock:
        for _ in range(count):
            since = time.perf_counter()
            sock.sendall(bytes(64))
            if len(sock.recv(64, socket.MSG_WAITALL)) != 64:
                raise ConnectionError("the echo ended")
            times.append((time.perf_counter() - since) * 1e6)
    return times


def first_bytes(endpoint: Endpoint, count: int) -> list[float]:
    """Milliseconds from connect to the first echoed byte, for *count* connections."""
    times = []
    for _ in range(count):
        since = time.perf_counter()
        with endpoint.connect(ECHO) as sock:
            sock.sendall(b"x")
            if not sock.recv(1):
                raise ConnectionError("the echo ended")
            times.append((time.perf_counter() - since) * 1e3)
    return times


def requests_per_second(endpoint: Endpoint, count: int) -> float:
    """Small HTTP requests one after the other on one kept-alive connection."""
    with endpoint.connect(HTTP) as sock, sock.makefile("rb") as answers:
        since = time.perf_counter()
        for _ in range(count):
            sock.sendall(_REQUEST)
            length = 0
            if not answers.readline().startswith(b"HTTP/1.1 200"):
                raise ConnectionError("the answer was not 200")
            while (line := answers.readline()) not in {b"\r\n", b""}:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            answers.read(length)
        return count / (time.perf_counter() - since)
