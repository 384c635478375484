"""The session API: a unix socket only its user reaches, one request and one answer a connection."""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from meshdev.errors import MeshdevError
from meshdev.wire.jsonlines import MAX_LINE
from meshdev.wire.session_api import Failed, Request, Status, encode_answer, parse_request

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Status | None]]

#: Time for a client to say what it wants, in seconds.
REQUEST_SECONDS: Final = 5.0


@contextmanager
def listen(path: Path) -> Iterator[socket.socket]:
    """The listening socket; its file goes with the context.

    One left over from a dead session is replaced: whoever calls this holds the session's lock.
    """
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        path.chmod(0o600)
        try:
            yield sock
        finally:
            path.unlink(missing_ok=True)


async def serve(sock: socket.socket, handle: Handler) -> None:
    """Answer requests with what *handle* returns or raises, until cancelled."""
    server = await asyncio.start_unix_server(lambda r, w: _answer(r, w, handle), sock=sock, limit=MAX_LINE)
    async with server:
        await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handler) -> None:
    answer: Status | Failed | None
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            line = await reader.readline()
        answer = await handle(parse_request(line))
    except MeshdevError as error:
        answer = Failed.of(error)
    except (TimeoutError, ValueError, OSError) as error:
        log.info("a request to the session API failed: %s", error)
        writer.close()
        return
    try:
        writer.write(encode_answer(answer))
        await writer.drain()
    except OSError as error:
        log.info("nobody waits for the answer: %s", error)
    finally:
        writer.close()


def describe() -> str:
    """The one on whose behalf this session runs, for others to read: ``user@host``."""
    user = os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.getuid())
    return f"{user}@{os.uname().nodename}"[:256]
