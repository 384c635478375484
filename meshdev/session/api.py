"""The session API: a unix socket only its user reaches. A request has one answer; an intercept has a stream, and so
have ``inspect`` and the dashboard."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from meshdev.errors import InterceptError, LaptopError, MeshdevError
from meshdev.wire.jsonlines import MAX_LINE
from meshdev.wire.session_api import Answer, Event, Failed, Question, encode_answer, encode_event, parse_request
from meshdev.wire.session_dashboard import DashboardRequest
from meshdev.wire.session_inspect import InspectRequest
from meshdev.wire.session_intercepts import InterceptRequest, Live

log = logging.getLogger(__name__)

Handler = Callable[[Question], Awaitable[Answer]]

#: Time for a client to send its request, in seconds.
REQUEST_SECONDS: Final = 5.0
#: Time for the last answers to leave, in seconds.
LAST_ANSWERS_SECONDS: Final = 1.0
#: What a client may leave unread before it gets no more events that the next one replaces.
UNREAD_BYTES: Final = 1 << 16


def _listen(path: Path) -> socket.socket:
    """Listen at *path*. What a dead session left there is replaced: whoever calls this holds the session's lock.

    Raises LaptopError.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        sock.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        sock.close()
        raise LaptopError(
            f"the session cannot listen at {path}: {error.strerror}", hint="is the disk full, or read-only?"
        ) from error
    return sock


class Exchange:
    """One stream, from the session's side. Made for one :data:`Streamer` call."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._closed = asyncio.Event()

    def send(self, event: Event) -> None:
        """Send the client an event. Never blocks and never fails: for a client that is gone :meth:`closed` returns.

        To one that does not read, no more Live is sent until it does; the others are few.
        """
        if not self._writer.transport.is_closing() and not (self.late and isinstance(event, Live)):
            self._writer.write(encode_event(event))

    @property
    def late(self) -> bool:
        """Whether the client leaves much unread."""
        return self._writer.transport.get_write_buffer_size() > UNREAD_BYTES

    async def closed(self) -> None:
        """Return when the client has half-closed the stream, or is gone. Any number of tasks may wait."""
        await self._closed.wait()

    async def watch(self) -> None:
        """What makes :meth:`closed` return. A client sends nothing after its request; what it sends is ignored."""
        with suppress(OSError):
            while await self._reader.read(65536):
                pass
        self._closed.set()


StreamRequest = InterceptRequest | InspectRequest | DashboardRequest
#: Runs one of them to its end. What it raises as MeshdevError is the stream's last event; it sends "left" itself.
Streamer = Callable[[StreamRequest, Exchange], Awaitable[None]]


async def _takes_none(_request: StreamRequest, _exchange: Exchange) -> None:
    raise InterceptError("this session takes no intercepts")


@asynccontextmanager
async def serving(path: Path, handle: Handler, stream: Streamer = _takes_none) -> AsyncIterator[None]:
    """Answer requests at *path* with what *handle* returns or raises, as long as the context lasts.

    What has a stream is for *stream*; it is cancelled when it does not end soon after the context.

    The context ends when the pending answers have been sent; the socket's file is removed. Raises LaptopError where it
    cannot be made.
    """
    answers: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            answers.add(task)
            task.add_done_callback(answers.discard)
        try:
            await _serve(reader, writer, handle, stream)
        finally:
            writer.close()

    server = await asyncio.start_unix_server(answer, sock=_listen(path), limit=MAX_LINE)
    try:
        yield
    finally:
        server.close()
        await asyncio.to_thread(path.unlink, missing_ok=True)
        if answers:
            _, late = await asyncio.wait(answers, timeout=LAST_ANSWERS_SECONDS)
            for task in late:
                task.cancel()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handler, stream: Streamer) -> None:
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            request = parse_request(await reader.readline())
    except MeshdevError as error:
        await _write(writer, encode_answer(Failed.of(error)))
    except (TimeoutError, ValueError, OSError) as error:
        log.info("a request to the session API failed: %s", error)
    else:
        if isinstance(request, StreamRequest):
            await _stream(request, Exchange(reader, writer), stream)
        else:
            await _write(writer, await _answered(request, handle))


async def _answered(request: Question, handle: Handler) -> bytes:
    """One line, also where the answer is too long for one."""
    try:
        return encode_answer(await handle(request))
    except MeshdevError as error:
        return encode_answer(Failed.of(error))


async def _write(writer: asyncio.StreamWriter, line: bytes) -> None:
    try:
        writer.write(line)
        await writer.drain()
    except OSError as error:
        log.info("nobody waits for the answer: %s", error)


async def _stream(request: StreamRequest, exchange: Exchange, stream: Streamer) -> None:
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(exchange.watch())
        try:
            await stream(request, exchange)
        except MeshdevError as error:
            exchange.send(Failed.of(error))
        finally:
            watch.cancel()
