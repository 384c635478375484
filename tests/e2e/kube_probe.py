"""meshdev.kube on a laptop, for tests: ``python -m tests.e2e.kube_probe KUBECONFIG WHAT …`` prints one line of JSON.

``{"ok": …}``, or ``{"error": {"kind", "code", "message", "hint"}}`` as the command line would tell it. KUBECONFIG ``-``
is the laptop's own.
"""

import asyncio
import contextlib
import hashlib
import json
import select
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, cast

import yaml

from meshdev.errors import MeshdevError
from meshdev.kube import manager
from meshdev.kube.client import KubeApi, pods_path
from meshdev.kube.kubeconfig import Options
from meshdev.kube.manifest import ManagerSpec
from meshdev.kube.portforward import PortForward, dial
from meshdev.kube.ranges import watch_addresses, watch_ranges
from meshdev.kube.watching import listed
from meshdev.wire.framing import CarrierKind
from tests.cluster.sample.pattern import pattern_sha256
from tests.kube.proxies import http_proxy, listening, socks_proxy

SINK, SOURCE, ECHO = 7001, 7002, 7003
_FRAME: Final = 65536
_SECONDS: Final = 60.0


class Pipe:
    """A dialled port as blocking send and receive, whatever comes meanwhile."""

    def __init__(self, dialled: PortForward) -> None:
        self._transport, self._framing = dialled.transport, dialled.framing
        self._room = bytearray(self._framing.headroom + _FRAME)
        self._buffer = memoryview(bytearray(1 << 18))
        self._poll = select.poll()
        self._poll.register(self._transport.fileno(), select.POLLIN)
        self.received = 0
        self.digest = hashlib.sha256()
        self.tail = b""

    def send(self, data: bytes) -> None:
        """All of it, a frame a piece; what arrives is taken in between."""
        for start in range(0, len(data), _FRAME):
            piece = data[start : start + _FRAME]
            self._send_frame(piece)

    def _send_frame(self, piece: bytes) -> None:
        head = self._framing.headroom
        self._room[head : head + len(piece)] = piece
        left = memoryview(self._framing.wrap(self._room, head, head + len(piece)))
        while left:
            try:
                left = left[self._transport.send(left) :]
            except BlockingIOError:
                self._take()
                time.sleep(0.0005)

    def receive(self, count: int) -> None:
        """Until *count* bytes have come altogether."""
        end = time.monotonic() + _SECONDS
        while self.received < count:
            assert time.monotonic() < end, f"{self.received} of {count} bytes came"
            self._poll.poll(1000)
            self._take()

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while size := self._transport.recv_into(self._buffer):
                for part in self._framing.unwrap(self._buffer[:size]):
                    self.received += len(part)
                    self.digest.update(part)
                    self.tail = (self.tail + bytes(part[-64:]))[-64:]

    def close(self) -> None:
        """Hang up."""
        self._transport.close()


async def _bulk(api: KubeApi) -> str:
    pods, _ = await listed(api, pods_path("default"), {"labelSelector": "app=bulk"}, lambda pod: pod)
    running = [pod for pod in pods.values() if not pod["metadata"].get("deletionTimestamp")]
    return str(running[0]["metadata"]["name"])


async def _pipe(api: KubeApi, carrier: str, port: int) -> Pipe:
    return Pipe(await dial(api, "default", await _bulk(api), port, cast("CarrierKind", carrier), 10))


async def carry(api: KubeApi, carrier: str, count: str) -> dict[str, Any]:
    """*count* bytes each way through one carrier, with their sums."""
    size = int(count)
    up = await _pipe(api, carrier, SINK)
    start = time.monotonic()
    up.send(struct.pack("!Q", size) + _pattern(size))
    up.receive(40)
    up_seconds = time.monotonic() - start
    up.close()
    down = await _pipe(api, carrier, SOURCE)
    start = time.monotonic()
    down.send(struct.pack("!Q", size))
    down.receive(size)
    down_seconds = time.monotonic() - start
    down.close()
    return {
        "up": up.tail[-32:] == pattern_sha256(size),
        "down": down.digest.digest() == pattern_sha256(size),
        "MB/s": [round(size / up_seconds / 1e6), round(size / down_seconds / 1e6)],
    }


