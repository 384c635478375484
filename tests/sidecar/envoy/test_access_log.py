"""What a real Envoy tells of requests and connections while somebody watches, and that it tells nothing otherwise."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.sidecar.envoy import access_log, names, noted
from meshdev.sidecar.envoy.noted import NotedHeaders
from meshdev.wire.agent import Probe
from tests.sidecar.envoy.test_protocols import grpc_pod
from tests.sidecar.pod import FIRST, SECOND, End, Pod, pod
from tests.waiting import until

MINE = Match(headers=(HeaderMatch("a", "exact", "1"),))
OTHERS = Match(headers=(HeaderMatch("a", "exact", "2"),))
TRACE = "0af7651916cd43dd8448eb211c80319c"


async def watch(app: Pod, *, on: bool = True) -> None:
    assert await app.envoy.admin(access_log.target(watched=on), "POST")


async def requests(app: Pod, count: int) -> list[Any]:
    """All that were recorded, once they are so many."""
    found = app.envoy.ads.logs.requests
    await until(lambda: len(found) >= count)
    assert len(found) == count
    return found


@asynccontextmanager
async def watched() -> AsyncIterator[Pod]:
    """With a claim whose program listens, and one whose program does not."""
    async with pod() as app:
        app.claim(MINE)
        app.claim(OTHERS, name=SECOND, up=False)
        await app.serve()
        await watch(app)
        yield app


def ends(entry: Any) -> tuple[str, str, str]:
    """Cluster, intercept, and the answer that is ours."""
    common = entry.common_properties
    return (
        common.upstream_cluster.partition("_")[0],
        common.custom_tags.get(names.INTERCEPT, ""),
        entry.response.response_headers.get("meshdev-answer", ""),
    )


async def test_nothing_is_told_before_and_after() -> None:
    async with pod() as app:
        app.claim(MINE)
        await app.serve()
        await app.get("/before", a="1")
        for turn in range(3):
            await watch(app)
            await app.get(f"/{turn}", a="1")
            await requests(app, turn + 1)
            await watch(app, on=False)
            await app.get("/between", a="1")
        assert [entry.request.path for entry in app.envoy.ads.logs.requests] == ["/0", "/1", "/2"]
        assert app.envoy.ads.logs.streams == 1


async def test_what_it_tells_of_a_claimed_request() -> None:
    async with watched() as app:
        trace = f"00-{TRACE}-b7ad6b7169203331-01"
        lines = f"Host: b:80\r\nA: 1\r\nX-Forwarded-For: 9.9.9.9\r\nTraceparent: {trace}\r\nCookie: secret\r\n"
        await app.ask(f"POST /x?y=1 HTTP/1.1\r\n{lines}Content-Length: 3\r\n\r\nabc".encode())
        (entry,) = await requests(app, 1)
        common = entry.common_properties
        assert (entry.request.authority, entry.request.path) == ("b:80", "/x?y=1")
        assert entry.protocol_version == entry.HTTP11
        assert dict(entry.request.request_headers) == {":method": "POST", "traceparent": trace}, "no other"
        assert (entry.request.request_body_bytes, entry.response.response_body_bytes) == (3, len("laptop"))
        assert (entry.response.response_code.value, entry.response.response_code_details) == (200, "via_upstream")
        client, local = common.downstream_remote_address.socket_address, common.downstream_local_address.socket_address
        assert (client.address, client.port_value) == app.client, "not what it sends as X-Forwarded-For"
        assert local.port_value == app.port.number
        assert ends(entry) == ("laptop", FIRST, "")
        assert common.upstream_request_attempt_count == 1
        assert common.start_time.seconds > 0
        assert 0 < common.duration.ToMicroseconds() < 10e6


async def test_bytes_that_are_no_text_spoil_no_message() -> None:
    """Protobuf refuses a whole message for one of them."""
    async with watched() as app:
        for lines in (b"Host: \xff", b"Host: b\r\nTraceparent: \xff\xfe", b"Host: b\r\nContent-Type: \xc3\x28"):
            await app.ask(b"GET /a\xff HTTP/1.1\r\n%s\r\n\r\n" % lines)
            await app.ask(b"G\xff / HTTP/1.1\r\n%s\r\n\r\n" % lines)
            await app.ask(b"GET / HTTP/1.1\r\n%s\r\nA: 1\r\n\r\n" % lines)
        await requests(app, 9)


async def test_where_requests_went() -> None:
    async with watched() as app:
        for number in ("3", "2", "1"):
            await app.get(f"/{number}", a=number)
        await app.laptop.stop()
        await app.get("/fell-back", a="1")
        await app.original.stop()
        await app.ask(b"GET /nobody HTTP/1.1\r\nHost: b\r\n\r\n")
        await app.ask(b"GET / HTTP/1.1\r\n\r\n")
        found = await requests(app, 6)
        assert [ends(entry) for entry in found] == [
            ("original", "", ""),
            ("original", SECOND, ""),
            ("laptop", FIRST, ""),
            ("fallback", FIRST, ""),
            ("original", "", "not-reached"),
            ("", "", "invalid-request"),
        ]
        assert [entry.common_properties.upstream_request_attempt_count for entry in found] == [1, 1, 1, 3, 2, 0]
        assert found[4].common_properties.response_flags.upstream_connection_failure


async def read_on(end: End, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        end.heard.append(data)


async def test_a_client_that_does_not_wait_for_the_answer() -> None:
    async with pod(laptop=End("laptop", read_on)) as app:
        app.claim(MINE)
        await app.serve()
        await watch(app)
        _, writer = await app.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: b\r\nA: 1\r\n\r\n")
        await until(lambda: app.laptop.heard)
        writer.close()
        (entry,) = await requests(app, 1)
        assert ends(entry) == ("laptop", FIRST, "")
        assert entry.response.response_code.value == 0
        assert entry.common_properties.response_flags.downstream_connection_termination


async def test_whose_fault_it_is_that_a_laptop_is_not_reached() -> None:
    async with pod() as app:
        app.claim(MINE, fallback=False)
        await app.serve()
        await watch(app)
        app.relays.refuses.add(app.laptop.port)
        await app.ask(b"GET / HTTP/1.1\r\nHost: b\r\nA: 1\r\n\r\n")
        (entry,) = await requests(app, 1)
        assert ends(entry) == ("laptop", FIRST, "not-reached")
        assert entry.common_properties.upstream_transport_failure_reason


async def test_calls_of_grpc() -> None:
    async with grpc_pod() as (app, channel):
        await watch(app)
        await channel.unary_unary("/echo/Unary")(b"hello", metadata=(("a", "1"),))
        await channel.unary_unary("/echo/Unary")(b"hello")
        found = await requests(app, 2)
        assert [ends(entry)[0] for entry in found] == ["laptop", "original"]
        assert [entry.request.request_headers["content-type"] for entry in found] == ["application/grpc"] * 2
        assert {entry.protocol_version for entry in found} == {found[0].HTTP2}


async def test_what_claims_ask_for_of_what_they_did_not_take() -> None:
    """Nothing else of its headers, nothing of what was claimed, and no credential."""
    async with pod() as app:
        wanted = ("a", "b", "c", "authorization", "x-forwarded-proto", "x-envoy-max-retries")
        app.claim(Match(headers=tuple(HeaderMatch(name, "exact", "1") for name in wanted)))
        app.claim(MINE, name=SECOND)
        app.probes = (Probe(app.port.number, "/healthz", "kube-probe/"),)
        await app.serve()
        await watch(app)
        sent = {"a": "2", "b": "", "d": "4", "authorization": "Basic x", "x-envoy-max-retries": "3"}
        await app.get("/nobody's", **sent)
        await app.get("/claimed", a="1", c="3")
        await app.get("/healthz", **{"user-agent": "kube-probe/1.35"})
        other, claimed, probe = [noted.read(entry.common_properties.metadata) for entry in await requests(app, 3)]
        assert other.values == {"a": "2", "x-envoy-max-retries": "3"}
        assert other.missing == {"c", "x-forwarded-proto"}, "an empty one is neither"
        assert (claimed, probe) == (NotedHeaders(), NotedHeaders(probe=True))


async def test_headers_are_noted_while_somebody_watches_only() -> None:
    """It is a route of its own, so that nobody pays for it otherwise."""
    async with pod() as app:
        app.claim(MINE)
        await app.serve()
        for on in (True, False, True):
            await watch(app, on=on)
            await app.get("/x", a="2")
        found = [noted.read(entry.common_properties.metadata) for entry in await requests(app, 2)]
        assert found == [NotedHeaders({"a": "2"})] * 2


async def echo(end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(end.name.encode())
    while data := await reader.read(1000):
        end.heard.append(data)
        writer.write(data)


@pytest.mark.parametrize("up", [True, False], ids=["laptop", "original"])
async def test_connections_of_a_whole_port(up: bool) -> None:
    """A client's bytes are its own, also if they look like what the passthrough proxy sends first."""
    async with pod(End("original", echo), End("laptop", echo)) as app:
        app.claim(protocol="tcp", up=up)
        await app.serve()
        await watch(app)
        for own in (b"PROXY TCP4 1.1.1.1 2.2.2.2 3 4\r\n", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12)):
            reader, writer = await app.connect()
            end = app.laptop if up else app.original
            assert await reader.readexactly(len(end.name)) == end.name.encode()
            writer.write(own)
            assert await reader.readexactly(len(own)) == own
            writer.close()
        logs = app.envoy.ads.logs
        await until(lambda: len(logs.connections) == 2)
        for entry, size in zip(logs.connections, (32, 28), strict=True):
            common = entry.common_properties
            client = common.downstream_remote_address.socket_address
            assert (client.address, client.port_value) == app.client
            to = common.upstream_remote_address.socket_address
            assert (to.address, to.port_value) == ((str(app.manager), 15011) if up else ("127.0.0.1", app.port.number))
            assert common.upstream_cluster == names.flow(app.port)
            assert entry.connection_properties.received_bytes == size
            assert entry.connection_properties.sent_bytes == size + len(end.name)


async def test_what_bootstrap_sets_stays() -> None:
    async with watched() as app:
        text = await app.envoy.admin("/runtime")
        entries = json.loads(text[text.index("{") : text.rindex("}") + 1])["entries"]
        assert entries[access_log.WATCHED]["final_value"] == "100"
        assert entries["re2.max_program_size.error_level"]["final_value"] == "65536"
