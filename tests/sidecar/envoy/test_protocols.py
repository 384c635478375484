"""gRPC, WebSocket and large bodies through a real Envoy, to both ends."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import websockets
from websockets.asyncio.client import unix_connect
from websockets.asyncio.server import ServerConnection

from meshdev.intercept.match import HeaderMatch, Match
from tests.sidecar.pod import End, Pod, length, pod

pytestmark = pytest.mark.usefixtures("traced")

MINE = Match(headers=(HeaderMatch("a", "exact", "1"),))
ENDS = [((), "original"), ((("a", "1"),), "laptop")]
LARGE = 64 << 20
LARGE_METADATA = [("grpc.max_metadata_size", 4 << 20), ("grpc.absolute_max_metadata_size", 4 << 20)]


class GrpcEnd(End):
    """A gRPC server; ``/echo/Unary`` and ``/echo/Stream`` answer what comes, and the end's name as a trailer."""

    async def start(self) -> None:
        async def unary(message: bytes, context: Any) -> bytes:
            await self._talk(context)
            if message.startswith(b"trailer "):
                context.set_trailing_metadata((("name", self.name), ("big", "t" * int(message.split()[1]))))
            if message == b"fail":
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as you wish")
            return message

        async def stream(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            await self._talk(context)
            async for message in messages:
                yield message

        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Stream": grpc.stream_stream_rpc_method_handler(stream),
        }
        self._grpc = grpc.aio.server(options=LARGE_METADATA)
        self._grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", handlers),))
        self.port = self._grpc.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._grpc.start()

    async def _talk(self, context: Any) -> None:
        self.heard += [f"{key}: {value}".encode() for key, value in context.invocation_metadata()]
        await context.send_initial_metadata((("x-first", "1"),))
        context.set_trailing_metadata((("name", self.name), ("bytes-bin", b"\0\xff")))

    async def stop(self) -> None:
        await self._grpc.stop(0)


@asynccontextmanager
async def grpc_pod() -> AsyncIterator[tuple[Pod, Any]]:
    async with pod(GrpcEnd("original"), GrpcEnd("laptop")) as app:
        app.claim(MINE)
        await app.serve()
        # By itself the authority of a unix socket is the escaped path, which Envoy refuses.
        async with grpc.aio.insecure_channel(
            f"unix:{app.socket}", options=[*LARGE_METADATA, ("grpc.default_authority", "b")]
        ) as channel:
            yield app, channel


@pytest.mark.parametrize(("metadata", "end"), ENDS)
async def test_a_unary_call(metadata: tuple[tuple[str, str], ...], end: str) -> None:
    async with grpc_pod() as (_, channel):
        call = channel.unary_unary("/echo/Unary")(b"hello", metadata=metadata)
        assert await call == b"hello"
        assert dict(await call.initial_metadata())["x-first"] == "1"
        trailers = dict(await call.trailing_metadata())
        assert (trailers["name"], trailers["bytes-bin"]) == (end, b"\0\xff")
        failing = channel.unary_unary("/echo/Unary")(b"fail", metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError, match="as you wish") as caught:
            await failing
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert dict(caught.value.trailing_metadata())["name"] == end


@pytest.mark.parametrize(("metadata", "end"), ENDS)
async def test_a_stream(metadata: tuple[tuple[str, str], ...], end: str) -> None:
    async with grpc_pod() as (_, channel):
        call = channel.stream_stream("/echo/Stream")(metadata=metadata)
        for number in range(100):
            await call.write(b"%d" % number * 1000)
            assert await call.read() == b"%d" % number * 1000
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF
        assert dict(await call.trailing_metadata())["name"] == end


async def test_calls_of_one_connection_go_to_their_ends() -> None:
    async with grpc_pod() as (app, channel):
        unary = channel.unary_unary("/echo/Unary")
        for _ in range(10):
            for metadata, end in ENDS:
                call = unary(b"x", metadata=metadata)
                await call
                assert dict(await call.trailing_metadata())["name"] == end
        await app.laptop.stop()
        call = unary(b"x", metadata=(("a", "1"),))
        await call
        assert dict(await call.trailing_metadata())["name"] == "original"


