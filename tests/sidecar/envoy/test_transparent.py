"""What the app sees of requests that nobody claims, byte for byte, and what the client sees of its answers."""

import asyncio
import re
from typing import Any

import pytest

from meshdev.intercept.match import HeaderMatch, Match
from tests.sidecar.pod import End, Pod, pod

pytestmark = pytest.mark.usefixtures("traced")

MINE = Match(headers=(HeaderMatch("a", "exact", "1"),))


def request(*lines: str, body: str = "") -> bytes:
    return ("\r\n".join((*lines, "", "")) + body).encode("latin-1")


UNCHANGED = {
    "case": request("GET /x?y=1 HTTP/1.1", "hOsT: b:80", "X-Foo: 1", "x-bAR: 2", "User-Agent: z"),
    "duplicates": request("GET / HTTP/1.1", "Host: b", "X-Multi: 1", "Other: o", "X-Multi: 2", "X-Multi: 1"),
    "cookies": request("GET / HTTP/1.1", "Host: b", "Cookie: a=1", "Cookie: b=2"),
    "empty": request("GET / HTTP/1.1", "Host: b", "X-Empty: ", "X_Underscore: 1", "X-Latin: \xe9"),
    "no proto": request("GET / HTTP/1.1", "Host: b", "X-First: 1", "X-Last: 1"),
    "proto": request("GET / HTTP/1.1", "Host: b", "X-First: 1", "X-Forwarded-Proto: https", "X-Last: 1"),
    "proto, odd": request("GET / HTTP/1.1", "Host: b", "X-FORWARDED-proto: gopher", "X-Last: 1"),
    "forwarded": request(
        *("GET / HTTP/1.1", "Host: b", "X-Forwarded-For: 10.0.0.5", "X-Forwarded-Host: h", "X-Real-IP: 10.0.0.5"),
        *("Forwarded: for=1.2.3.4", "Via: 1.1 me", "X-Request-ID: 7", "Server: s", "Date: d", "Traceparent: 00-1"),
    ),
    "of Envoy": request(
        *("GET / HTTP/1.1", "Host: b", "x-envoy-internal: true", "x-envoy-max-retries: 3", "x-envoy-retry-on: 5xx"),
        *("x-envoy-upstream-rq-timeout-ms: 1",),
    ),
    "path": request("GET /a//b/../c/./%2f%2E%zz;p=1?q=/../%20&r HTTP/1.1", "Host: b"),
    "methods": request("DELETE /x HTTP/1.1", "Host: b"),
    "head": request("HEAD / HTTP/1.1", "Host: b", "Accept: */*"),
    "body": request("PUT /x HTTP/1.1", "Host: b", "Content-Length: 3", "Content-Type: T/X", body="abc"),
    "own method": request("PURGE /x HTTP/1.1", "Host: b", "Content-Length: 0"),
    "long": request("GET / HTTP/1.1", "Host: b", *(f"X-{number}: {'v' * 4000}" for number in range(300))),
}


#: In place of what its client sent, where its claim is traced.
TRACEPARENT = re.compile(rb"(?i)traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-01\r\n")


async def test_claimed_requests_arrive_at_the_laptop_as_they_were_sent(*, traced: bool) -> None:
    async with pod() as app:
        await in_front_of(app)
        for name, sent in UNCHANGED.items():
            app.laptop.heard.clear()
            line, host, rest = sent.split(b"\r\n", 2)
            claimed = b"\r\n".join((line, host, b"A: 1", rest))
            answer = await app.ask(claimed)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 6\r\n\r\n"), name
            (heard,) = app.laptop.heard
            if traced:
                claimed = claimed.replace(b"Traceparent: 00-1\r\n", b"")
                heard, count = TRACEPARENT.subn(b"", heard)
                assert count == 1, name
            assert heard == claimed.removesuffix(b"abc"), name


async def in_front_of(app: Pod) -> None:
    app.claim(MINE)
    await app.serve()


async def test_requests_arrive_as_they_were_sent() -> None:
    async with pod() as app:
        await in_front_of(app)
        for name, sent in UNCHANGED.items():
            app.original.heard.clear()
            answer = await app.ask(sent)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 8\r\n\r\n"), name
            assert app.original.heard == [sent.removesuffix(b"abc")], name


#: docs/intercepts.md lists these differences.
CHANGED = {
    "version and Host of HTTP/1.0": (
        request("GET / HTTP/1.0", "X-A: 1"),
        request("GET / HTTP/1.1", "host: localhost", "X-A: 1"),
    ),
    "Host of HTTP/1.0": (
        request("GET / HTTP/1.0", "X-A: 1", "Host: b"),
        request("GET / HTTP/1.1", "Host: b", "X-A: 1"),
    ),
    "position of Host": (
        request("GET / HTTP/1.1", "X-A: 1", "Host: b"),
        request("GET / HTTP/1.1", "Host: b", "X-A: 1"),
    ),
    "case of later duplicates": (
        request("GET / HTTP/1.1", "Host: b", "X-A: 1", "x-a: 2"),
        request("GET / HTTP/1.1", "Host: b", "X-A: 1", "X-A: 2"),
    ),
    "lists that HTTP joins": (
        request("GET / HTTP/1.1", "Host: b", "Accept: x", "X-A: 1", "accept: y"),
        request("GET / HTTP/1.1", "Host: b", "Accept: x,y", "X-A: 1"),
    ),
    "hop by hop": (
        request("GET / HTTP/1.1", "Host: b", "Connection: keep-alive, X-Hop", "X-Hop: 1", "Keep-Alive: 5", "X-A: 1"),
        request("GET / HTTP/1.1", "Host: b", "X-A: 1"),
    ),
    "an offer of h2c": (
        request(
            "GET / HTTP/1.1", "Host: b", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: A"
        ),
        request("GET / HTTP/1.1", "Host: b"),
    ),
    "an offer of TLS": (
        request("GET / HTTP/1.1", "Host: b", "Connection: Upgrade", "Upgrade: TLS/1.2", "X-A: 1"),
        request("GET / HTTP/1.1", "Host: b", "X-A: 1"),
    ),
    "an offer of something": (
        request("GET / HTTP/1.1", "Host: b", "Connection: Upgrade", "Upgrade: sofa/1", "X-A: 1"),
        request("GET / HTTP/1.1", "Host: b", "X-A: 1"),
    ),
    "absolute target": (request("GET http://c/x?y HTTP/1.1", "Host: b"), request("GET /x?y HTTP/1.1", "Host: c")),
    "no length of no body": (
        request("POST / HTTP/1.1", "Host: b"),
        request("POST / HTTP/1.1", "Host: b", "content-length: 0"),
    ),
}