def _pattern(size: int) -> bytes:
    from tests.cluster.sample.pattern import piece  # noqa: PLC0415 -- one function, next to its use

    parts, sent = [], 0
    while sent < size:
        parts.append(bytes(piece(sent, size - sent)))
        sent += len(parts[-1])
    return b"".join(parts)


async def reach(api: KubeApi, carrier: str, port: str) -> str:
    """What dialling *port* of the bulk pod and one byte lead to."""
    pipe = await _pipe(api, carrier, int(port))
    pipe.send(b"x")
    await asyncio.to_thread(pipe.receive, 1)
    pipe.close()
    return "answered"


async def absent(api: KubeApi, carrier: str) -> str:
    """Dial a pod that is not there."""
    await dial(api, "default", "no-such-pod", 1, cast("CarrierKind", carrier), 10)
    return "dialled"


async def pods(api: KubeApi, namespace: str) -> int:
    """How many there are."""
    return len((await listed(api, pods_path(namespace), {}, lambda _: None))[0])


async def through(api: KubeApi, scheme: str) -> list[str]:
    """A request and a carrier through a proxy of this laptop; where the proxy was led."""
    seen: list[str] = []
    kind = http_proxy if scheme == "http" else socks_proxy
    async with listening(kind(seen)) as port:
        file = _changed(api, {"proxy-url": f"{scheme}://127.0.0.1:{port}"})
        async with await KubeApi.open(Options(kubeconfig=str(file))) as proxied:
            await reach(proxied, "spdy", str(ECHO))
            await reach(proxied, "websocket", str(ECHO))
    return [line.split()[1] if scheme == "http" else line for line in seen]


def _changed(api: KubeApi, cluster: dict[str, Any]) -> Path:
    """The laptop's kubeconfig with another cluster entry."""
    config = yaml.safe_load((Path.home() / ".kube" / "config").read_text())
    config["clusters"][0]["cluster"] |= cluster
    file = Path.home() / f"proxied-{api.context}"
    file.write_text(yaml.safe_dump(config))
    file.chmod(0o600)
    return file


async def ensure(api: KubeApi, namespace: str, image: str, seconds: str = "60") -> dict[str, Any]:
    """Start a manager; what was told, and how long it took. What was created is undone if it fails."""
    told: list[str] = []
    created: list[manager.Created] = []
    start = time.monotonic()
    try:
        pod = await manager.ensure(
            api,
            ManagerSpec(namespace, image),
            progress=told.append,
            on_created=created.append,
            seconds=float(seconds),
        )
    except MeshdevError:
        for each in created:
            await manager.undo(api, each)
        raise
    return {"pod": pod.name, "protocol": pod.protocol, "told": told, "seconds": time.monotonic() - start}


async def uninstall(api: KubeApi, namespace: str) -> list[str]:
    """Remove the manager of a namespace."""
    return await manager.uninstall(api, namespace)


async def addresses(api: KubeApi, namespace: str) -> dict[str, list[str]]:
    """What may be seen of the cluster's addresses."""
    notes: list[str] = []
    async with contextlib.aclosing(watch_ranges(api, notes.append)) as found:
        ranges = await anext(found)
    async with contextlib.aclosing(watch_addresses(api, namespace, notes.append)) as changes:
        seen = await anext(changes)
    return {
        "services": sorted(map(str, ranges.services)),
        "pods": sorted(map(str, ranges.pods)),
        "seen": sorted(map(str, seen)),
        "notes": notes,
        "server": sorted(map(str, await api.addresses())),
    }


WHAT: Final[dict[str, Callable[..., Awaitable[Any]]]] = {
    function.__name__: function for function in (carry, reach, absent, pods, through, ensure, uninstall, addresses)
}


async def main(kubeconfig: str, what: str, *arguments: str) -> dict[str, Any]:
    """Run one of :data:`WHAT`."""
    name, _, impersonate = kubeconfig.partition("@")
    options = Options(kubeconfig=None if name == "-" else name, as_user=impersonate or None, request_timeout=5)
    try:
        async with await KubeApi.open(options) as api:
            return {"ok": await WHAT[what](api, *arguments)}
    except MeshdevError as error:
        return {"error": {"kind": type(error).__name__, **error.as_json()}}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
