"""A server whose connections have numbers and logins, and a client that asks two of them over one connection."""

import itertools
import random
import re
import socket
import threading
import time
from contextlib import suppress
from typing import Final

from tests.sidecar.worker.world import SECONDS

ROUNDS: Final = 15
#: Requests that are under way at once, at most.
PIPELINED: Final = 6
#: Less than the time after which Envoy closes idle connections to the laptop (``IDLE_TO_LAPTOP``).
IDLE_SECONDS: Final = 0.2
_USER: Final = re.compile(rb"\r\nauthorization: ntlm (\w+)\r\n", re.IGNORECASE)
_ANSWER: Final = re.compile(rb"HTTP/1\.1 200 OK\r\n(?:[^\r\n]+\r\n)*\r\n(\w+) (\d+) (\w+)\n")


class NumberedServer:
    """Answers ``NAME NUMBER USER``: of the connection that a request came on, and who logged in there."""

    def __init__(self, name: str, listener: socket.socket) -> None:
        """Ends when *listener* is shut down."""
        self._name = name.encode()
        self._listener = listener
        self._numbers = itertools.count(1)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # it was shut down: the test is over
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock, next(self._numbers)), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        rest, user = b"", b"nobody"
        with sock, suppress(ConnectionResetError):  # by a test that is over
            while piece := sock.recv(1 << 16):
                *requests, rest = (rest + piece).split(b"\r\n\r\n")
                for request in requests:
                    if found := _USER.search(request + b"\r\n"):
                        user = found[1]
                    body = b"%s %d %s\n" % (self._name, number, user)
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


#: Which end answered, on which of its connections, and for whom.
Answer = tuple[str, int, str]


class NumberedClient:
    """One connection, and a user of its own."""

    def __init__(self, sock: socket.socket, user: str) -> None:
        sock.settimeout(SECONDS)
        self._sock = sock
        self._user = user
        self._last: dict[str, Answer] = {}
        self._found: dict[str, set[Answer]] = {}

    def converse(self, app: str, laptop: str) -> dict[str, set[Answer]]:
        """Log in at both, then ask them in any order, alone and pipelined; what each of them answered.

        It is one and the same each time, unless this machine was so slow that Envoy has closed an idle connection to
        the laptop: then it is logged in again.
        """
        choice = random.Random(self._user)  # noqa: S311 -- the same each time
        self._log_in(app, claimed=False)
        since = time.monotonic()
        self._log_in(laptop, claimed=True)
        for _ in range(ROUNDS):
            claimed = [True, *(choice.random() < 0.5 for _ in range(choice.randrange(PIPELINED)))]
            choice.shuffle(claimed)
            asked = time.monotonic()
            got = self._ask(claimed)
            assert [name for name, _, _ in got] == [laptop if each else app for each in claimed]
            if time.monotonic() - since > IDLE_SECONDS:
                self._log_in(laptop, claimed=True)
                got = [self._last[laptop] if each else other for each, other in zip(claimed, got, strict=True)]
            wanted = [self._last[laptop if each else app] for each in claimed]
            assert got == wanted, f"{self._user}: {got} instead of {wanted}"
            since = asked
        return self._found

    def _log_in(self, name: str, *, claimed: bool) -> None:
        (answer,) = self._ask([claimed], f"Authorization: NTLM {self._user}\r\n")
        assert (answer[0], answer[2]) == (name, self._user)
        self._last[name] = answer
        self._found.setdefault(name, set()).add(answer)

    def _ask(self, claimed: list[bool], more: str = "") -> list[Answer]:
        """All at once."""
        self._sock.sendall(
            b"".join(
                f"GET / HTTP/1.1\r\nHost: odd\r\n{'a: 1' if each else 'b: 1'}\r\n{more}\r\n".encode()
                for each in claimed
            )
        )
        got = b""
        while len(found := list(_ANSWER.finditer(got))) < len(claimed):
            piece = self._sock.recv(1 << 16)
            assert piece, f"{self._user}: the connection ended after {got!r}"
            got += piece
        assert b"".join(each[0] for each in found) == got
        return [(each[1].decode(), int(each[2]), each[3].decode()) for each in found]
