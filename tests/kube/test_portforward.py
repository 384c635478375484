"""Dialling against hand-made servers: both carriers, refusals, silence, cancellation, proxies."""

import asyncio
import base64
import contextlib
import json
import re
import select
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meshdev.errors import (
    CredentialError,
    ForbiddenError,
    MeshdevError,
    PortForwardError,
    ProtocolError,
    UnreachableError,
)
from meshdev.kube.client import KubeApi
from meshdev.kube.errors import NotFoundError
from meshdev.kube.kubeconfig import Options
from meshdev.kube.portforward import HANDLING, PortForward, SwallowedError, dial
from meshdev.wire.framing import CARRIER_KINDS, CarrierKind
from meshdev.wire.spdy import SpdyFraming, opening
from meshdev.wire.upgrade import accept_key
from tests.kube.conftest import write_kubeconfig
from tests.kube.proxies import Handler, http_proxy, listening, refusing_socks_proxy, reset, socks_proxy
from tests.wire.test_spdy import data_frame


@contextlib.asynccontextmanager
async def client(path: Path, port: int, **cluster: Any) -> AsyncIterator[KubeApi]:
    file = write_kubeconfig(path / "config", f"http://127.0.0.1:{port}", user={"token": "t"}, **cluster)
    async with await KubeApi.open(Options(kubeconfig=str(file), environment={})) as api:
        yield api


