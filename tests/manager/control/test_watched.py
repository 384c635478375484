"""What sessions learn of requests that a real Envoy carried, through control and the tunnel container."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc

from meshdev.manager.control import access_logs, processing_time, service, watches
from meshdev.sidecar.envoy import access_log, names
from meshdev.wire import proxy_protocol
from meshdev.wire.access import AccessRecord, AccessRecords, Watch
from meshdev.wire.agent import FromAgent, PodPort, State
from tests.manager.control.claimant import Claimant
from tests.manager.control.identities import identity
from tests.manager.control.sidecars import PORT, Control, agent_of, channel
from tests.manager.control.test_real_envoy import MANAGER, Pod, ends, joined, relays
from tests.manager.standin import POD, Manager, running
from tests.sidecar.pod import End, length
from tests.waiting import until

__all__ = ["relays"]

OWN = Watch(on=True)
ALL = Watch(on=True, all=True)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with running(tmp_path, pod=replace(POD, address=MANAGER)) as manager:
        yield manager


async def obey(pod: Pod) -> None:
    """What the agent does with a watch."""
    await until(lambda: pod._agent.watch is not None)
    assert pod._agent.watch is not None
    target = access_log.target(watched=pod._agent.watch.on)
    reader, writer = await asyncio.open_unix_connection(f"{pod._folder}/admin")
    writer.write(f"POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


class Client:
    """A client's connection, as the passthrough proxy brings it to Envoy."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod

    async def __aenter__(self) -> Self:
        path = names.socket(self._pod._folder, PodPort(self._pod._number))
        self._reader, self._writer = await asyncio.open_unix_connection(path)
        self._writer.write(proxy_protocol.header(("10.244.1.7", 43210), ("127.0.0.1", self._pod._number)))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, target: str, value: str = "1") -> str:
        self._writer.write(f"GET {target} HTTP/1.1\r\nHost: b\r\na: {value}\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        return (await self._reader.readexactly(length(head))).decode()


@asynccontextmanager
async def watched(mesh: Control, claimant: Claimant, watch: Watch) -> AsyncIterator[tuple[Pod, End]]:
    """A pod with a claim on ``a: 1`` whose session watches, and the laptop's program."""
    async with ends() as (app, laptop), joined(mesh, app, claimant, "1") as pod:
        one = pod.spec("1")
        await claimant.reported("acked", one)
        claimant.watch(watch, one)
        await obey(pod)
        yield pod, laptop


@pytest.mark.usefixtures("relays")
async def test_where_each_request_went_and_why(mesh: Control, claimant: Claimant) -> None:
    async with watched(mesh, claimant, ALL) as (pod, laptop):
        one = pod.spec("1")

        async def ask(target: str, value: str = "1") -> str:
            async with Client(pod) as client:  # no connection to a laptop that ends meanwhile
                return await client.ask(target, value)

        assert await ask("/laptop?token=abc") == "laptop"
        assert await ask("/nobody's", "2") == "original"
        await laptop.stop()
        assert await ask("/stopped") == "original"
        claimant.local(one, False, one.ports[0])
        await until(lambda: not next(iter(mesh.core.held_by(identity().key))).claim.up)
        await pod.seconds_until("1", "original")
        assert await ask("/down") == "original"
        found, dropped = await claimant.records(5)
        assert dropped == 0
        of: dict[str, AccessRecord] = {each.path: each for each in found}
        assert {path: (each.served_by, each.reason) for path, each in of.items() if path != "/"} == {
            "/laptop?token=***": ("laptop", ""),
            "/nobody's": ("original", "a=2, not a=1"),
            "/stopped": ("fallback", "fell back: ann refused the connection to 3000"),
            "/down": ("fallback", "fell back: nothing listens on 3000"),
        }
        first = of["/laptop?token=***"]
        assert (first.source, first.port, first.protocol) == (IPv4Address("10.244.1.7"), pod._number, "HTTP/1.1")
        assert (first.method, first.authority, first.status, first.response_bytes) == ("GET", "b", 200, 6)
        assert (first.intercept, of["/nobody's"].intercept) == (one.id, None)


@pytest.mark.usefixtures("relays")
async def test_each_request_is_told_once_and_none_when_nobody_watches_any_more(
    mesh: Control, claimant: Claimant
) -> None:
    async with watched(mesh, claimant, OWN) as (pod, _):
        asked = [f"/{number}" for number in range(400)]

        async def some(paths: list[str]) -> None:
            async with Client(pod) as client:
                for path in paths:
                    assert await client.ask(path) == "laptop"

        await asyncio.gather(*(some(asked[first::4]) for first in range(4)), some([]))
        async with Client(pod) as client:
            await client.ask("/nobody's", "2")
        found, dropped = await claimant.records(len(asked))
        assert (sorted(each.path for each in found), dropped) == (sorted(asked), 0)
        one = pod.spec("1")
        claimant.watch(Watch(), one)
        await until(lambda: pod._agent.watch == Watch())
        assert not mesh.process.watches.logged(identity().key, access_logs.EnvoyLogs(unread=1))


@pytest.mark.usefixtures("relays")
async def test_a_traced_request_is_the_span_that_the_laptop_gets(mesh: Control, claimant: Claimant) -> None:
    async with watched(mesh, claimant, OWN) as (pod, laptop), Client(pod) as client:
        claimant.claim(replace(pod.spec("1"), trace=True))
        async with asyncio.timeout(5):
            while b"traceparent" not in b"".join(laptop.heard):
                await client.ask("/")
        found: list[AccessRecord] = []
        while not found or found[-1].span_id is None:
            found += (await claimant.records(1))[0]
        sent = re.search(rb"traceparent: 00-(\w{32})-(\w{16})-01\r\n", laptop.heard[-1])
        assert sent is not None
        last = found[-1]
        assert (str(last.trace_id).encode(), str(last.span_id).encode()) == sent.groups()
        assert (last.parent_span_id, last.sampled) == (None, True)


@asynccontextmanager
async def logs(mesh: Control) -> AsyncIterator[Any]:
    """A stream of logs, with the certificate of b-1."""
    async with channel(mesh, identity()) as line:
        yield als_pb2_grpc.AccessLogServiceStub(line).StreamAccessLogs(wait_for_ready=True)


def message(count: int = 1, name: str = "", size: int = 0) -> als_pb2.StreamAccessLogsMessage:
    made = als_pb2.StreamAccessLogsMessage()
    for _ in range(count):
        entry = made.http_logs.log_entry.add()
        entry.common_properties.downstream_local_address.socket_address.port_value = 8080
        entry.common_properties.custom_tags[names.INTERCEPT] = name
        entry.request.path = "/" + "x" * size
    return made


async def test_a_stream_of_a_pod_that_nobody_watches_is_ended(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with agent_of(mesh), logs(mesh) as stream:
        await stream
        assert await stream.code() == grpc.StatusCode.OK


async def test_a_key_has_few_streams_of_logs(mesh: Control, claimant: Claimant) -> None:
    """They say nothing."""
    claimant.claim()
    async with agent_of(mesh) as one, AsyncExitStack() as undo:
        claimant.watch(OWN)
        await until(lambda: one.watch == OWN)
        made = [await undo.enter_async_context(logs(mesh)) for _ in range(service._LOGS_OF_KEY + 3)]
        await until(lambda: sum(each.done() for each in made) == 3)
        assert {await each.code() for each in made if each.done()} == {grpc.StatusCode.ABORTED}


@pytest.fixture
def _little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processing_time, "SHARE_OF_POD", 1e-5)


@pytest.mark.usefixtures("_little_time")
async def test_who_takes_too_much_of_the_time_waits_and_others_are_served(
    mesh: Control, claimant: Claimant, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimant.claim()
    async with agent_of(mesh) as one, AsyncExitStack() as undo:
        claimant.watch(ALL)
        await until(lambda: one.watch == ALL)
        stream = await undo.enter_async_context(logs(mesh))
        await stream.write(message(900))
        found, dropped = await claimant.records(900)
        assert len(found) + dropped == 900
        read: list[str] = []
        monkeypatch.setattr(mesh.process.watches, "logged", lambda key, _: read.append(key))
        await stream.write(message())
        await one.say(AccessRecords((SEEN,), 2))
        assert await claimant.records(3) == ([], 3), "of these there is the number"
        states: list[FromAgent] = []
        monkeypatch.setattr(mesh.core, "agent_reported", lambda *message: states.append(message[-1]))
        await one.say(State(redirected=(PORT,)))
        await until(lambda: [each.redirected for each in states if isinstance(each, State)] == [(PORT,)])
        assert read == []


async def test_a_stream_without_logs_is_ended(
    mesh: Control, claimant: Claimant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_LOG_SECONDS", 0.05)
    claimant.claim()
    async with agent_of(mesh) as one:
        claimant.watch(OWN)
        await until(lambda: one.watch == OWN)
        async with logs(mesh) as stream:
            await stream
            assert await stream.code() == grpc.StatusCode.OK


async def test_nobody_logs_with_a_key_that_no_session_vouches_for(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with channel(mesh, identity("unknown")) as line:
        stream = als_pb2_grpc.AccessLogServiceStub(line).StreamAccessLogs(wait_for_ready=True)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_hostile_logs_are_counted_and_the_next_one_is_read(mesh: Control, claimant: Claimant) -> None:
    one_id = b"b".hex().ljust(32, "0")
    claimant.claim()
    async with agent_of(mesh) as one:
        claimant.watch(OWN)
        await until(lambda: one.watch == OWN)
        async with channel(mesh, identity()) as line:
            method = f"/{service._ALS}/StreamAccessLogs"
            stream = line.stream_unary(method)(wait_for_ready=True)
            await stream.write(b"\xff\xff")
            await stream.write(message(1, one_id, 200_000).SerializeToString())
            found, dropped = await claimant.records(2)
            assert ([len(each.path) for each in found], dropped) == ([512], 1)
            await stream.write(message(2000, one_id).SerializeToString())
            found, dropped = await claimant.records(2000)
            assert len(found) + dropped == 2000
            assert 490 <= len(found) <= 600
            await stream.write(b"x" * (service.MAX_RECEIVED + 1))
            with pytest.raises(grpc.aio.AioRpcError):
                await stream


SEEN = AccessRecord(1, IPv4Address("10.244.1.1"), 8080, "HTTP/1.1", "original", 250, "GET", "b", "/a", 200)


async def test_what_an_agent_saw_is_told_too(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with agent_of(mesh) as one:
        claimant.watch(ALL)
        await until(lambda: one.watch == ALL)
        await one.say(AccessRecords((SEEN,), 2))
        assert await claimant.records(3) == ([SEEN], 2)


async def test_a_session_that_is_gone_watches_no_more(
    mesh: Control, claimant: Claimant, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "RENEW_SECONDS", 0.05)
    claimant.claim()
    async with agent_of(mesh) as one:
        claimant.watch(OWN)
        await until(lambda: one.watch == OWN)
        manager.dismiss_all()
        await until(lambda: one.watch == Watch())
