"""The client of the data path's tests: ``python -m tests.e2e.traffic WHAT HOST NUMBER…`` prints one line of JSON.

It runs on a laptop: standard library only and no resolver of its own, as any program that is to reach the cluster.
"""

import hashlib
import json
import os
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from tests.cluster.sample.pattern import BLOCK_SIZE, pattern, pattern_sha256, piece

SINK, SOURCE, ECHO, HALF_CLOSE = 7001, 7002, 7003, 7004
_SECONDS: Final = 60.0
_LENGTH: Final = struct.Struct("!Q")

Result = dict[str, Any]


def up(host: str, count: int) -> Result:
    """Send *count* bytes of the pattern; what the other side counted and hashed."""
    start = time.monotonic()
    with socket.create_connection((host, SINK), _SECONDS) as connection:
        connection.sendall(_LENGTH.pack(count))
        sent = 0
        while sent < count:
            part = piece(sent, count - sent)
            connection.sendall(part)
            sent += len(part)
        answer = _exactly(connection, _LENGTH.size + hashlib.sha256().digest_size)
    seconds = time.monotonic() - start
    (arrived,) = _LENGTH.unpack_from(answer)
    return {"bytes": arrived, "equal": answer[_LENGTH.size :] == pattern_sha256(count), "seconds": seconds}


def down(host: str, count: int) -> Result:
    """Receive *count* bytes of the pattern."""
    digest, arrived, start = hashlib.sha256(), 0, time.monotonic()
    with socket.create_connection((host, SOURCE), _SECONDS) as connection:
        connection.sendall(_LENGTH.pack(count))
        buffer = memoryview(bytearray(BLOCK_SIZE))
        while arrived < count and (got := connection.recv_into(buffer)):
            digest.update(buffer[:got])
            arrived += got
    seconds = time.monotonic() - start
    return {"bytes": arrived, "equal": digest.digest() == pattern_sha256(count), "seconds": seconds}


def udp(host: str, port: int, *sizes: int) -> Result:
    """Send a datagram of each size; the sizes that came back unharmed. Lost ones are sent again, as with any UDP."""
    echoed = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.settimeout(1)
        endpoint.connect((host, port))
        for size in sizes:
            data = os.urandom(size)
            for _ in range(3):
                try:
                    endpoint.send(data)
                    if endpoint.recv(65536) == data:
                        echoed.append(size)
                        break
                except TimeoutError:
                    continue
    return {"echoed": echoed}


def refused(host: str, port: int) -> Result:
    """What connecting to a port without a listener raises, and when."""
    start, raised = time.monotonic(), ""
    try:
        socket.create_connection((host, port), _SECONDS).close()
    except OSError as error:
        raised = type(error).__name__
    return {"raised": raised, "seconds": time.monotonic() - start}


def half_close(host: str, count: int) -> Result:
    """Send, end our direction, and only then read: everything and the farewell come, then the end."""
    data, farewell = pattern(0, count), f"bye:{count}\n".encode()
    with socket.create_connection((host, HALF_CLOSE), _SECONDS) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = _exactly(connection, count + len(farewell))
        rest = connection.recv(1)
    return {"echoed": answer[:count] == data, "farewell": answer[count:] == farewell, "ended": rest == b""}


def many(host: str, count: int, size: int) -> Result:
    """*count* connections, all open before the first byte; how many echo *size* bytes of their own."""
    all_open, start = threading.Barrier(count), time.monotonic()

    def converse(number: int) -> bool:
        data = pattern(number * 17, size)
        with socket.create_connection((host, ECHO), _SECONDS) as connection:
            all_open.wait(_SECONDS)
            connection.sendall(data)
            return _exactly(connection, size) == data

    with ThreadPoolExecutor(count) as threads:
        equal = sum(threads.map(converse, range(count)))
    return {"equal": equal, "seconds": time.monotonic() - start}


def _exactly(connection: socket.socket, count: int) -> bytes:
    """That many bytes, fewer at the end of the stream."""
    got = bytearray()
    while len(got) < count and (data := connection.recv(min(65536, count - len(got)))):
        got += data
    return bytes(got)


if __name__ == "__main__":
    what, host, *numbers = sys.argv[1:]
    functions = {function.__name__: function for function in (up, down, udp, refused, half_close, many)}
    print(json.dumps(functions[what](host, *map(int, numbers))))
