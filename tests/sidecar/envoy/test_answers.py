"""Every answer that Envoy makes itself says so; no answer of an app does."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.sidecar.envoy import bootstrap
from meshdev.sidecar.envoy.answers import HEADER, REASONS
from tests.sidecar.envoy.test_protocols import grpc_pod
from tests.sidecar.pod import End, Pod, pod

MINE = Match(headers=(HeaderMatch("a", "exact", "1"),))
Speak = Callable[[End, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_GET = b"GET / HTTP/1.1\r\nHost: b\r\n"
_POST = b"POST / HTTP/1.1\r\nHost: b\r\n"

#: What Envoy refuses whatever it is told (facts of its HTTP/1 codec), its status and our word.
REFUSED = {
    "two lengths": (_POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, "invalid-request"),
    "no HTTP at all": (b"\x00\x01\x02\r\n\r\n", 400, "invalid-request"),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400, "invalid-request"),
    "raw bytes in the target": (b"GET /\xff HTTP/1.1\r\nHost: b\r\n\r\n", 400, "invalid-request"),
    "a blank in a name": (_GET + b"A b: 1\r\n\r\n", 400, "invalid-request"),
    "a NUL in a value": (_GET + b"A: \x00\r\n\r\n", 400, "invalid-request"),
    "chunks that are none": (_POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "invalid-request"),
    "another coding": (_POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "invalid-request"),
    "nine megabytes of headers": (_GET + b"A: " + b"x" * (9 << 20) + b"\r\n\r\n", 431, "too-large"),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n", 404, "no-route"),
    "a strange upgrade": (_GET + b"Connection: Upgrade\r\nUpgrade: websocketx\r\n\r\n", 403, "upgrade-refused"),
}


async def mesh(app: Pod) -> Pod:
    app.claim(MINE)
    await app.serve()
    return app


def is_ours(answer: bytes, status: int, word: str) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    marked = f"\r\n{HEADER}: {word}".encode() in head
    return head.startswith(b"HTTP/1.1 %d " % status) and marked and body.startswith(b"meshdev: ") and word in REASONS


async def test_what_envoy_refuses() -> None:
    async with pod() as original:
        app = await mesh(original)
        for name, (request, status, word) in REFUSED.items():
            answer = await app.ask(request)
            assert is_ours(answer, status, word), (name, answer)
        assert app.original.heard == []


async def lose(_end: End, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def speak_ssh(_end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"SSH-2.0-x\r\n\r\n")
    await reader.read()


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    ("speak", "status", "word"), [(lose, 503, "connection-lost"), (speak_ssh, 502, "invalid-answer")]
)
async def test_an_app_that_does_not_answer(method: bytes, speak: Speak, status: int, word: str) -> None:
    async with pod(End("original", speak)) as made:
        app = await mesh(made)
        answer = await app.ask(method + b" / HTTP/1.1\r\nHost: b\r\n\r\n")
        if method == b"HEAD":
            assert answer.endswith(b"\r\n\r\n"), "no body"
            answer += b"meshdev: "
        assert is_ours(answer, status, word), answer


async def test_an_app_that_is_not_there_and_a_laptop_without_fallback() -> None:
    async with pod() as app:
        app.claim(MINE, fallback=False)
        await app.serve()
        await app.original.stop()
        await app.laptop.stop()
        for lines in (b"", b"A: 1\r\n"):
            answer = await app.ask(_GET + lines + b"\r\n")
            assert is_ours(answer, 503, "not-reached"), answer


@pytest.mark.parametrize(
    "status", [b"200 OK", b"204 No Content", b"400 Bad Request", b"404 Not Found", b"502 x", b"503 y"]
)
@pytest.mark.parametrize("lines", [b"", b"A: 1\r\n"], ids=["original", "laptop"])
async def test_what_an_app_answers_is_its_own(status: bytes, lines: bytes) -> None:
    body = b"" if status.startswith(b"204") else b"upstream connect error"
    framing = b"" if status.startswith(b"204") else b"Content-Length: %d\r\n" % len(body)

    async def answer(_end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + status + b"\r\nDate: then\r\n" + framing + b"\r\n" + body)
        await reader.read()

    async with pod(End("original", answer), End("laptop", answer)) as made:
        app = await mesh(made)
        said = await app.ask(_GET + lines + b"\r\n")
        assert said.startswith(b"HTTP/1.1 " + status + b"\r\n")
        assert HEADER.encode() not in said
        assert said.partition(b"\r\n\r\n")[2] == body


@pytest.mark.parametrize("action", ["stop_accepting_requests", "reject_incoming_connections"])
async def test_an_envoy_that_has_used_up_its_memory_sheds_and_lives(
    monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """First requests, with an answer that says so; at last connections."""
    monkeypatch.setattr(bootstrap, "_SHED", [each for each in bootstrap._SHED if each[0] == action])
    async with pod(heap=1 << 20) as made:
        app = await mesh(made)
        shed = False
        async with asyncio.timeout(10):
            while not shed:  # it looks every 0.25 s
                try:
                    answer = await app.ask(_GET + b"A: 1\r\n\r\n")
                except (ConnectionError, asyncio.IncompleteReadError):
                    shed = action == "reject_incoming_connections"
                else:
                    shed = is_ours(answer, 503, "overloaded")
                    assert shed or answer.startswith(b"HTTP/1.1 200 ")
        assert made.envoy.process.poll() is None


async def test_grpc_hears_it_in_its_own_words() -> None:
    async with grpc_pod() as (app, channel):
        await app.original.stop()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/echo/Unary")(b"hello")
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert (caught.value.details() or "").startswith("meshdev: the original: ")
        metadata = {**dict(caught.value.initial_metadata()), **dict(caught.value.trailing_metadata())}
        assert metadata[HEADER] in {"not-reached", "connection-lost"}


def test_every_word_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "intercepts.md").read_text()
    assert [word for word in REASONS if f"`{word}`" not in text] == []
