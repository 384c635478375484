"""In a pod: ask one question again and again and tell who answered, as ``python3 -c "$(cat asking.py)" PLAN``.

PLAN is JSON: ``{"to": [[address, port], …], "pause": seconds, "keep": bool, "headers": [[name, value], …]}``. Every
address is asked by a thread of its own, on one connection that is kept or on a new one each time, until the end of the
input. Each request is a line ``[index of the address, start, end, who answered]``; times are of the machine's monotonic
clock, which all its containers share; ``!`` begins what went wrong. The standard library only.
"""

import json
import socket
import sys
import threading
import time
from io import BufferedReader
from typing import Any

_TIMEOUT_SECONDS = 5.0


def answer_of(stream: BufferedReader) -> tuple[str, bool]:
    """Who answered, and whether the connection goes on."""
    first = stream.readline()
    length, goes_on = 0, True
    while (line := stream.readline()) not in {b"\r\n", b""}:
        name, _, value = line.partition(b":")
        match name.lower():
            case b"content-length":
                length = int(value)
            case b"connection":
                goes_on = value.strip().lower() != b"close"
    body = stream.read(length).decode()
    if not first.startswith(b"HTTP/1.1 200"):
        return f"!{first.decode('latin-1').strip() or 'closed'} {body}".strip(), False
    return body, goes_on


class Asker:
    """Asks one address."""

    def __init__(self, index: int, address: tuple[str, int], plan: dict[str, Any], request: bytes) -> None:
        self._index = index
        self._address = address
        self._keep: bool = plan["keep"]
        self._pause: float = plan["pause"]
        self._request = request
        self._connection: tuple[socket.socket, BufferedReader] | None = None
        self.rows: list[tuple[int, float, float, str]] = []

    def run(self, stopping: threading.Event) -> None:
        """Until told to stop."""
        while not stopping.wait(self._pause):
            start = time.monotonic()
            try:
                said, goes_on = self._ask()
            except OSError as error:
                said, goes_on = f"!{error!r}", False
            self.rows.append((self._index, start, time.monotonic(), said))
            if not (goes_on and self._keep):
                self._close()
        self._close()

    def _ask(self) -> tuple[str, bool]:
        if self._connection is None:
            sock = socket.create_connection(self._address, _TIMEOUT_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection = sock, sock.makefile("rb")
        sock, stream = self._connection
        sock.sendall(self._request)
        return answer_of(stream)

    def _close(self) -> None:
        if self._connection is not None:
            for each in self._connection:
                each.close()
            self._connection = None


def main() -> None:
    """Ask until the end of the input."""
    plan = json.loads(sys.argv[1])
    lines = ["GET / HTTP/1.1", "Host: bench", *(f"{name}: {value}" for name, value in plan["headers"])]
    lines += [] if plan["keep"] else ["Connection: close"]
    request = "\r\n".join([*lines, "\r\n"]).encode()
    stopping = threading.Event()
    askers = [Asker(index, (host, port), plan, request) for index, (host, port) in enumerate(plan["to"])]
    threads = [threading.Thread(target=each.run, args=(stopping,)) for each in askers]
    for each in threads:
        each.start()
    threading.Thread(target=wait_for_the_end, args=(stopping,), daemon=True).start()
    while any(each.is_alive() for each in threads):
        stopping.wait(0.05)
        tell(askers)
        if stopping.is_set():
            for each in threads:
                each.join()
    tell(askers)


def wait_for_the_end(stopping: threading.Event) -> None:
    """Of the input."""
    sys.stdin.read()
    stopping.set()


def tell(askers: list[Asker]) -> None:
    """Print what was not told yet."""
    for asker in askers:
        rows, asker.rows = asker.rows, []
        sys.stdout.writelines(json.dumps(row) + "\n" for row in rows)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
