"""A real Envoy gets its key and certificates from the agent, and shows them to a server of TLS."""

import asyncio
import dataclasses
import json
import socket
import ssl
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from meshdev.errors import ClusterError
from meshdev.sidecar.agent.secret_discovery import Secrets, SecretServer
from meshdev.sidecar.envoy import tls
from meshdev.sidecar.envoy.http import typed
from tests.sidecar.certificates import Certificates
from tests.sidecar.real_envoy import binary
from tests.waiting import until

NAME = "20001.relay.meshdev"


class Peer:
    """A server of TLS that says everything again, and knows who came."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.certificates: list[bytes] = []
        self.names: list[str | None] = []
        self.port = 0
        self._context = context
        context.sni_callback = lambda _socket, name, _context: self.names.append(name)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Peer"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.certificates.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()


def config(folder: Path, peer: int) -> dict[str, Any]:
    """What comes to a unix socket goes to the peer."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": peer}}
    endpoint = {"endpoint": {"address": address, "hostname": NAME}}
    proxy = typed("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", stat_prefix="x", cluster="peer")
    return {
        "node": {"id": "x", "cluster": "meshdev"},
        "static_resources": {
            "clusters": [
                tls.secrets_cluster(str(folder / "secrets")),
                {
                    "name": "peer",
                    "type": "STATIC",
                    "load_assignment": {"cluster_name": "peer", "endpoints": [{"lb_endpoints": [endpoint]}]},
                    "transport_socket": tls.to_relay(),
                },
            ],
            "listeners": [
                {
                    "name": "in",
                    "address": {"pipe": {"path": str(folder / "in")}},
                    "filter_chains": [
                        {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}
                    ],
                }
            ],
        },
    }


class Sidecar:
    """The agent's server, an Envoy, and a peer for it."""

    def __init__(self, folder: Path, server: SecretServer, peer: Peer) -> None:
        self.server = server
        self.peer = peer
        self._folder = folder

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Through Envoy, once it listens."""
        await until(self.listens)
        return await asyncio.open_unix_connection(str(self._folder / "in"))

    def listens(self) -> bool:
        """Whether Envoy takes connections."""
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(str(self._folder / "in")) == 0

    async def shown(self) -> bytes:
        """The certificate that is shown on a new connection."""
        reader, writer = await self.connect()
        await echoed(reader, writer)
        writer.close()
        return self.peer.certificates[-1]

    async def until_shown(self, secrets: Secrets) -> None:
        """Ask until those are shown: Envoy takes a moment, and has none after some that it refused."""
        async with asyncio.timeout(10):
            while True:
                with suppress(OSError, asyncio.IncompleteReadError):
                    if await self.shown() == secrets.certificate:
                        return

    @asynccontextmanager
    async def envoy(self) -> AsyncIterator[subprocess.Popen[bytes]]:
        process = _start(config(self._folder, self.peer.port))
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            (self._folder / "in").unlink(missing_ok=True)


def _start(config: dict[str, Any]) -> subprocess.Popen[bytes]:
    command = [binary(), "--config-yaml", json.dumps(config), "--concurrency", "1", "--disable-hot-restart"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


async def echoed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(10):
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@asynccontextmanager
async def sidecar(folder: Path, certificates: Certificates) -> AsyncIterator[Sidecar]:
    server = SecretServer()
    async with server.serving(folder / "secrets"), Peer(certificates.relay()).serving() as peer:
        yield Sidecar(folder, server, peer)


async def test_envoy_waits_for_its_secrets_and_has_new_ones_at_once(tmp_path: Path, certificates: Certificates) -> None:
    first, second = certificates.secrets(), certificates.secrets()
    async with sidecar(tmp_path, certificates) as it, it.envoy():
        await until(lambda: it.server.subscribed >= {tls.IDENTITY, tls.AUTHORITY})
        assert not it.listens()
        it.server.set(first)
        kept = await it.connect()
        await echoed(*kept)
        assert (set(it.peer.certificates), set(it.peer.names)) == ({first.certificate}, {NAME})
        it.server.set(second)
        await it.until_shown(second)
        await echoed(*kept)
        kept[1].close()


async def test_another_envoy_gets_them_too(tmp_path: Path, certificates: Certificates) -> None:
    secrets = certificates.secrets()
    async with sidecar(tmp_path, certificates) as it:
        it.server.set(secrets)
        for _ in range(2):
            async with it.envoy():
                assert await it.shown() == secrets.certificate
        await until(lambda: not it.server.subscribed)


async def test_what_envoy_refuses_is_logged_without_it(
    tmp_path: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    bad = dataclasses.replace(certificates.secrets(), private_key=b"-----BEGIN PRIVATE KEY-----\nabc\n")
    async with sidecar(tmp_path, certificates) as it, it.envoy():
        it.server.set(bad)
        await until(lambda: "Envoy refused its key and certificates" in caplog.text)
        assert "PRIVATE" not in caplog.text
        good = certificates.secrets()
        it.server.set(good)
        await it.until_shown(good)


async def test_the_socket_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    async with SecretServer().serving(path):
        assert stat.filemode(path.stat().st_mode) == "srw-------"


async def test_where_it_cannot_listen() -> None:
    with pytest.raises(ClusterError, match="secrets cannot be served on /proc/secrets"):
        async with SecretServer().serving(Path("/proc/secrets")):
            pass


def test_the_key_is_not_shown() -> None:
    assert "PRIVATE" not in repr(Secrets(b"PRIVATE", b"", b""))
