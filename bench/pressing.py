"""In a pod: as many requests as connections allow, as ``python3 -c "$(cat pressing.py)"``.

A line of input is a piece of work: ``{"to": [address, port], "headers": [[name, value], …], "connections": n,
"seconds": s, "rate": r}``. Every connection has one request under way at a time; with a rate, so many are begun a
second, as far as connections are free; 0: as many as possible. A line of output is what came of it: requests
that were answered, errors, who answered, requests per second, percentiles of their times, and the share of one core
that this program took. The standard library only: one thread, epoll, answers of a known length are not parsed again.
"""

import json
import select
import socket
import sys
import time
from collections import Counter, deque
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


class Press:
    """One piece of work."""

    def __init__(self, plan: dict[str, Any]) -> None:
        host, port = plan["to"]
        headers = "".join(f"{name}: {value}\r\n" for name, value in plan["headers"])
        self._address = (host, port)
        self._request = f"GET / HTTP/1.1\r\nHost: bench\r\n{headers}\r\n".encode()
        self._seconds: float = plan["seconds"]
        self._rate: float = plan["rate"]
        self._poll = select.epoll()
        self._open: dict[int, Connection] = {}
        self._idle: deque[Connection] = deque()
        self._known: set[int] = set()
        self._times: list[float] = []
        self._said: Counter[bytes] = Counter()
        self._wrong: Counter[str] = Counter()
        for _ in range(plan["connections"]):
            self._begin()

    def run(self) -> dict[str, object]:
        """What came of it; the first moments, in which connections are made, do not count."""
        since = time.perf_counter()
        self._turn(since, since + _WARM_SECONDS, counts=False)
        begun, cpu = time.perf_counter(), time.process_time()
        until = begun + self._seconds
        self._turn(begun, until, counts=True)
        cores = (time.process_time() - cpu) / self._seconds
        for connection in self._open.values():
            connection.socket.close()
        self._poll.close()
        times = sorted(self._times)
        return {
            "requests": len(times),
            "errors": sum(self._wrong.values()),
            "wrong": dict(self._wrong.most_common(3)),
            "said": {name.decode(): count for name, count in self._said.items()},
            "per_second": len(times) / self._seconds,
            "p50_ms": times[len(times) // 2] * 1e3 if times else 0.0,
            "p99_ms": times[int(len(times) * 0.99)] * 1e3 if times else 0.0,
            "cores": cores,
        }

    def _turn(self, begun: float, until: float, *, counts: bool) -> None:
        asked = 0
        while (now := time.perf_counter()) < until:
            wait = 1.0
            if self._rate:
                while self._idle and begun + asked / self._rate <= now:
                    asked += 1
                    self._idle.popleft().ask()
                wait = max(0.0, begun + asked / self._rate - now) if self._idle else 1.0
            for number, _ in self._poll.poll(wait):
                self._take(self._open[number], counts=counts)

    def _begin(self) -> None:
        connection = Connection(self._address, self._request)
        self._poll.register(connection.socket, select.EPOLLIN)
        self._open[connection.socket.fileno()] = connection
        self._next(connection)

    def _next(self, connection: Connection) -> None:
        if self._rate:
            self._idle.append(connection)
        else:
            connection.ask()

    def _take(self, connection: Connection, *, counts: bool) -> None:
        try:
            whole = connection.answer(self._known)
            if whole is None:
                return
            if counts:
                self._times.append(time.perf_counter() - connection.since)
                self._said[whole[whole.rfind(b"\n") + 1 :]] += 1
            self._next(connection)
        except OSError as error:
            self._wrong[str(error)] += 1
            number = connection.socket.fileno()
            self._poll.unregister(number)
            self._open.pop(number).socket.close()
            self._idle = deque(each for each in self._idle if each is not connection)
            self._begin()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(Press(json.loads(line)).run()), flush=True)
