"""Progress events for the ``connect`` that waits, and whether it still runs."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import Final

from meshdev.errors import Cancelled, MeshdevError, ProtocolError
from meshdev.wire.jsonlines import MAX_LINE
from meshdev.wire.session_api import ConnectOptions, Done, Event, Failed, Note, Status, Step, Wait, encode_event

#: Time for the CLI's first line, in seconds: it writes it right after the start.
OPTIONS_SECONDS: Final = 10.0
#: Time for a caller to take the last event, in seconds.
LAST_EVENT_SECONDS: Final = 5.0


class StepReporter:
    """Progress as events for *send*. It is the :class:`meshdev.modes.link.ProgressReporter` of the session."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._report = send
        self._since = time.monotonic()

    def step(self, name: str, text: str) -> None:
        """A step is done; its time counts from the end of the one before."""
        now = time.monotonic()
        self._report(Step(name, text, now - self._since))
        self._since = now

    def note(self, text: str) -> None:
        """Something the user should know."""
        self._report(Note(text))

    def wait(self, text: str) -> None:
        """What is being waited for."""
        self._report(Wait(text))


class Progress(StepReporter):
    """Owns the progress socket until the last event.

    A caller that has exited ends nothing by itself: :meth:`gone` returns then, which matters only while connecting.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(self._send)
        sock.setblocking(False)
        self._sock: socket.socket | None = sock

    async def options(self) -> ConnectOptions:
        """The caller's first line. Raises Cancelled at its end, ProtocolError on anything else."""
        line = bytearray()
        async with asyncio.timeout(OPTIONS_SECONDS):
            while not line.endswith(b"\n"):
                data = await self._receive()
                if not data:
                    raise Cancelled("the command that started this session has ended")
                line += data
                if len(line) > MAX_LINE:
                    raise ProtocolError("the first line is too long")
        return ConnectOptions.parse(bytes(line))

    async def gone(self) -> None:
        """Return when the caller is gone."""
        while await self._receive():
            pass

    async def done(self, status: Status, *, last: bool = True) -> None:
        """Connected: the caller may go, if this is the *last* event."""
        await self._send_whole(Done(status), last=last)

    async def failed(self, error: MeshdevError) -> None:
        """Not connected, and everything is undone."""
        await self._send_whole(Failed.of(error), last=True)

    async def _receive(self) -> bytes:
        if self._sock is None:
            return b""
        try:
            return await asyncio.get_running_loop().sock_recv(self._sock, MAX_LINE)
        except OSError:
            return b""

    def _send(self, event: Event) -> None:
        if self._sock is None:
            return
        try:
            self._sock.send(encode_event(event), socket.MSG_NOSIGNAL)
        except OSError:
            # Nobody reads any more: gone() returns, and the log has it all.
            return

    async def _send_whole(self, event: Event, *, last: bool) -> None:
        sock = self._sock
        if sock is None:
            return
        if last:
            self._sock = None
        try:
            with contextlib.suppress(OSError):  # as in _send; a status may be longer than the socket's buffer
                async with asyncio.timeout(LAST_EVENT_SECONDS):
                    await asyncio.get_running_loop().sock_sendall(sock, encode_event(event))
        finally:
            if last:
                sock.close()


def adopt(descriptor: int) -> socket.socket:
    """The socket of an inherited descriptor, not to be inherited further."""
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)
