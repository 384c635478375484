"""What records and trace contexts cost Envoy: its processor time for a request, with them against without."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.sidecar.envoy import access_log, listeners, trace_context
from tests.sidecar.certificates import Certificates
from tests.sidecar.pod import End, Pod
from tests.sidecar.real_envoy import running

MINE = Match(headers=(HeaderMatch("a", "exact", "1"),))
HEADERS = b"User-Agent: curl/8.5.0\r\nAccept: */*\r\n"
UNCLAIMED = b"GET /api/items?page=2 HTTP/1.1\r\nHost: b\r\n" + HEADERS + b"\r\n"
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CLAIMED = UNCLAIMED.replace(HEADERS, HEADERS + b"A: 1\r\nTraceparent: " + TRACE + b"\r\n")
ANSWER = b"HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 2\r\n\r\nok"
CLIENTS, EACH, ROUNDS = 16, 60, 15


async def say_ok(_end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(ANSWER)


def processor_time(pid: int) -> int:
    """Of all of its threads, in nanoseconds (proc_pid_schedstat: the first number)."""
    return sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{pid}/task").glob("*/schedstat"))


class Client:
    """Clients whose connections are kept."""

    def __init__(self, app: Pod, request: bytes) -> None:
        self.app = app
        self._request = request
        self._connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def round(self) -> float:
        """Microseconds of Envoy for each request."""
        while len(self._connections) < CLIENTS:
            self._connections.append(await self.app.connect())
        pid = self.app.envoy.process.pid
        began = processor_time(pid)
        await asyncio.gather(*(self._ask(*each) for each in self._connections))
        return (processor_time(pid) - began) / (CLIENTS * EACH) / 1000

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(EACH):
            writer.write(self._request)
            await reader.readuntil(b"\r\n\r\nok")


@asynccontextmanager
async def client(folder: Path, request: bytes = UNCLAIMED, *, trace: bool = False) -> AsyncIterator[Client]:
    """Of a pod to whose laptop nothing goes: its program does not listen."""
    app, certificates = End("app", say_ok), Certificates(folder)
    await app.start()
    async with running(certificates=certificates) as envoy:
        made = Pod(envoy, certificates, app, app)
        made.claim(MINE, up=False, trace=trace)
        await made.serve()
        yield Client(made, request)
    await app.stop()


def without(patch: pytest.MonkeyPatch, remove: Callable[[Any], None]) -> None:
    """Listeners from whose HTTP connection managers that is removed."""
    whole = listeners.listener

    def bare(served: Any) -> Any:
        made = whole(served)
        remove(made["filter_chains"][0]["filters"][0]["typed_config"])
        return made

    patch.setattr("meshdev.sidecar.envoy.resources.listener", bare)


async def measured(kinds: dict[str, Client]) -> dict[str, float]:
    """Shares of requests a second as Envoy alone allows them. Rounds alternate: what else happens here hits all."""
    for each in kinds.values():
        await each.round()
    costs: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, each in kinds.items():
            costs[name].append(await each.round())
    found = {name: median(some) for name, some in costs.items()}
    shares = {name: found["bare"] / cost for name, cost in found.items()}
    print(f"µs a request: { {name: round(cost, 1) for name, cost in found.items()} }")
    print(f"share: { {name: round(share, 3) for name, share in shares.items()} }")
    return shares


async def test_watching_costs_little_and_not_watching_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with client(tmp_path) as idle, client(tmp_path) as watched:
        assert await watched.app.envoy.admin(access_log.target(watched=True), "POST")
        with monkeypatch.context() as patch:
            without(patch, lambda manager: manager.pop("access_log"))
            async with client(tmp_path) as bare:
                shares = await measured({"bare": bare, "idle": idle, "watched": watched})
                logs = watched.app.envoy.ads.logs
                assert bare.app.envoy.ads.logs.requests == idle.app.envoy.ads.logs.requests == []
                assert len(logs.requests) > CLIENTS * EACH * (ROUNDS - 1), "in batches, soon after"
                print(f"{logs.messages} messages")
    assert shares["idle"] > 0.9
    assert shares["watched"] > 0.6


async def test_a_trace_context_costs_little_and_none_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of requests that are claimed and fall back; a trace is continued."""
    async with client(tmp_path, CLAIMED) as plain, client(tmp_path, CLAIMED, trace=True) as traced:
        with monkeypatch.context() as patch:
            without(patch, lambda manager: manager["http_filters"].remove(trace_context.http_filter()))
            async with client(tmp_path, CLAIMED) as bare:
                shares = await measured({"bare": bare, "plain": plain, "traced": traced})
    assert shares["plain"] > 0.9
    assert shares["traced"] > 0.6
