"""The session API: a unix socket only its user reaches, one request and one answer a connection."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from meshdev.errors import MeshdevError
from meshdev.wire.jsonlines import MAX_LINE
from meshdev.wire.session_api import Failed, Request, Status, encode_answer, parse_request

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Status | None]]

#: Time for a client to say what it wants, in seconds.
REQUEST_SECONDS: Final = 5.0
#: Time for the last answers to leave, in seconds.
LAST_ANSWERS_SECONDS: Final = 1.0


def _listen(path: Path) -> socket.socket:
    """Listen at *path*. What a dead session left there is replaced: whoever calls this holds the session's lock."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    path.chmod(0o600)
    return sock


@asynccontextmanager
async def serving(path: Path, handle: Handler) -> AsyncIterator[None]:
    """Answer requests at *path* with what *handle* returns or raises, as long as the context lasts.

    The context ends when the answers under way have left. The socket's file goes with it.
    """
    answers: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            answers.add(task)
            task.add_done_callback(answers.discard)
        await _answer(reader, writer, handle)

    server = await asyncio.start_unix_server(answer, sock=_listen(path), limit=MAX_LINE)
    try:
        yield
    finally:
        server.close()
        await asyncio.to_thread(path.unlink, missing_ok=True)
        if answers:
            await asyncio.wait(answers, timeout=LAST_ANSWERS_SECONDS)


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
