"""In a pod: as many requests as connections allow, as ``python3 -c "$(cat pressing.py)"``.

A line of input is a piece of work: ``{"to": [address, port], "headers": [[name, value], …], "connections": n,
"seconds": s}``. Every connection has one request under way at a time. A line of output is what came of it: requests
that were answered, errors, who answered, requests per second, percentiles of their times, and the share of one core
that this program took. The standard library only: one thread, epoll, answers of a known length are not parsed again.
"""

import json
import select
import socket
import sys
import time
from collections import Counter
from typing import Any

_WARM_SECONDS = 0.15
_TIMEOUT_SECONDS = 5.0


class Connection:
    """A connection with one request under way."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self.socket = socket.create_connection(address, _TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._got = b""
        self.since = 0.0

    def ask(self) -> None:
        """Send the request."""
        self.since = time.perf_counter()
        self.socket.sendall(self._request)

    def answer(self, known: set[int]) -> bytes | None:
        """The whole answer, None while some of it is missing. Raises OSError when it is none."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed")
        got = self._got + data if self._got else data
        if len(got) not in known and not _is_whole(got):
            self._got = got
            return None
        self._got = b""
        if not got.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(got[:200].decode("latin-1"))
        known.add(len(got))
        return got


def _is_whole(got: bytes) -> bool:
    head, _, body = got.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(body) >= int(value)
    return False


def press(plan: dict[str, Any]) -> dict[str, object]:
    """One piece of work."""
    host, port = plan["to"]
    headers = "".join(f"{name}: {value}\r\n" for name, value in plan["headers"])
    request = f"GET / HTTP/1.1\r\nHost: bench\r\n{headers}\r\n".encode()
    poll = select.epoll()
    open_: dict[int, Connection] = {}
    known: set[int] = set()
    times: list[float] = []
    said: Counter[bytes] = Counter()
    errors: Counter[str] = Counter()

    def begin() -> None:
        connection = Connection((host, port), request)
        poll.register(connection.socket, select.EPOLLIN)
        open_[connection.socket.fileno()] = connection
        connection.ask()

    for _ in range(plan["connections"]):
        begin()
    begun = time.perf_counter() + _WARM_SECONDS
    until = begun + plan["seconds"]
    cpu = 0.0
    while (now := time.perf_counter()) < until:
        if now < begun:
            cpu = time.process_time()
        for number, _ in poll.poll(1):
            connection = open_[number]
            try:
                whole = connection.answer(known)
                if whole is None:
                    continue
                end = time.perf_counter()
                if begun <= end < until:
                    times.append(end - connection.since)
                    said[whole[whole.rfind(b"\n") + 1 :]] += 1
                connection.ask()
            except OSError as error:
                errors[str(error)] += 1
                poll.unregister(number)
                open_.pop(number).socket.close()
                begin()
    spent = time.process_time() - cpu
    for connection in open_.values():
        connection.socket.close()
    poll.close()
    times.sort()
    seconds = until - begun
    return {
        "requests": len(times),
        "errors": sum(errors.values()),
        "wrong": dict(errors.most_common(3)),
        "said": {name.decode(): count for name, count in said.items()},
        "per_second": len(times) / seconds,
        "p50_ms": times[len(times) // 2] * 1e3 if times else 0.0,
        "p99_ms": times[int(len(times) * 0.99)] * 1e3 if times else 0.0,
        "cores": spent / seconds,
    }


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(press(json.loads(line))), flush=True)
