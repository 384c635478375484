"""Load on one service, from a pod: ``python3 -c "$(cat load.py)" PLAN``; the standard library, and grpcio where asked.

It runs until the end of its input; a line ``renew`` makes every connection anew. Each request is a line of JSON:
``[kind, connection, matched, start, end, said]``: the connection's number and which of its requests it is; times by
the machine's clock; the name that answered, or ``!`` and what went wrong. Clients behave as good ones do: a
connection that was seen to be closed is not used again, ``Connection: close`` is obeyed, nothing is tried twice.

| kind | |
|---|---|
| new | a connection a request |
| kept | connections that are kept, each asked in turn, at a steady pace |
| pool | idle connections are used first, the last one first; as many as it takes |
| grpc | calls on one channel |
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

SECONDS: Final = 10.0
_OK: Final = " 200 "


@dataclass
class Connection:
    """An HTTP connection and how often it was asked."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    asked: int = 0

    def usable(self) -> bool:
        """Nothing was said about its end yet."""
        return not self.reader.at_eof() and self.reader.exception() is None and not self.writer.is_closing()

    async def ask(self, host: str, *, matched: bool, last: bool = False) -> tuple[str, bool]:
        """GET /, with the request's number behind it; what was answered and whether the connection goes on."""
        self.asked += 1
        lines = [
            f"GET /?{self.number}.{self.asked} HTTP/1.1\r\nHost: {host}",
            *(["a: 1"] * matched),
            *(["Connection: close"] * last),
            "\r\n",
        ]
        self.writer.write("\r\n".join(lines).encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *fields = head.split("\r\n")
        named = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields if field)}
        body = (await self.reader.readexactly(int(named.get("content-length", "0")))).decode()
        said = body if _OK in f"{status} " else f"!{status} {body}"
        return said, named.get("connection", "").lower() != "close"


class Load:
    """All of it, on one service."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._host: str = plan["host"]
        self._numbers = itertools.count(1)
        turns = [True] * plan["matched"] + [False] * (plan["of"] - plan["matched"])
        self._turns = {kind: itertools.cycle(turns) for kind in ("new", "kept", "pool", "grpc")}
        self._stopping = asyncio.Event()
        self._idle: list[Connection] = []
        self._renewed = 0
        self._channel: Any = None
        self._lines: list[str] = []

    async def run(self) -> None:
        """Until the end of the input; what is on its way then is waited for."""
        plan = self._plan
        flushing = asyncio.ensure_future(self._flush())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hear())
            if plan["new"]:
                group.create_task(self._at("new", self._new))
            for number in range(plan["connections"]):
                group.create_task(self._keep(number, plan["connections"] / plan["kept"]))
            if plan["pool"]:
                group.create_task(self._at("pool", self._pooled))
            if plan["grpc"]:
                group.create_task(self._at("grpc", self._call))
        flushing.cancel()
        self._write()

    async def _hear(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            if line.strip() == b"renew":
                self._renewed += 1
                for connection in self._idle:
                    connection.writer.close()
                self._idle.clear()
                channel, self._channel = self._channel, None
                if channel is not None:
                    await channel.close(SECONDS)
        self._stopping.set()

    async def _at(self, kind: str, what: Callable[[bool], Coroutine[Any, Any, None]]) -> None:
        """Begin one every 1/rate seconds, however long they take."""
        begun, rate = time.monotonic(), self._plan[kind]
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                if await self._stopped(begun + number / rate - time.monotonic()):
                    return
                group.create_task(what(next(self._turns[kind])))

    async def _stopped(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), max(0.0, seconds))
        return self._stopping.is_set()

    # -- HTTP ------------------------------------------------------------------------------------------------------

    async def _ask(
        self, kind: str, connection: Connection | None, *, matched: bool, last: bool = False
    ) -> Connection | None:
        """One request, on a new connection where none is given; the connection if it goes on."""
        start, said, goes_on = time.time(), "", False
        try:
            async with asyncio.timeout(SECONDS):
                if connection is None:
                    reader, writer = await asyncio.open_connection(self._host, self._plan["port"])
                    connection = Connection(next(self._numbers), reader, writer)
                said, goes_on = await connection.ask(self._host, matched=matched, last=last)
        except asyncio.IncompleteReadError as error:
            said = f"!closed after {len(error.partial)} bytes"
        except (OSError, TimeoutError) as error:
            said = f"!{error!r}"
        number, asked = (connection.number, connection.asked) if connection else (0, 0)
        self._tell(kind, f"{number}.{asked}", matched, start, said)
        return _kept(connection, unless=not goes_on)

    async def _new(self, matched: bool) -> None:
        _closed(await self._ask("new", None, matched=matched, last=True))

    async def _keep(self, number: int, period: float) -> None:
        """One client that keeps its connection."""
        connection: Connection | None = None
        renewed, begun = self._renewed, time.monotonic() + period * number / self._plan["connections"]
        for turn in itertools.count():
            if await self._stopped(begun + turn * period - time.monotonic()):
                break
            connection = _kept(connection, unless=renewed != self._renewed)
            renewed = self._renewed
            connection = await self._ask("kept", connection, matched=next(self._turns["kept"]))
        _closed(connection)

    async def _pooled(self, matched: bool) -> None:
        connection, renewed = None, self._renewed
        while self._idle and connection is None:
            connection = _kept(self._idle.pop())
        connection = await self._ask("pool", connection, matched=matched)
        if connection is not None and renewed == self._renewed:
            self._idle.append(connection)
        else:
            _closed(connection)

    # -- gRPC ------------------------------------------------------------------------------------------------------

    async def _call(self, matched: bool) -> None:
        import grpc.aio  # noqa: PLC0415 -- only where asked for

        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(f"{self._host}:{self._plan['grpc_port']}")
        start = time.time()
        call = self._channel.unary_unary("/sample.Echo/Unary")(b"x", timeout=SECONDS, metadata=(("a", "1"),) * matched)
        try:
            await call
            said = dict(await call.initial_metadata())["name"]
        except grpc.aio.AioRpcError as error:
            said = f"!{error.code().name} {error.details()}"
        self._tell("grpc", "", matched, start, said)

    # -- what is told ----------------------------------------------------------------------------------------------

    def _tell(self, kind: str, connection: str, matched: bool, start: float, said: str) -> None:
        row = (kind, connection, matched, round(start, 4), round(time.time(), 4), said[:300])
        self._lines.append(json.dumps(row))

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            self._write()

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()


def _kept(connection: Connection | None, *, unless: bool = False) -> Connection | None:
    """The connection, where it can be used again; otherwise it is closed."""
    if connection is not None and not unless and connection.usable():
        return connection
    _closed(connection)
    return None


def _closed(connection: Connection | None) -> None:
    if connection is not None:
        connection.writer.close()


if __name__ == "__main__":
    asyncio.run(Load(json.loads(sys.argv[1])).run())
