"""Whoever reaches the port of control with a made-up token: bounded in streams, connections and memory."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from meshdev.manager.control import service
from meshdev.sidecar.envoy.protos import CLUSTERS, ENDPOINTS, LISTENERS, ROUTES
from meshdev.wire import agent
from meshdev.wire.agent import AgentHello, Listen, PodPort, State
from meshdev.wire.counts import Counts
from tests.manager.control.claimant import Claimant
from tests.manager.control.sidecars import KEYS, Control, agent_of, channel, control, joined, metadata
from tests.manager.standin import Manager
from tests.sidecar.real_envoy import free_port
from tests.waiting import until

UNCLAIMED = 32
#: Many times what is left of one, and a tenth of what it sends.
MEMORY_MIB = 32


@dataclass
class Process:
    """The container by itself: of the tunnel's it hears nothing."""

    port: int
    pid: int

    def memory(self) -> int:
        """MiB."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    port = free_port()
    work = f"run(Path({str(tmp_path / 'tunnel.sock')!r}), '127.0.0.1:{port}')"
    modules = "import asyncio; from pathlib import Path; from meshdev.manager.control.__main__ import run"
    with subprocess.Popen([sys.executable, "-c", f"{modules}; asyncio.run({work})"]) as started:
        try:
            yield Process(port, started.pid)
        finally:
            started.kill()


def requests(number: int) -> Iterator[Any]:
    """A quarter of a MiB each, of one kind after the other."""
    for kind in (CLUSTERS, ENDPOINTS, LISTENERS, ROUTES):
        request = discovery_pb2.DiscoveryRequest(type_url=kind)
        request.node.id, request.node.user_agent_name = f"u{number}", "x" * 10_000
        request.resource_names.extend(f"{number}-{each}-" + "y" * 220 for each in range(1000))
        yield request


async def test_what_they_send_is_not_kept(process: Process) -> None:
    async with AsyncExitStack() as undo:
        lines = [await undo.enter_async_context(channel(process)) for _ in range(UNCLAIMED)]
        calls = []

        async def ask(number: int) -> None:
            stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(lines[number])
            call = stub.StreamAggregatedResources(
                metadata=metadata(f"unclaimed-{number}-" + "x" * 20), wait_for_ready=True
            )
            calls.append(call)
            for request in requests(number):
                await call.write(request)

        await ask(0)
        before = process.memory()
        await asyncio.gather(*map(ask, range(1, UNCLAIMED)))
        assert not any(call.done() for call in calls)
        assert process.memory() - before < MEMORY_MIB


async def test_they_take_no_stream_from_those_who_are_claimed(
    mesh: Control, claimant: Claimant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_UNCLAIMED_STREAMS", 2)
    claimant.claim()
    async with channel(mesh) as line, agent_of(mesh, "a" * 32, "first"), agent_of(mesh, "b" * 32, "second"):
        await until(lambda: len(list(mesh.core.pods())) == 2)
        call = line.stream_stream(agent.METHOD)(metadata=metadata("c" * 32))
        with pytest.raises(grpc.RpcError):
            await call.read()
        assert await call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        async with joined(mesh):
            await claimant.reported("acked")
    async with agent_of(mesh, "c" * 32):  # there is room again
        await until(lambda: len(list(mesh.core.pods())) == 1)


async def test_strangers_are_bounded(mesh: Control, claimant: Claimant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshdev.manager.control.core.MAX_WAITING", 3)
    async with channel(mesh) as line:
        calls = []
        for number in range(4):
            call = line.stream_stream(agent.METHOD)(metadata=metadata(f"unclaimed-{number}-" + "x" * 20))
            await call.write(agent.encode(AgentHello(f"p{number}", f"u{number}", "default", IPv4Address("127.0.0.1"))))
            calls.append(call)
            await until(lambda number=number, call=call: call.done() or len(list(mesh.core.pods())) == number + 1)  # type: ignore[misc]  # a default in a lambda
        assert await calls[3].code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        claimant.claim()
        await until(lambda: len(mesh.core.claimed()) == len(KEYS))  # or its sidecar is one more that nobody claims
        async with joined(mesh):
            await claimant.reported("acked")
        for call in calls:
            call.cancel()


@pytest.mark.parametrize("greeting", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))])
async def test_a_connection_without_a_stream_is_closed(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, greeting: bytes
) -> None:
    short = {"grpc.server_handshake_timeout_ms": 200, "grpc.max_connection_idle_ms": 200}
    assert short.keys() <= dict(service.OPTIONS).keys()
    monkeypatch.setattr(service, "OPTIONS", tuple((dict(service.OPTIONS) | short).items()))
    assert manager.holders() == []
    async with control(tmp_path) as mesh, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", mesh.port)
        writer.write(greeting)
        with suppress(ConnectionError):
            await reader.read()
        writer.close()


async def test_what_they_call_themselves_is_one_line_of_the_log(
    mesh: Control, caplog: pytest.LogCaptureFixture
) -> None:
    async with channel(mesh) as line:
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(line)
        call = stub.StreamAggregatedResources(metadata=metadata("a" * 32))
        request = discovery_pb2.DiscoveryRequest(type_url=CLUSTERS)
        request.node.id, request.error_detail.message = "x\nnew line", "y\nanother"
        await call.write(request)
        await until(lambda: "another" in caplog.text)
        assert "the Envoy of pod x new line refuses: y another" in caplog.text


LARGE = agent.encode(State(return_paths=tuple((20_000 + each, "open") for each in range(8192))))


@pytest.mark.parametrize(
    "message",
    [
        LARGE,
        agent.encode(State(intercepts=tuple((f"{each:032x}", Counts()) for each in range(1025)))),
        agent.encode(Listen({PodPort(each): each for each in range(1, 258)}, "/tmp/meshdev-x")),
        b'{"state":' + b" " * service.MAX_UNCLAIMED + b"}",
    ],
)
async def test_what_is_kept_of_them_is_small(mesh: Control, message: bytes) -> None:
    async with agent_of(mesh, "a" * 32) as unclaimed:
        await until(lambda: len(list(mesh.core.pods())) == 1)
        await unclaimed.say(message)
        assert await unclaimed.call.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_sidecars_that_are_claimed_may_say_more(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    await until(lambda: len(mesh.core.claimed()) == len(KEYS))
    async with joined(mesh) as made:
        await made.agent.say(LARGE)
        await until(lambda: any(len(pod._return_paths) == 8192 for pod in mesh.core.pods()))
        await claimant.reported("acked")
