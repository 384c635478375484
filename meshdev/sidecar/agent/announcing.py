"""The agent's token: made here, given away on a port of 127.0.0.1, and that port announced in the log.

Who can connect to 127.0.0.1 in a pod is in that pod, or may open port-forwards to it; both may speak for it
(docs/security.md). Nobody else learns the token: it is in no file, environment, argument, spec or log.
"""

import asyncio
import contextlib
import logging
import random
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from typing import Final, TextIO

from meshdev.errors import ClusterError
from meshdev.wire.announcement import CHOSEN_PORTS, REQUEST, Announcement, reply

#: Connections at once; one more ends the oldest, so that whoever holds them all keeps nobody out.
MAX_CONNECTIONS: Final = 16
#: Time for the request, in seconds.
REQUEST_SECONDS: Final = 5.0
#: Log rotation takes the announcement away (the kubelet reads the newest file only): it is repeated after so many
#: characters of other lines, and after so many seconds where there were any. The kubelet rotates at 10 MiB by default,
#: and looks every 10 s (KubeletConfiguration: containerLogMaxSize, containerLogMonitorInterval).
REPEAT_CHARACTERS: Final = 64 << 10
REPEAT_SECONDS: Final = 60.0


class SingleLines(logging.Formatter):
    """Whatever is logged, each line begins with a date or a blank: no message can look like the announcement."""

    def format(self, record: logging.LogRecord) -> str:
        """As the base class does; further lines are indented."""
        return "\n  ".join(super().format(record).splitlines())


class AnnouncingHandler(logging.StreamHandler[TextIO]):
    """Logs to *stream*, and repeats the announcement among what is logged."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._announcement: Announcement | None = None
        self._written = 0

    def announce(self, announcement: Announcement | None = None) -> None:
        """Write the announcement; without one the last again, where something was logged since."""
        self.acquire()
        try:
            if announcement is not None:
                self._announcement = announcement
            if self._announcement is not None and (announcement is not None or self._written):
                self._written = 0
                self.stream.write(f"{self._announcement}\n")
                self.flush()
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        super().emit(record)
        self._written += len(record.getMessage()) + 1
        if self._written > REPEAT_CHARACTERS:
            self.announce()


class TokenListener:
    """Listens as soon as it is made; :meth:`serving` answers. :attr:`token` is this process's own."""

    def __init__(self, assigned: int = 0) -> None:
        """On the *assigned* port, or on another where it is taken, or 0. Raises ClusterError where none is free."""
        self.token: Final = secrets.token_hex(32)
        self._sock = _listening(assigned)
        self.announcement: Final = Announcement(self._sock.getsockname()[1])
        self._open: dict[asyncio.Task[None], None] = {}

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answered inside; nobody listens afterwards."""
        server = await asyncio.start_server(self._accepted, sock=self._sock, limit=len(REQUEST))
        try:
            yield
        finally:
            server.close()
            for task in self._open:
                task.cancel()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- asyncio calls it in a task of its own
        while len(self._open) >= MAX_CONNECTIONS:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.cancel()
        self._open[task] = None
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                if await reader.readexactly(len(REQUEST)) == REQUEST:
                    writer.write(reply(self.token))
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # TimeoutError is an OSError; a wrong request gets no answer
        finally:
            self._open.pop(task, None)
            writer.close()


def _listening(assigned: int) -> socket.socket:
    """On the first that is free: *assigned*, one of :data:`CHOSEN_PORTS`, one of the kernel's choice."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    trouble: OSError | None = None
    for port in (*([assigned] if assigned else []), *random.sample(CHOSEN_PORTS, len(CHOSEN_PORTS)), 0):
        try:
            sock.bind(("127.0.0.1", port))
            sock.listen(MAX_CONNECTIONS)
        except OSError as error:
            trouble = error
        else:
            return sock
    sock.close()
    raise ClusterError(f"no port of 127.0.0.1 can be listened on: {trouble}")


async def repeat(handler: AnnouncingHandler) -> None:
    """Until cancelled: the announcement again and again, where something was logged since."""
    while True:
        await asyncio.sleep(REPEAT_SECONDS)
        handler.announce()


def logging_to(stream: TextIO = sys.stdout) -> AnnouncingHandler:
    """Log everything to *stream*, and nowhere else."""
    handler = AnnouncingHandler(stream)
    handler.setFormatter(SingleLines("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    return handler
