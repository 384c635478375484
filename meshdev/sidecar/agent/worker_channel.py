"""The agent's side of the conversation with its passthrough worker (:mod:`meshdev.wire.passthrough`)."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.wire.access import AccessRecords
from meshdev.wire.jsonlines import LineSplitter
from meshdev.wire.passthrough import MAX_LINE, AskCounts, PassthroughCounts, ToWorker, decode_from_worker, encode

#: Between two questions for counts.
ASK_SECONDS: Final = 1.0
#: Questions without an answer after which a worker is hung: 10 s. They are counted, and not the time that has passed,
#: since a pod may be frozen as a whole.
HUNG_QUESTIONS: Final = 10
_READ_BYTES: Final = 64 << 10


async def writable(sock: socket.socket) -> None:
    """Return when *sock* takes something, or has failed. One caller at a time."""
    loop = asyncio.get_running_loop()
    found = asyncio.Event()
    loop.add_writer(sock.fileno(), found.set)
    try:
        await found.wait()
    finally:
        loop.remove_writer(sock.fileno())


class WorkerChannel:
    """One worker's. *on_counts* gets each answer, *on_records* what it saw while it is watched."""

    def __init__(
        self,
        sock: socket.socket,
        on_counts: Callable[[PassthroughCounts], None],
        on_records: Callable[[AccessRecords], None],
    ) -> None:
        """*sock* stays its owner's."""
        sock.setblocking(False)
        self._sock = sock
        self._on_counts = on_counts
        self._on_records = on_records
        self._to_send: asyncio.Queue[tuple[bytes, Sequence[int]]] = asyncio.Queue()
        self._asked = 0
        self._unanswered = 0  # regular questions since the last answer

    def send(self, message: ToWorker, *descriptors: int) -> None:
        """Send it, in order. *descriptors* have to stay open. Raises ProtocolError where it is too long."""
        self._to_send.put_nowait((encode(message), descriptors))

    def ask(self) -> int:
        """Ask for counts now; the number that the answer has."""
        self._asked += 1
        self.send(AskCounts(self._asked))
        return self._asked

    async def converse(self) -> str:
        """Until the worker ends, says what no worker says, or says nothing. Returns why."""
        tasks = [asyncio.ensure_future(part) for part in (self._send_all(), self._receive(), self._ask())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return next(iter(done)).result()

    async def _send_all(self) -> str:
        while True:
            data, descriptors = await self._to_send.get()
            try:
                await self._send(data, descriptors)
            except (BrokenPipeError, ConnectionResetError):
                return "it has closed its socket"

    async def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        while descriptors:
            try:
                data = data[socket.send_fds(self._sock, [data], descriptors) :]
                break
            except BlockingIOError:
                await writable(self._sock)
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def _receive(self) -> str:
        splitter = LineSplitter(MAX_LINE)
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(self._sock, _READ_BYTES):
                for line in splitter.feed(data):
                    message = decode_from_worker(line)
                    if isinstance(message, AccessRecords):
                        self._on_records(message)
                    else:
                        self._unanswered = 0
                        self._on_counts(message)
        except ProtocolError as error:
            return error.message
        except ConnectionResetError:  # it had not read all that was sent to it
            pass
        return "it has closed its socket"

    async def _ask(self) -> str:
        while self._unanswered < HUNG_QUESTIONS:
            self._unanswered += 1
            self.ask()
            await asyncio.sleep(ASK_SECONDS)
        return f"it has not answered for {HUNG_QUESTIONS * ASK_SECONDS:.0f} s"