async def test_the_differences_there_are() -> None:
    async with pod() as app:
        await in_front_of(app)
        for name, (sent, arrived) in CHANGED.items():
            app.original.heard.clear()
            await app.ask(sent)
            assert app.original.heard == [arrived], name


async def answering(answer: bytes) -> End:
    async def speak(end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end.heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        if b"Content-Length" in answer:
            await reader.read()

    return End("original", speak)


ANSWERS = {
    "case, duplicates and phrase": b"HTTP/1.1 299 Very Fine\r\nsErVer: s\r\nDate: d\r\nSet-Cookie: a\r\nX-A: 1\r\n"
    b"Set-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
    "an error": b"HTTP/1.1 503 Down\r\nDate: d\r\nRetry-After: 5\r\nX-Envoy-Overloaded: no\r\n"
    b"Content-Length: 3\r\n\r\nbad",
    "nothing": b"HTTP/1.1 204 No Content\r\nDate: d\r\nX-A: 1\r\n\r\n",
    "unchanged": b"HTTP/1.1 304 Not Modified\r\nDate: d\r\nETag: x\r\n\r\n",
    "its names for us": b"HTTP/1.1 200 OK\r\nDate: d\r\nVia: 1.1 v\r\n"
    b"X-Forwarded-Proto: x\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers_arrive_as_they_were_given(name: str) -> None:
    async with pod(await answering(ANSWERS[name])) as app:
        await in_front_of(app)
        assert await app.ask(request("GET / HTTP/1.1", "Host: b")) == ANSWERS[name]


async def test_an_answer_without_date_gets_one() -> None:
    async with pod(await answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as app:
        await in_front_of(app)
        answer = await app.ask(request("GET / HTTP/1.1", "Host: b"))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\ndate: ")
        assert answer.count(b"\r\n") == 4


async def test_an_old_client_gets_an_old_answer() -> None:
    async with pod(await answering(b"HTTP/1.0 200 Fine\r\nDate: d\r\nX-A: 1\r\n\r\nto the end")) as app:
        await in_front_of(app)
        reader, writer = await app.connect()
        writer.write(request("GET / HTTP/1.0"))
        assert await reader.read() == b"HTTP/1.0 200 Fine\r\nDate: d\r\nX-A: 1\r\nconnection: close\r\n\r\nto the end"
        writer.close()


async def test_an_answer_comes_while_it_is_made() -> None:
    """Server-sent events: the first is there before the second is."""
    seen = asyncio.Event()

    async def speak(_: End, reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"9\r\ndata: 1\n\n\r\n")
        await seen.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    async with pod(End("original", speak)) as app:
        await in_front_of(app)
        reader, writer = await app.connect()
        writer.write(request("GET / HTTP/1.1", "Host: b"))
        await reader.readuntil(b"data: 1\n\n")
        seen.set()
        await reader.readuntil(b"data: 2\n\n\r\n0\r\n\r\n")
        writer.close()


async def test_the_app_decides_whether_to_continue() -> None:
    decided = asyncio.Event()

    async def speak(end: End, reader: Any, writer: Any) -> None:
        end.heard.append(await reader.readuntil(b"\r\n\r\n"))
        await decided.wait()
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        end.heard.append(await reader.readexactly(3))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with pod(End("original", speak)) as app:
        await in_front_of(app)
        head = request("PUT / HTTP/1.1", "Host: b", "Content-Length: 3", "Expect: 100-continue")
        reader, writer = await app.connect()
        writer.write(head)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(1)
        decided.set()
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert app.original.heard == [head, b"abc"]
        writer.close()


async def test_chunks_and_trailers_both_ways() -> None:
    async def speak(end: End, reader: Any, writer: Any) -> None:
        end.heard.append(await reader.readuntil(b"\r\n\r\n"))
        end.heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nDate: d\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")

    async with pod(End("original", speak)) as app:
        await in_front_of(app)
        reader, writer = await app.connect()
        writer.write(request("PUT / HTTP/1.1", "Host: b", "Transfer-Encoding: chunked"))
        writer.write(b"3\r\nabc\r\n0\r\nX-Md5: 2\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head == b"HTTP/1.1 200 OK\r\nDate: d\r\nTransfer-Encoding: chunked\r\n\r\n"
        # A difference: names of trailers are told in lower case.
        assert await reader.readuntil(b"\r\n\r\n") == b"2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"
        assert app.original.heard[1] == b"3\r\nabc\r\n0\r\nx-md5: 2\r\n\r\n"
        writer.close()