async def switched(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, early: bytes = b"") -> str:
    """Accept the upgrade; the request's head."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    key = re.search("Sec-WebSocket-Key: (.*)\r\n", head)
    if key:
        answer = (
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n"
            f"Sec-WebSocket-Accept: {accept_key(key.group(1).encode())}\r\n"
        )
    else:
        answer = "Upgrade: SPDY/3.1\r\nConnection: Upgrade\r\n"
    writer.write(f"HTTP/1.1 101 Switching Protocols\r\n{answer}\r\n".encode() + early)
    return head


def received(dialled: PortForward) -> bytes:
    """The tunnel bytes that come next."""
    buffer, got, end = memoryview(bytearray(65536)), b"", time.monotonic() + 5
    while not got:
        readable, _, _ = select.select([dialled.transport.fileno()], [], [], max(0, end - time.monotonic()))
        assert readable, "nothing came"
        size = dialled.transport.recv_into(buffer)
        assert size, "the connection ended"
        got += b"".join(map(bytes, dialled.framing.unwrap(buffer[:size])))
    return got


async def test_native_spdy(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        settings = bytes.fromhex("80030004 00000004 00000000")
        seen.append(await switched(reader, writer, settings[:5]))
        writer.write(settings[5:])
        seen.append(await reader.readexactly(len(opening(9000))))
        writer.write(data_frame(b"welcome"))
        await reader.read()

    async with listening(serve) as port, client(tmp_path, port) as api:
        dialled = await dial(api, "default", "m", 9000, "spdy", 5)
        assert await asyncio.to_thread(received, dialled) == b"welcome"
        dialled.transport.close()
    assert seen[0].startswith("POST /api/v1/namespaces/default/pods/m/portforward HTTP/1.1\r\n")
    assert "Authorization: Bearer t" in seen[0]
    assert seen[1] == opening(9000)
    assert (dialled.kind, type(dialled.framing)) == ("spdy", SpdyFraming)


async def test_spdy_inside_a_websocket(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await switched(reader, writer)
        first, size, *mask = await reader.readexactly(6)
        assert (first, size) == (0x82, 0x80 | len(opening(9000)))
        masked = await reader.readexactly(len(opening(9000)))
        assert bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked)) == opening(9000)
        frame = data_frame(b"welcome")
        writer.write(b"\x82" + bytes([len(frame)]) + frame)
        await reader.read()

    async with listening(serve) as port, client(tmp_path, port) as api:
        dialled = await dial(api, "default", "m", 9000, "websocket", 5)
        assert await asyncio.to_thread(received, dialled) == b"welcome"
        dialled.transport.close()
    assert dialled.kind == "websocket"


def answering(status: int, body: Any) -> Handler:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        text = body if isinstance(body, str) else json.dumps(body)
        writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
        await writer.drain()

    return serve


RBAC = {"message": 'pods "m" is forbidden: User "dev" cannot create resource "pods/portforward" in API group "" in ...'}


@pytest.mark.parametrize(
    ("carrier", "status", "body", "kind", "words"),
    [
        ("spdy", 403, RBAC, ForbiddenError, "you (dev) may not create pods/portforward in namespace default"),
        ("websocket", 403, RBAC, ForbiddenError, "you (dev) may not create pods/portforward in namespace default"),
        ("spdy", 404, {"message": 'pods "m" not found'}, NotFoundError, 'pods "m" not found'),
        ("spdy", 401, {"message": "Unauthorized"}, CredentialError, "Unauthorized"),
        ("spdy", 400, {"message": "Upgrade request required"}, PortForwardError, "over spdy was refused"),
        ("websocket", 502, "<h1>Bad Gateway</h1>", PortForwardError, "status 502: <h1>Bad Gateway"),
        ("spdy", 200, "", PortForwardError, "status 200: no reason given"),
        ("spdy", 500, {"message": "pod is not running"}, PortForwardError, "pod is not running"),
    ],
)
async def test_a_refusal(
    tmp_path: Path, carrier: CarrierKind, status: int, body: Any, kind: type[MeshdevError], words: str
) -> None:
    async with listening(answering(status, body)) as port, client(tmp_path, port) as api:
        with pytest.raises(kind) as caught:
            await dial(api, "default", "m", 9000, carrier, 5)
    assert words in caught.value.message


async def test_what_is_refused_hints_at_the_other_carrier(tmp_path: Path) -> None:
    async with listening(answering(400, "")) as port, client(tmp_path, port) as api:
        with pytest.raises(PortForwardError) as caught:
            await dial(api, "default", "m", 9000, "spdy", 5)
    assert caught.value.hint is not None
    assert caught.value.hint.endswith("--carrier websocket")


async def test_an_answer_that_is_no_http(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP\r\n\r\n")

    async with listening(serve) as port, client(tmp_path, port) as api:
        with pytest.raises(PortForwardError, match="not HTTP"):
            await dial(api, "default", "m", 9000, "spdy", 5)


async def test_data_before_the_opening(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await switched(reader, writer, data_frame(b"early"))
        await reader.read()

    async with listening(serve) as port, client(tmp_path, port) as api:
        with pytest.raises(ProtocolError, match="before"):
            await dial(api, "default", "m", 9000, "spdy", 5)


async def test_a_server_that_hangs_up(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with listening(serve) as port, client(tmp_path, port) as api:
        with pytest.raises(SwallowedError, match="instead of answering"):
            await dial(api, "default", "m", 9000, "spdy", 5)


async def silence(reader: asyncio.StreamReader, asked: asyncio.Event, ended: asyncio.Event) -> None:
    await reader.readuntil(b"\r\n\r\n")
    asked.set()
    with contextlib.suppress(ConnectionError):
        await reader.read()
    ended.set()


async def test_a_server_that_says_nothing(tmp_path: Path) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()
    async with listening(lambda reader, _: silence(reader, asked, ended)) as port, client(tmp_path, port) as api:
        with pytest.raises(SwallowedError, match="no answer within") as caught:
            await dial(api, "default", "m", 9000, "spdy", 0.2)
        await asyncio.wait_for(ended.wait(), 2)
    assert "--carrier websocket" in (caught.value.hint or "")


async def test_a_server_that_resets_the_upgrade(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reset(writer)

    async with listening(serve) as port, client(tmp_path, port) as api:
        with pytest.raises(SwallowedError, match="connection reset by peer"):
            await dial(api, "default", "m", 9000, "spdy", 5)


async def test_a_server_that_is_not_even_asked(tmp_path: Path) -> None:
    """Nothing answers TLS: no other carrier would help."""

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(serve) as port:
        file = write_kubeconfig(tmp_path / "config", f"https://127.0.0.1:{port}")
        async with await KubeApi.open(Options(kubeconfig=str(file), environment={})) as api:
            with pytest.raises(UnreachableError, match="in time"):
                await dial(api, "default", "m", 9000, "spdy", 0.2)


async def test_a_cancelled_dial_closes_its_connection_at_once(tmp_path: Path) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()
    async with listening(lambda reader, _: silence(reader, asked, ended)) as port, client(tmp_path, port) as api:
        task = asyncio.ensure_future(dial(api, "default", "m", 9000, "spdy", 30))
        await asyncio.wait_for(asked.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(ended.wait(), 2)


async def test_nobody_listens(tmp_path: Path) -> None:
    async with client(tmp_path, 1) as api:
        with pytest.raises(UnreachableError, match="connection refused"):
            await dial(api, "default", "m", 9000, "spdy", 5)


async def serve_both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A list of pods to a GET, a port-forward to a POST."""
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"GET"):
        text = json.dumps({"metadata": {"resourceVersion": "1"}, "items": []})
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
        return
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\n\r\n")
    await reader.readexactly(len(opening(9000)))
    writer.write(data_frame(b"through"))
    await reader.read()


