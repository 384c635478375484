"""A pod on loopback: the app and a laptop's program as real servers, a real Envoy between them and the test."""

import asyncio
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, ClassVar

from meshdev.intercept.match import Match
from meshdev.intercept.spec import Port, Spec, Workload
from meshdev.sidecar.envoy import names
from meshdev.sidecar.envoy.bootstrap import MAX_HEAP
from meshdev.sidecar.envoy.claims import LiveClaim, PodView, Served, pod_port, wanted
from meshdev.sidecar.envoy.resources import resources
from meshdev.wire import proxy_protocol
from meshdev.wire.agent import PodPort, Probe, Wanted
from meshdev.wire.intercepts import Relay
from meshdev.wire.modes import MESH, PROXY
from meshdev.wire.ports import Protocol
from tests.sidecar.certificates import Certificates
from tests.sidecar.real_envoy import RealEnvoy, running
from tests.sidecar.relays import Relays

LOOPBACK = IPv4Address("127.0.0.1")
WORKLOAD = Workload("default", "deployment", "b", "uid-b")
FIRST, SECOND, THIRD = (letter * 32 for letter in "abc")


class End:
    """A server that writes down what it reads and answers as *answer* says; without one it is an echo of its name."""

    def __init__(self, name: str, answer: Callable[["End", Any, Any], Awaitable[None]] | None = None) -> None:
        self.name = name
        self.port = 0
        self.host = "127.0.0.1"
        self.place: Callable[[], AbstractContextManager[None]] = nullcontext
        self.listener: socket.socket | None = None
        """Where somebody else has made it."""
        self.heard: list[bytes] = []
        self._answer = answer or speak_http
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def answer_by(self, answer: Callable[["End", Any, Any], Awaitable[None]]) -> None:
        """From now on."""
        self._answer = answer

    async def start(self) -> None:
        listener = self.listener
        if listener is None:
            with self.place():
                listener = socket.create_server((self.host, self.port), backlog=1000)
        self._server = await asyncio.start_server(self._serve, sock=listener, limit=1 << 24)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse from now on."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._answer(self, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


async def speak_http(end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Requests, one after the other, answered by the name of the end."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        end.heard.append(head)
        await reader.readexactly(length(head))
        body = end.name.encode()
        writer.write(b"HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()


def length(head: bytes) -> int:
    """Content-Length."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


class Pod:
    """What a test holds. Claims are made by :meth:`claim`, and told to Envoy by :meth:`serve`."""

    trace: ClassVar[bool] = False
    """Whether claims are traced that do not say it."""

    def __init__(self, envoy: RealEnvoy, certificates: Certificates, original: End, laptop: End) -> None:
        self.envoy = envoy
        self.certificates = certificates
        self.manager = _own_loopback()
        self.relays = Relays(certificates, str(self.manager))
        self.original = original
        self.laptop = laptop
        self.client = ("10.244.1.7", 43210)
        """Whose connections the passthrough proxy brings."""
        self.probes: tuple[Probe, ...] = ()
        self.claims: dict[str, LiveClaim] = {}
        self._wanted: tuple[Wanted, ...] = ()

    @property
    def port(self) -> PodPort:
        return PodPort(self.original.port)

    @property
    def socket(self) -> str:
        """Where the passthrough proxy finds Envoy."""
        return names.socket(str(Path(self.envoy.admin_path).parent), self.port)

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """What the claims want; kept for a while when they are gone."""
        return self._wanted

    def claim(
        self,
        match: Match | None = None,
        *,
        name: str = FIRST,
        protocol: Protocol = "http",
        fallback: bool = True,
        up: bool = True,
        to: End | None = None,
        trace: bool | None = None,
    ) -> None:
        """A claim on the app's port; without a match it wants everything."""
        mode = PROXY if match is None else MESH
        port = Port(self.original.port, protocol, 8080)
        relay = Relay(port.remote, port.transport, (to or self.laptop).port)
        spec = Spec(name, WORKLOAD, mode, match, (port,), fallback, self.trace if trace is None else trace)
        self.claims[name] = LiveClaim(spec, f"{name[0]}@laptop", (relay,), frozenset({pod_port(port)} if up else ()))

    async def serve(self, keep: Sequence[Wanted] = ()) -> None:
        """Everything is acknowledged when this returns."""
        claims = tuple(self.claims.values())
        self._wanted = wanted(claims, self.probes) or tuple(keep)
        served = tuple(Served(each, self.socket) for each in self._wanted)
        await self.envoy.ads.serve(resources(PodView(LOOPBACK, served, self.probes), self.manager, claims))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As the passthrough proxy would bring a client."""
        reader, writer = await asyncio.open_unix_connection(self.socket, limit=1 << 24)
        writer.write(proxy_protocol.header(self.client, (str(LOOPBACK), self.port.number)))
        return reader, writer

    async def ask(self, request: bytes) -> bytes:
        """The answer to one request, to the end of the connection."""
        async with asyncio.timeout(20):
            reader, writer = await self.connect()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            body = b"" if request.startswith(b"HEAD") else await reader.readexactly(length(head))
            writer.close()
            return head + body

    async def get(self, path: str = "/", **headers: str) -> str:
        """The body of the answer: which end it was."""
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        answer = await self.ask(f"GET {path} HTTP/1.1\r\nHost: b\r\n{lines}\r\n".encode())
        return answer.partition(b"\r\n\r\n")[2].decode()


def _own_loopback() -> IPv4Address:
    """A manager's address of this process alone, as all managers have the same port for relays (proc_sys_kernel(5))."""
    return IPv4Address("127.64.0.0") + os.getpid()


@asynccontextmanager
async def pod(
    original: End | None = None, laptop: End | None = None, *, heap: int = MAX_HEAP, workers: int = 1
) -> AsyncIterator[Pod]:
    """A pod whose Envoy has no resources yet, and so many bytes."""
    ends = original or End("original"), laptop or End("laptop")
    for end in ends:
        await end.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            certificates = Certificates(Path(folder))
            async with running(workers, heap, certificates) as envoy:
                made = Pod(envoy, certificates, *ends)
                async with made.relays.serving():
                    yield made
    finally:
        for end in ends:
            await end.stop()
