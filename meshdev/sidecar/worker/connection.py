"""The sockets of one client's connection: the client's, the app's and Envoy's, joined by a :class:`RecordingSwitch`.

Nothing is read from one socket before the last piece for another one is out, so a connection keeps at most one piece
a direction (``ConnectionRegistry.piece``), and what the switch holds. Ends are passed on as they are: a half-close as
one, a reset as one, once whatever came before it is delivered.
"""

import logging
import socket
from collections.abc import Callable
from typing import Final

from meshdev.pump.end import NOT_WATCHED, Delivery, SocketEnd
from meshdev.pump.loop import READABLE, WRITABLE
from meshdev.sidecar.passthrough.heads import Reason
from meshdev.sidecar.passthrough.http1 import RequestHead
from meshdev.sidecar.passthrough.owner import Side
from meshdev.sidecar.passthrough.recording import RecordingSwitch, RequestRecord
from meshdev.sidecar.worker.client_ports import IN_PROGRESS, Address
from meshdev.sidecar.worker.port import PassthroughPort
from meshdev.sidecar.worker.registry import ConnectionRegistry
from meshdev.wire import proxy_protocol

log = logging.getLogger(__name__)

#: Between two looks whether the client has acknowledged everything, in seconds: twice as long each time.
_LOOK_SECONDS: Final = 0.01
_LONGEST_LOOK_SECONDS: Final = 0.5
#: epoll reports these without being asked (epoll_ctl(2)): an error, and that both directions have ended.
_ERROR: Final = 0x08
_HANGUP: Final = 0x10


