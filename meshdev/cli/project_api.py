"""Both ends of the socket of a running project: what `up` answers, and how other commands ask it."""

import contextlib
import os
import selectors
import socket
from collections.abc import Callable
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.state import Paths
from meshdev.wire.jsonlines import LineSplitter
from meshdev.wire.project_api import (
    ProjectOperation,
    ProjectRequest,
    ProjectStatus,
    encode_project_request,
    encode_project_status,
    parse_project_request,
    parse_project_status,
)

#: A request is one short line.
_MAX_REQUEST: Final = 4096
_MAX_CLIENTS: Final = 32
#: One that runs answers at once, unless it is stopped or the machine is very busy.
ANSWER_SECONDS: Final = 10.0


def listen(paths: Paths) -> socket.socket:
    """Listen, for :class:`ProjectListener`; who asks before it serves waits. *paths* have the lock that is held."""
    paths.socket.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(os.fspath(paths.socket))
        listener.listen(_MAX_CLIENTS)
    except OSError:
        listener.close()
        raise
    return listener


class ProjectListener:
    """Serves others on the socket, by the selector of the command's loop."""

    def __init__(
        self,
        listener: socket.socket,
        selector: selectors.BaseSelector,
        status: Callable[[], ProjectStatus],
        down: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._selector = selector
        self._status = status
        self._down = down
        self._clients: dict[socket.socket, LineSplitter] = {}
        self._waiting: list[socket.socket] = []
        selector.register(listener, selectors.EVENT_READ, self._accept)

    def changed(self) -> None:
        """Answer those who wait for the end of the start, if it has come."""
        if self._status().phase != "starting":
            for client in self._waiting:
                self._answer(client)
            self._waiting.clear()

    def close(self) -> None:
        """Listen no more; those who wait for the end read the end of file."""
        self._selector.unregister(self._listener)
        self._listener.close()
        for client in self._clients:
            client.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            client = self._listener.accept()[0]
            if len(self._clients) >= _MAX_CLIENTS:
                client.close()
                return
            client.setblocking(False)
            self._clients[client] = LineSplitter(_MAX_REQUEST)
            self._selector.register(client, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: socket.socket) -> None:
        try:
            data = client.recv(_MAX_REQUEST)
            requests = [parse_project_request(line) for line in self._clients[client].feed(data)]
        except BlockingIOError:
            return
        except (OSError, ProtocolError):
            self._forget(client)
            return
        if not data:
            self._forget(client)
        for request in requests:
            self._serve(client, request)

    def _serve(self, client: socket.socket, request: ProjectRequest) -> None:
        if request.op == "settled" and self._status().phase == "starting":
            self._waiting.append(client)
            return
        if request.op == "down":
            self._down()
        self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        """It fits into the socket's buffer, which is empty: there is one answer to a request."""
        with contextlib.suppress(OSError):
            client.sendall(encode_project_status(self._status()))

    def _forget(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        del self._clients[client]
        if client in self._waiting:
            self._waiting.remove(client)
        client.close()


class ProjectClient:
    """One connection to the socket of a running project."""

    def __init__(self, paths: Paths) -> None:
        """Connect. Raises OSError where nothing listens."""
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(ANSWER_SECONDS)
            self._socket.connect(os.fspath(paths.socket))
        except OSError:
            self._socket.close()
            raise

    def ask(self, op: ProjectOperation, seconds: float | None = ANSWER_SECONDS) -> ProjectStatus | None:
        """The answer; None where it ends without one. Raises TimeoutError, ProtocolError."""
        splitter = LineSplitter()
        self._socket.settimeout(seconds)
        try:
            self._socket.sendall(encode_project_request(ProjectRequest(op)))
            while data := self._socket.recv(65536):
                for line in splitter.feed(data):
                    return parse_project_status(line)
        except ConnectionError:
            pass
        return None

    def wait_end(self, seconds: float) -> None:
        """Until it has ended. Raises TimeoutError."""
        self._socket.settimeout(seconds)
        with contextlib.suppress(ConnectionError):
            while self._socket.recv(4096):
                pass

    def close(self) -> None:
        """To the project, that is no request."""
        self._socket.close()
