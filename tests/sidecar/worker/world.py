"""A worker between real sockets, with an app and something in place of Envoy."""

import contextlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from meshdev.pump.loop import Loop
from meshdev.sidecar.passthrough.http1 import RequestHead
from meshdev.sidecar.worker.worker import PassthroughWorker
from meshdev.wire import proxy_protocol
from tests.sockets import exactly, wait_for

GET = b"GET / HTTP/1.1\r\nHost: b\r\n\r\n"
CLAIMED = b"GET / HTTP/1.1\r\nHost: b\r\nA: 1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
SECONDS = 10.0

Serve = Callable[[socket.socket], None]


@dataclass(eq=False)
class Port:
    """Requests with ``A: 1`` are claimed."""

    app: tuple[str, int]
    envoy: str = "/nowhere"
    whole: bool = False
    unclaimed: bool = False
    http2: bool = True
    draining: bool = False
    watched: bool = False
    seen: list[bytes] = field(default_factory=list)

    def claims(self, head: RequestHead) -> bool:
        if head.target == b"/bug":
            raise RuntimeError("a bug")
        self.seen.append(head.raw)
        return self.would_claim(head)

    def would_claim(self, head: RequestHead) -> bool:
        return b"\na: 1\r\n" in head.lower

    def explainer(self, head: RequestHead) -> str | None:
        return None if self.would_claim(head) else "no header a"


class World:
    """A worker in a thread, an app, and something in place of Envoy."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path, queue: socket.socket | None = None) -> None:
        self._stack = stack
        self._folder = folder
        self.loop = Loop()
        self.worker = PassthroughWorker(self.loop, queue=queue)
        self.listener = self._listening(socket.create_server(("127.0.0.1", 0), backlog=512))
        self.listener.setblocking(False)
        self.started = False
        self._pool = stack.enter_context(ThreadPoolExecutor())
        self._running = self._pool.submit(self.loop.run)

    def start(self, app: Serve, envoy: Serve | None = None, *, whole: bool = False) -> Port:
        port = self.port = Port(self.server(app), whole=whole)
        self.started = True
        if envoy is not None:
            port.envoy = str(self._folder / "envoy")
            sock = self._listening(socket.socket(socket.AF_UNIX))
            sock.bind(port.envoy)
            sock.listen()
            self._serve(sock, behind_header(envoy))
        self.loop.post(lambda: self.worker.listen(self.listener, port))
        return port

    def server(self, serve: Serve) -> tuple[str, int]:
        # Not 127.0.0.1: other tests at the same moment connect to ports that they have just closed there.
        sock = self._listening(socket.create_server(("127.0.77.1", 0)))
        self._serve(sock, serve)
        address: tuple[str, int] = sock.getsockname()
        return address

    def client(self, address: tuple[str, int] | None = None) -> socket.socket:
        sock = socket.create_connection(address or self.listener.getsockname(), SECONDS)
        return self._stack.enter_context(sock)

    def client_socket(self) -> socket.socket:
        """One that is not connected yet."""
        sock = self._stack.enter_context(socket.socket())
        sock.settimeout(SECONDS)
        return sock

    until = staticmethod(wait_for)

    def close(self) -> None:
        self.loop.post(self.worker.close)
        self.loop.post(self.loop.stop)
        self._running.result(SECONDS)
        self.loop.close()

    def _listening(self, sock: socket.socket) -> socket.socket:
        return self._stack.enter_context(sock)

    def _serve(self, listener: socket.socket, serve: Serve) -> None:
        def each(sock: socket.socket) -> None:
            with sock:
                sock.settimeout(SECONDS)
                with contextlib.suppress(ConnectionResetError):  # by a test that is over
                    serve(sock)

        def accept() -> None:
            with contextlib.suppress(OSError):  # the listener was shut down: the test is over
                while True:
                    threading.Thread(target=each, args=listener.accept()[:1], daemon=True).start()

        self._stack.callback(listener.shutdown, socket.SHUT_RDWR)
        threading.Thread(target=accept, daemon=True).start()


def behind_header(serve: Serve) -> Serve:
    """As Envoy: first comes whose connection it is."""

    def behind(sock: socket.socket) -> None:
        peer = exactly(sock, proxy_protocol.SIZE)
        assert len(peer) in {0, proxy_protocol.SIZE}
        serve(sock)

    return behind


def answers(body: bytes) -> Serve:
    """One request after the other, each with the same body."""

    def serve(sock: socket.socket) -> None:
        rest = b""
        while piece := sock.recv(1 << 16):
            *requests, rest = (rest + piece).split(b"\r\n\r\n")
            sock.sendall((OK + body) * len(requests))

    return serve