class ClientConnection:
    """One client's connection. Lives until both directions have ended, or one of its sockets is reset."""

    __slots__ = (
        *("_aborted", "_app", "_client", "_closed", "_closing", "_delivery"),
        *("_envoy", "_held", "_registry", "_switch", "address", "port"),
    )

    def __init__(
        self, client: socket.socket, address: Address, port: PassthroughPort, registry: ConnectionRegistry
    ) -> None:
        """Owns *client* from here on, which does not block; *address* is where it is connected from."""
        self._registry = registry
        self.address = address
        self.port = port
        self._app: SocketEnd | None = None
        self._envoy: SocketEnd | None = None
        self._aborted = self._closing = self._closed = False
        self._held = 0
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client = SocketEnd(client)
        self._delivery = Delivery(self._client, registry.loop.clock)
        self._guard(self._begin)

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        return self._closed

    @property
    def client_has_all(self) -> bool:
        """Whether the client has acknowledged everything, the end included, or takes no more of it; for open ones."""
        return (self._client.finishing or self._aborted) and not self._delivery.pending

    def late(self) -> None:
        """What it holds back passes without being inspected."""
        self._guard(self._switch.late)

    def drain(self) -> None:
        """The app is about to end."""
        self._guard(self._switch.drain)

    def kill(self) -> None:
        """Reset everything now, the client, too."""
        if not self._closed:
            self._close_all(reset=True)

    def lost(self) -> None:
        """The app's answer did not reach the client's address: dial from the pod's."""
        self._guard(self._dial_from_pod)

    # What the switch orders

    def dial_app(self) -> None:
        """Begin to connect to the app."""
        sock, error, own = self._registry.dialler.dial(self.port.app, self.address, self)
        self._app = SocketEnd(sock, abortive=own)
        self._dialled(self._app, error)

    def dial_envoy(self) -> bool:
        """Connect to Envoy; False where it is not there, or takes no more connections now."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        if sock.connect_ex(self.port.envoy):  # a connection by a path stands at once, or not at all
            sock.close()
            self._registry.without_envoy()
            return False
        self._envoy = SocketEnd(sock)
        # Records of its requests have the client's address: of a unix socket's other end Envoy learns none.
        self._envoy.send(proxy_protocol.header(self.address, self.port.app))
        return True

    def send(self, side: Side, data: bytes | memoryview) -> None:
        """Send, or keep what is not taken."""
        end = self._end(side)
        if end is not None:
            end.send(data)

    def finish(self, side: Side) -> None:
        """Half-close once all is out."""
        end = self._end(side)
        if end is not None:
            if side == "client":
                end.limit()
            end.finish()

    def drop(self, side: Side) -> None:
        """Close app or Envoy."""
        end = self._end(side)
        if end is not None:
            self._close(end)
        if side == "app":
            self._app = None
        else:
            self._envoy = None

    def abort(self) -> None:
        """Reset the client once it has what was sent to it, the others now."""
        self._client.limit()
        self._aborted = True

    def raw(self, reason: Reason) -> None:
        """Count it."""
        self._registry.raw(reason)

    # What is recorded

    def record(self, head: RequestHead) -> RequestRecord | None:
        """A request goes to the app."""
        return self._registry.recorder.begin(self, head)

    def record_rest(self, reason: Reason | None) -> None:
        """Bytes do, and are no requests any more."""
        self._registry.recorder.begin_rest(self, reason, new=not self._switch.heads)

    def watch(self, *, on: bool) -> None:
        """A watch begins or ends."""
        self._guard(self._begin_watch if on else self._switch.end_recording)

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes that came from the client, and those for it, up to now; for open ones."""
        return self._client.carried

    # Events of the loop

    def _begin(self) -> None:
        self._switch = RecordingSwitch(self, self.port, whole=self.port.whole, unclaimed=self.port.unclaimed)
        if self.port.watched and self._switch.raw == "app":
            self._registry.recorder.begin_bytes(self)

    def _begin_watch(self) -> None:
        if self._switch.raw == "app" and not (self._client.ended or self._client.finishing):  # it is about to end
            self._registry.recorder.begin_bytes(self, new=False)

    def _on_client(self, events: int) -> None:
        self._happened(self._client, "client", events)

    def _on_app(self, events: int) -> None:
        if self._app is not None:
            self._happened(self._app, "app", events)

    def _on_envoy(self, events: int) -> None:
        if self._envoy is not None:
            self._happened(self._envoy, "envoy", events)

    def _dial_from_pod(self) -> None:
        end = self._app
        if end is None or not end.connecting:
            return
        self._close(end)
        sock, error, _ = self._registry.dialler.dial_from_pod(self.port.app, "lost")
        end.replace(sock)
        self._dialled(end, error)

    def _dialled(self, end: SocketEnd, error: int) -> None:
        end.connecting = error in IN_PROGRESS
        if error and not end.connecting:
            end.broken = True
            self._registry.loop.call_later(0, lambda: self._undialled(end))

    def _undialled(self, end: SocketEnd) -> None:
        if end is self._app:
            self._guard(lambda: self._failed(end, "app"))

    def _happened(self, end: SocketEnd, side: Side, events: int) -> None:
        try:
            if events & WRITABLE and end.events & WRITABLE:
                self._writable(end, side)
            if end.events == NOT_WATCHED:
                pass  # it was closed just now
            elif events & READABLE and end.events & READABLE:
                self._read(end, side)
            elif events & _ERROR and (side == "client" or end.ended):
                self._failed(end, side)
            elif events & (_ERROR | _HANGUP) and not end.events & READABLE:
                end.parked = True  # what came before the error, or the end, is read when it is wanted
                self._client.limit()
            self._settle()
        except Exception:
            log.exception("a connection ends by an internal error")
            self._fail()

    def _guard(self, step: Callable[[], None]) -> None:
        """What is due outside of :meth:`_happened`: an error in it ends this connection only, too."""
        try:
            if not self._closing:
                step()
                self._settle()
        except Exception:
            log.exception("a connection ends by an internal error")
            self._fail()

    def _fail(self) -> None:
        self._registry.failed()
        self.kill()

    def _writable(self, end: SocketEnd, side: Side) -> None:
        if end.connecting:
            end.connecting = False
            if side == "app":
                self._registry.dialler.answered(self)
            if end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._failed(end, side)
                return
        end.flush()

    def _read(self, end: SocketEnd, side: Side) -> None:
        switch, scratch = self._switch, self._registry.piece
        try:
            size = end.sock.recv_into(scratch)
        except BlockingIOError:
            return
        except OSError:
            self._failed(end, side)
            return
        if not size:
            self._ended(end, side)
        elif (to := switch.pass_unseen(side, size)) is not None:
            self.send(to, scratch[:size])
        elif side == "client":
            switch.from_client(bytes(scratch[:size]))
        elif side == "app":
            switch.from_app(bytes(scratch[:size]))
        else:
            switch.from_envoy(bytes(scratch[:size]))

    def _ended(self, end: SocketEnd, side: Side) -> None:
        end.ended = True
        if end.broken:  # it did not take all that was for it: its end is no orderly one
            self._failed(end, side)
        elif side == "client":
            self._switch.client_ended()
        elif side == "app":
            self._switch.app_ended()
        else:
            self._switch.envoy_ended()

    def _failed(self, end: SocketEnd, side: Side) -> None:
        end.ended = end.broken = True
        end.out = b""
        self._watch(end, NOT_WATCHED)
        self._switch.failed(side)

    # What follows

    def _end(self, side: Side) -> SocketEnd | None:
        return self._client if side == "client" else self._app if side == "app" else self._envoy

    def _settle(self) -> None:
        """After whatever happened: what is wanted of each socket now. Runs for every piece, so it is one function."""
        if self._closing:
            return
        client, app, envoy, switch = self._client, self._app, self._envoy, self._switch
        if client.broken or self._aborted:
            self._go_down()
            return
        if app is not None and envoy is None and client.events == app.events == READABLE and switch.reading:
            holds = self._held or switch.holds
            if not (client.out or client.ended or app.out or app.ended or app.broken or holds):
                return  # as for most pieces: both are read, and took all that was for them
        if self._fail_closed():
            self._go_down()
            return
        app, envoy = self._app, self._envoy
        waiting = bool(client.out)
        blocked = False
        if app is not None:
            blocked = app.broken or bool(app.out)
            self._want(app, not waiting and switch.reading_app)
        if envoy is not None:
            blocked = blocked or envoy.broken or bool(envoy.out)
            self._want(envoy, not waiting)
        self._want(client, switch.reading and not blocked)
        if switch.over and not waiting and not (blocked and self._owes()):
            self._close_orderly()
        elif self._held or switch.holds:
            self._held = switch.held
            self._registry.held(self, self._held, switch.heads)

    def _fail_closed(self) -> bool:
        """Pass on that app or Envoy was sent something after it had closed; whether that is the end."""
        if self._app is not None and self._app.closed:
            self._failed(self._app, "app")
        if self._envoy is not None and self._envoy.closed:
            self._failed(self._envoy, "envoy")
        return self._aborted

    def _owes(self) -> bool:
        """Whether app or Envoy still gets something."""
        return any(end is not None and bool(end.out) for end in (self._app, self._envoy))

    def _want(self, end: SocketEnd, reading: bool) -> None:
        events = READABLE if reading and not end.ended else 0
        if end.out or end.connecting:
            events |= WRITABLE
        if events != end.events:
            over = not events and (end.parked or (end.ended and end.finished))
            self._watch(end, NOT_WATCHED if over else events)

    def _watch(self, end: SocketEnd, events: int) -> None:
        loop = self._registry.loop
        if end.events == events:
            return
        if events == NOT_WATCHED:
            loop.unregister(end.fd)
        elif end.events == NOT_WATCHED:
            on = self._on_client if end is self._client else self._on_app if end is self._app else self._on_envoy
            loop.register(end.fd, events, on)
        else:
            loop.modify(end.fd, events)
        end.events = events

    def _close_orderly(self) -> None:
        """What is on its way is counted as open: once nothing is, the agent may take away the rules it needs."""
        if self._client.unacknowledged > 1:  # more than the end of stream, which was sent just now
            self._close_others(reset=False)
            self._close_delivered(_LOOK_SECONDS, reset=False)
        else:
            self._close_all(reset=False)

    def _go_down(self) -> None:
        self._close_others(reset=True)
        client = self._client
        if client.broken:
            self._close_all(reset=True)
        elif client.out:
            self._watch(client, WRITABLE)
        else:
            self._close_delivered(_LOOK_SECONDS, reset=True)

    def _close_delivered(self, look: float, *, reset: bool) -> None:
        """Close once the client's kernel has all: a reset takes away what it has not acknowledged."""
        if self._closed:
            return
        self._closing = True
        self._watch(self._client, NOT_WATCHED)
        if self._delivery.pending:
            again = min(2 * look, _LONGEST_LOOK_SECONDS)
            self._registry.loop.call_later(look, lambda: self._close_delivered(again, reset=reset))
        else:
            self._close_all(reset=reset)

    def _close(self, end: SocketEnd, *, reset: bool = False) -> None:
        self._watch(end, NOT_WATCHED)
        if end is self._app:
            self._registry.dialler.forget(self)
        end.close(reset=reset)

    def _close_others(self, *, reset: bool) -> None:
        for end in (self._app, self._envoy):
            if end is not None:
                self._close(end, reset=reset)
        self._app = self._envoy = None

    def _close_all(self, *, reset: bool) -> None:
        self._closing = self._closed = True
        if self.port.watched:
            self._registry.recorder.end_all(self)
        self._close(self._client, reset=reset)
        self._close_others(reset=reset)
        self._registry.held(self, 0, 0)
        self._registry.closed(self)
