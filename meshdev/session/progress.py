"""The way back to the ``connect`` that waits: events go out, its end comes in."""

import asyncio
import contextlib
import os
import socket
import time
from typing import Final

from meshdev.errors import Cancelled, MeshdevError, ProtocolError
from meshdev.wire.jsonlines import MAX_LINE
from meshdev.wire.session_api import ConnectOptions, Done, Event, Failed, Note, Status, Step, Wait, encode_event

#: Time for the CLI's first line, in seconds: it writes it right after the start.
OPTIONS_SECONDS: Final = 10.0
#: Time for a caller to take the last event, in seconds.
LAST_WORD_SECONDS: Final = 5.0


class Progress:
    """Owns the progress socket until :meth:`done` or :meth:`failed`.

    A caller that went away ends nothing by itself: :meth:`gone` says so, and only while connecting it matters.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock: socket.socket | None = sock
        self._since = time.monotonic()

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

    def step(self, name: str, text: str) -> None:
        """A step is done; its time counts from the end of the one before."""
        now = time.monotonic()
        self._send(Step(name, text, now - self._since))
        self._since = now

    def note(self, text: str) -> None:
        """Something the user should know."""
        self._send(Note(text))

    def wait(self, text: str) -> None:
        """What is being waited for."""
        self._send(Wait(text))

    async def done(self, status: Status) -> None:
        """Connected: the caller may go."""
        await self._last_word(Done(status))

    async def failed(self, error: MeshdevError) -> None:
        """Not connected, and everything is undone."""
        await self._last_word(Failed.of(error))

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
            # Nobody reads any more: gone() tells, and the log has it all.
            return

    async def _last_word(self, event: Event) -> None:
        if self._sock is None:
            return
        sock, self._sock = self._sock, None
        with sock, contextlib.suppress(OSError):  # as in _send; a status may be longer than the socket's buffer
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await asyncio.get_running_loop().sock_sendall(sock, encode_event(event))


def adopt(descriptor: int) -> socket.socket:
    """The socket of an inherited descriptor, not to be inherited further."""
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)