async def test_through_an_http_proxy(tmp_path: Path) -> None:
    seen: list[str] = []
    async with (
        listening(serve_both) as port,
        listening(http_proxy(seen)) as proxy,
        client(tmp_path, port, **{"proxy-url": f"http://me:pass@127.0.0.1:{proxy}"}) as api,
    ):
        dialled = await dial(api, "default", "m", 9000, "spdy", 5)
        assert await asyncio.to_thread(received, dialled) == b"through"
        dialled.transport.close()
    assert seen[0].startswith(f"CONNECT 127.0.0.1:{port} ")
    assert base64.b64encode(b"me:pass").decode() in seen[0]


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_through_a_socks_proxy_requests_and_carriers(tmp_path: Path, scheme: str) -> None:
    seen: list[str] = []
    async with (
        listening(serve_both) as port,
        listening(socks_proxy(seen)) as proxy,
        client(tmp_path, port, **{"proxy-url": f"{scheme}://127.0.0.1:{proxy}"}) as api,
    ):
        assert (await api.get("/api/v1/namespaces/default/pods"))["items"] == []
        dialled = await dial(api, "default", "m", 9000, "spdy", 5)
        assert await asyncio.to_thread(received, dialled) == b"through"
        dialled.transport.close()
    assert seen == [f"127.0.0.1:{port}"] * 2


async def test_a_socks_proxy_that_refuses(tmp_path: Path) -> None:
    async with (
        listening(refusing_socks_proxy) as proxy,
        client(tmp_path, 9, **{"proxy-url": f"socks5://127.0.0.1:{proxy}"}) as api,
    ):
        for asking in (api.get("/api/v1/namespaces/default/pods"), dial(api, "a", "b", 1, "spdy", 5)):
            with pytest.raises(UnreachableError, match="not allowed by ruleset"):
                await asking


async def test_a_proxy_that_is_not_there(tmp_path: Path) -> None:
    async with client(tmp_path, 9, **{"proxy-url": "socks5://127.0.0.1:1"}) as api:
        for asking in (api.get("/api/v1/namespaces/default/pods"), dial(api, "a", "b", 1, "spdy", 5)):
            with pytest.raises(UnreachableError, match=r"through the proxy socks5://127\.0\.0\.1:1"):
                await asking


def test_every_kind_can_be_dialled() -> None:
    assert tuple(HANDLING) == CARRIER_KINDS