async def refuse_streams(end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As a gRPC server does that is stopping (RFC 9113: SETTINGS 4, HEADERS 1, RST_STREAM 3 with REFUSED_STREAM 7)."""
    await reader.readexactly(24)  # the preface
    writer.write(b"\0\0\0\4\0\0\0\0\0")
    while True:
        head = await reader.readexactly(9)
        await reader.readexactly(int.from_bytes(head[:3], "big"))
        if head[3] == 1:
            end.heard.append(head)
            writer.write(b"\0\0\4\3\0" + head[5:] + b"\0\0\0\7")


async def test_a_call_that_the_laptop_refuses_without_looking_falls_back() -> None:
    async with grpc_pod() as (app, channel):
        await app.laptop.stop()
        refusing = End("laptop", refuse_streams)
        refusing.port = app.laptop.port
        await refusing.start()
        call = channel.unary_unary("/echo/Unary")(b"x", metadata=(("a", "1"),))
        await call
        assert dict(await call.trailing_metadata())["name"] == "original"
        assert len(refusing.heard) == 2, "it was tried twice"
        await refusing.stop()


async def test_nothing_is_added_to_a_call() -> None:
    async with grpc_pod() as (app, channel):
        await channel.unary_unary("/echo/Unary")(b"x", metadata=(("x-mine", "1"), ("x-mine", "2")))
        through = list(app.original.heard)
        app.original.heard.clear()
        options = [("grpc.default_authority", "b")]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{app.original.port}", options=options) as direct:
            await direct.unary_unary("/echo/Unary")(b"x", metadata=(("x-mine", "1"), ("x-mine", "2")))
        assert sorted(through) == sorted(app.original.heard)


async def test_metadata_as_large_as_apps_take_it() -> None:
    """A token of 70 KB, a trailer of 200 KB: each header of HTTP/2 up to 256 KiB."""
    async with grpc_pod() as (app, channel):
        unary = channel.unary_unary("/echo/Unary")
        for mine, end in ENDS:
            for size in (60_000, 70_000, 250_000):
                app.original.heard.clear()
                app.laptop.heard.clear()
                call = unary(b"x", metadata=(*mine, ("token", "t" * size), ("cookie", "c" * size)))
                await call
                trailers = dict(await call.trailing_metadata())
                assert trailers["name"] == end
                heard = app.laptop.heard if mine else app.original.heard
                assert b"token: " + b"t" * size in heard
                assert b"cookie: " + b"c" * size in heard
            call = unary(b"trailer 200000", metadata=mine)
            await call
            assert dict(await call.trailing_metadata())["big"] == "t" * 200_000


async def test_metadata_named_host_is_left_out_and_the_call_goes_on() -> None:
    """A difference: Envoy has one place for it and :authority."""
    async with grpc_pod() as (app, channel):
        await channel.unary_unary("/echo/Unary")(b"x", metadata=(("host", "zz"), ("b", "2")))
        assert b"b: 2" in app.original.heard
        assert not [line for line in app.original.heard if line.startswith(b"host")]


class WebSocketEnd(End):
    """A WebSocket server that answers each message with its name before it."""

    async def start(self) -> None:
        async def echo(connection: ServerConnection) -> None:
            async for message in connection:
                await connection.send(
                    self.name.encode() + b" " + (message.encode() if isinstance(message, str) else message)
                )

        self._websocket = await websockets.serve(echo, "127.0.0.1", self.port, max_size=None)
        self.port = next(iter(self._websocket.sockets)).getsockname()[1]

    async def stop(self) -> None:
        self._websocket.close()


@pytest.mark.parametrize(("headers", "end"), ENDS)
async def test_a_websocket(headers: tuple[tuple[str, str], ...], end: str) -> None:
    async with pod(WebSocketEnd("original"), WebSocketEnd("laptop")) as app:
        app.claim(MINE)
        await app.serve()
        async with unix_connect(app.socket, "ws://b/chat", additional_headers=headers, max_size=None) as socket:
            for size in (1, 1000, 5 << 20):
                await socket.send(b"x" * size)
                assert await socket.recv() == f"{end} ".encode() + b"x" * size


async def test_a_websocket_falls_back() -> None:
    async with pod(WebSocketEnd("original"), WebSocketEnd("laptop")) as app:
        app.claim(MINE)
        await app.serve()
        await app.laptop.stop()
        async with unix_connect(app.socket, "ws://b/", additional_headers={"a": "1"}) as socket:
            await socket.send("x")
            assert await socket.recv() == b"original x"


async def measured(end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The digest of the body that came, then a body as large."""
    head = await reader.readuntil(b"\r\n\r\n")
    digest, left = hashlib.sha256(), length(head)
    while left:
        piece = await reader.read(min(left, 1 << 20))
        digest.update(piece)
        left -= len(piece)
    writer.write(
        b"HTTP/1.1 200 OK\r\nX-Digest: %s\r\nContent-Length: %d\r\n\r\n" % (digest.hexdigest().encode(), LARGE)
    )
    for _ in range(LARGE >> 20):
        writer.write(end.name[:1].encode() * (1 << 20))
        await writer.drain()


@pytest.mark.parametrize(("headers", "end"), ENDS)
async def test_large_bodies_both_ways(headers: tuple[tuple[str, str], ...], end: str) -> None:
    async with pod(End("original", measured), End("laptop", measured)) as app:
        app.claim(MINE)
        await app.serve()
        reader, writer = await app.connect()
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        writer.write(f"PUT / HTTP/1.1\r\nHost: b\r\nContent-Length: {LARGE}\r\n{lines}\r\n".encode())
        digest = hashlib.sha256()
        for number in range(LARGE >> 20):
            piece = bytes([number % 256]) * (1 << 20)
            digest.update(piece)
            writer.write(piece)
            await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        assert f"X-Digest: {digest.hexdigest()}".encode() in head
        assert await reader.readexactly(LARGE) == end[:1].encode() * LARGE
        writer.close()
        assert app.envoy.rss() < 110


Speak = Callable[[End, asyncio.StreamReader, asyncio.StreamWriter], Any]


async def test_connect_becomes_a_tunnel() -> None:
    async def proxy(end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end.heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.write(await reader.readexactly(3))
        await writer.drain()

    async with pod(End("original", proxy)) as app:
        app.claim(MINE)
        await app.serve()
        reader, writer = await app.connect()
        writer.write(b"CONNECT c:443 HTTP/1.1\r\nHost: c:443\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.write(b"\0\1\2")
        assert await reader.readexactly(3) == b"\0\1\2"
        assert app.original.heard == [b"CONNECT c:443 HTTP/1.1\r\nHost: c:443\r\n\r\n"]
        writer.close()
