"""One stream on the session API, from the command's side: a request, and the events that follow."""

import contextlib
import selectors
import socket
from collections.abc import Iterator

from meshdev.cli.signals import ENDING, Signals
from meshdev.errors import TunnelError
from meshdev.state import Paths
from meshdev.wire.jsonlines import LineSplitter
from meshdev.wire.session_api import Event, Failed, Request, encode_request, parse_event
from meshdev.wire.session_intercepts import Left


class EventStream:
    """Readable (:meth:`fileno`) when events have arrived. ``ended``: no more come."""

    def __init__(self, paths: Paths, request: Request) -> None:
        """Send the request. Raises TunnelError where no session listens."""
        self.ended = False
        self._splitter = LineSplitter()
        self._socket = socket.socket(socket.AF_UNIX)
        self.fileno = self._socket.fileno
        try:
            self._socket.connect(str(paths.socket))
            self._socket.sendall(encode_request(request))
        except OSError as error:
            self._socket.close()
            raise TunnelError(f"the session is not there ({error.strerror})", hint=f"its log: {paths.log}") from error
        self._socket.setblocking(False)

    def read(self) -> list[Event]:
        """The events that have arrived. Raises ProtocolError for what is none."""
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        self.ended |= not data
        return [parse_event(line) for line in self._splitter.feed(data)]

    def leave(self) -> None:
        """Ask the session to end it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """To the session, that is the same as :meth:`leave`."""
        self._socket.close()


def events(paths: Paths, request: Request, signals: Signals) -> Iterator[Event]:
    """What the session sends for *request*, until it says that it has ended that (Left), or a signal does.

    Raises TunnelError where no session listens, or it ends without a reason; else what it reports.
    """
    with contextlib.closing(EventStream(paths, request)) as stream, selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        selector.register(signals, selectors.EVENT_READ)
        while True:
            selector.select()
            for event in stream.read():
                if isinstance(event, Failed):
                    raise event.as_error()
                yield event
                if isinstance(event, Left):
                    return
            if signals.take() & ENDING:
                return
            if stream.ended:
                raise TunnelError("the session ended without giving a reason")
