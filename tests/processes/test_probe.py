"""Whether a program is ready, asked of real sockets."""

import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from meshdev.processes.probe import ReadinessProbe, is_success, listens
from tests.loops import DEADLINE_SECONDS


@pytest.mark.parametrize(
    ("line", "success"),
    [
        (b"HTTP/1.1 200 OK\r", True),
        (b"HTTP/1.0 302 Found\r", True),
        (b"HTTP/1.1 204", True),
        (b"HTTP/1.1 404 Not Found\r", False),
        (b"HTTP/1.1 503 Service Unavailable\r", False),
        (b"HTTP/1.1 2", False),
        (b"SSH-2.0-OpenSSH_9.2", False),
        (b"", False),
    ],
)
def test_status_lines(line: bytes, success: bool) -> None:
    assert is_success(line) is success


def asked(port: int, path: str | None, until: Callable[[], object] | None = None) -> bool:
    """Whether it succeeds before *until* holds, or at all."""
    found: list[bool] = []
    with selectors.DefaultSelector() as selector:
        probe = ReadinessProbe(selector, "127.0.0.1", port, path, lambda: found.append(True))
        over = threading.Event()
        timer = threading.Timer(DEADLINE_SECONDS, over.set)
        timer.start()
        while not found and not over.is_set() and not (until and until()):
            probe.tick()
            for key, _ in selector.select(0.01):
                key.data()
        timer.cancel()
        probe.close()
        assert not selector.get_map()
    return bool(found)


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A server that gives these answers to one connection each; its port, and the requests so far."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in answers:
                with server.accept()[0] as client:
                    requests.append(client.recv(4096))
                    client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], requests


def test_it_asks_again_until_the_answer_is_a_success() -> None:
    with answering(b"HTTP/1.1 503 no\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\n\r\n") as (port, requests):
        assert asked(port, "/healthz?full=1")
    assert len(requests) == 3
    assert requests[0].startswith(b"GET /healthz?full=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port)


def test_a_connection_is_enough_where_no_path_is_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert asked(port, None)
        assert listens("127.0.0.1", port)
    assert not listens("127.0.0.1", port)


def test_it_waits_for_one_that_starts_to_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    tries = iter(range(50))
    assert not asked(port, None, until=lambda: next(tries, None) is None)
    with socket.create_server(("127.0.0.1", port)):
        assert asked(port, None)
