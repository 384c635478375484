"""Attesting an agent through a hand-made API server: what a log and whoever answers on the port can do wrong."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from meshdev.errors import ClusterError, MeshdevError, PortForwardError, ProtocolError
from meshdev.identity.edges import claim_proof, manager_proof
from meshdev.identity.engine import TlsEngine
from meshdev.identity.fingerprints import fingerprint
from meshdev.identity.keys import KeyPair
from meshdev.identity.tls import load_identity
from meshdev.kube import attestation as module
from meshdev.kube.attestation import AgentAddress, Attested, ManagerCertificates, announced, attest
from meshdev.kube.client import KubeApi
from meshdev.kube.portforward import PortForward, dial
from meshdev.wire import attestation
from meshdev.wire.attestation import (
    AgentAnnouncement,
    AttestRefusal,
    AttestRequest,
    FromAttestedAgent,
    IssuedCapability,
    ManagerOffer,
    ManagerVerdict,
)
from meshdev.wire.framing import CarrierKind
from meshdev.wire.spdy import opening
from tests.kube.proxies import Handler, listening
from tests.kube.test_portforward import client, switched
from tests.wire.test_spdy import data_frame

CAPABILITY, MANAGER, ISSUED = b"c" * 32, b"the manager's certificate", b"the agent's, by the manager"
KEY = KeyPair.generate()
CERTIFICATE = KEY.self_signed(lifetime=timedelta(hours=1), now=datetime.now(UTC))
REQUEST = KEY.request()
HERE = AgentAnnouncement(16200, fingerprint(CERTIFICATE))
LINE = f"{HERE}\n".encode()

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def context(newest: ssl.TLSVersion) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.maximum_version = newest
    load_identity(made, KEY.private_pem, [CERTIFICATE])
    return made


class AgentEnd:
    """An agent behind the port-forward, which says what it is told to."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> None:
        self._reader, self._writer = reader, writer
        self.engine = TlsEngine(context(newest), server_side=True)
        self._got = b""

    async def line(self) -> bytes:
        while b"\n" not in self._got:
            head = await self._reader.readexactly(8)
            self._got += self.engine.receive(await self._reader.readexactly(int.from_bytes(head[5:], "big")))
            await self.flush()
        line, _, self._got = self._got.partition(b"\n")
        return line

    async def say(self, *messages: FromAttestedAgent | bytes) -> None:
        for each in messages:
            self.engine.send(each if isinstance(each, bytes) else attestation.encode(each))
        await self.flush()

    async def flush(self) -> None:
        if data := self.engine.outgoing():
            self._writer.write(data_frame(data[: len(data) // 2]) + data_frame(data[len(data) // 2 :]))
            await self._writer.drain()


def agent(talk: Callable[[AgentEnd], Awaitable[None]]) -> Answer:
    return lambda reader, writer: talk(AgentEnd(reader, writer))


@dataclass
class Seen:
    """What the server was asked for, and what became of it."""

    heads: list[bytes] = field(default_factory=list)
    lines: list[Any] = field(default_factory=list)
    introduced: list[tuple[bytes, str]] = field(default_factory=list)


def server(log: list[bytes], answer: Answer, seen: Seen) -> Handler:
    """Streams *log*, and goes on until the client leaves; *answer* is behind every port-forward."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            first = await reader.readuntil(b"\r\n")
            seen.heads.append(first)
            if b"/log?" not in first:
                await _forward(reader, writer)
                return
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n")
            for piece in log:
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
            await reader.read()

    async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await switched(reader, writer)
        await reader.readexactly(len(opening(16200)))
        await answer(reader, writer)
        await writer.drain()
        await reader.read()

    return serve


class Cluster:
    def __init__(self, api: KubeApi, seen: Seen) -> None:
        self.api, self.seen = api, seen

    async def forward(self, namespace: str, pod: str, port: int, kind: CarrierKind = "spdy") -> PortForward:
        return await dial(self.api, namespace, pod, port, kind, 2)

    async def introduce(self, request: bytes, proof: str) -> ManagerCertificates:
        self.seen.introduced.append((request, proof))
        self.seen.lines.append("introduced")
        return ManagerCertificates(MANAGER, ISSUED)

    async def attest(self, expected: str | None = None) -> Attested:
        return await attest(self.forward, AgentAddress("default", "b-1", "uid-1", 16200, expected), self.introduce)


@contextlib.asynccontextmanager
async def cluster(folder: Path, answer: Answer, log: list[bytes] | None = None) -> AsyncIterator[Cluster]:
    seen = Seen()
    async with listening(server(log or [], answer, seen)) as port, client(folder, port) as api:
        yield Cluster(api, seen)


def well(seen: list[Any]) -> Answer:
    async def talk(end: AgentEnd) -> None:
        seen.append(attestation.decode_from_session(await end.line()))
        await end.say(IssuedCapability(CAPABILITY.hex(), REQUEST))
        seen.append(attestation.decode_from_session(await end.line()))
        await end.say(ManagerVerdict(True))

    return agent(talk)


# -- the log -----------------------------------------------------------------------------------------------------------


async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    pass


async def test_the_log_of_that_container_names_port_and_certificate(tmp_path: Path) -> None:
    async with cluster(tmp_path, silent, [b"2026 INFO noise\n" + LINE[:5], LINE[5:]]) as made:
        began = time.monotonic()
        assert await announced(made.api, "default", "b-1", "meshdev-1") == HERE
        assert time.monotonic() - began < 1, "the log goes on for ever, and nobody waits for its end"
        (head,) = made.seen.heads
        assert b"/pods/b-1/log?container=meshdev-1&follow=true " in head


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ([b"nothing\n"], "does not name its port within"),
        ([b"x" * (1 << 16)] * 40, "does not name its port in 2 MiB"),
        ([b"meshdev-agent/1 token-port=16200\n"], "the sidecar is of an earlier version"),
        ([b"meshdev-agent/3 quic=1\n"], "announces itself in version 3"),
    ],
)
async def test_a_log_that_says_nothing_of_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: list[bytes], words: str
) -> None:
    monkeypatch.setattr(module, "LOG_SECONDS", 0.5)
    monkeypatch.setattr(module, "MAX_LOG", 2 << 20)
    async with cluster(tmp_path, silent, log) as made:
        with pytest.raises(MeshdevError, match=words):
            await announced(made.api, "default", "b-1", "meshdev-1")


# -- the exchange ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", [None, fingerprint(CERTIFICATE)])
async def test_an_agent_is_introduced_before_it_knows_the_manager(tmp_path: Path, expected: str | None) -> None:
    told: list[Any] = []
    async with cluster(tmp_path, well(told)) as made:
        made.seen.lines = told
        assert await made.attest(expected) == Attested(REQUEST, HERE.fingerprint, claim_proof(CAPABILITY), True)
        assert told == [
            AttestRequest(2, "uid-1"),
            "introduced",
            ManagerOffer(MANAGER, manager_proof(CAPABILITY, MANAGER), ISSUED),
        ]
        assert made.seen.introduced == [(REQUEST, claim_proof(CAPABILITY))]
        (head,) = made.seen.heads
        assert b"/pods/b-1/portforward " in head


async def test_a_manager_that_is_not_accepted_is_no_error(tmp_path: Path) -> None:
    async def talk(end: AgentEnd) -> None:
        await end.line()
        await end.say(IssuedCapability(CAPABILITY.hex(), REQUEST))
        await end.line()
        await end.say(ManagerVerdict(False, "another one"))

    async with cluster(tmp_path, agent(talk)) as made:
        found = await made.attest()
        assert (found.accepted, found.reason) == (False, "another one")


async def test_another_key_than_the_expected_one_is_asked_nothing(tmp_path: Path) -> None:
    told: list[Any] = []
    async with cluster(tmp_path, well(told)) as made:
        with pytest.raises(ProtocolError, match="port 16200 has another key than the one that the agent's log names"):
            await made.attest("0" * 64)
        assert (told, made.seen.introduced) == ([], [])


async def test_what_introducing_raises_ends_it(tmp_path: Path) -> None:
    async def introduce(_request: bytes, _proof: str) -> ManagerCertificates:
        raise ClusterError("no manager")

    told: list[Any] = []
    async with cluster(tmp_path, well(told)) as made:
        with pytest.raises(ClusterError, match="no manager"):
            await attest(made.forward, AgentAddress("default", "b-1", "uid-1", 16200), introduce)
        assert told == [AttestRequest(2, "uid-1")]


# -- whoever else answers ----------------------------------------------------------------------------------------------


async def garbage(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(data_frame(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"z" * 200))


async def former(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An agent of version 1 closes: it was not asked for its token. Both streams end."""
    writer.write(bytes.fromhex("00000003 01 000000 00000001 01 000000"))


async def older_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    end = AgentEnd(reader, writer, ssl.TLSVersion.TLSv1_2)
    with contextlib.suppress(ProtocolError):
        await end.line()
    await end.flush()


async def slow(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in bytes.fromhex("160303") + b"\x40" + bytes(60):
        writer.write(data_frame(bytes([byte])))
        await writer.drain()
        await asyncio.sleep(0.05)


async def refused(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    text = b"connection refused"
    writer.write(bytes.fromhex("00000001 01") + len(text).to_bytes(3, "big") + text)
    writer.write(bytes.fromhex("00000003 01 000000"))


async def endless(end: AgentEnd) -> None:
    await end.line()
    while True:
        await end.say(b"\n" * 1000)


async def endless_line(end: AgentEnd) -> None:
    await end.line()
    while True:
        await end.say(b"x" * 1000)


async def half_a_line(end: AgentEnd) -> None:
    await end.line()
    await end.say(b"{")


def saying(*messages: FromAttestedAgent | bytes) -> Answer:
    async def talk(end: AgentEnd) -> None:
        await end.line()
        await end.say(*messages)

    return agent(talk)


async def too_early(end: AgentEnd) -> None:
    await end.line()
    end.engine.close()
    await end.flush()


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (garbage, ProtocolError, "is not the agent: TLS failed"),
        (older_tls, ProtocolError, "is not the agent: TLS failed: .*alert protocol version"),
        (former, ProtocolError, "is not the agent: it ended too early"),
        (agent(too_early), ProtocolError, "is not the agent: it ended too early"),
        (agent(endless), ProtocolError, "not JSON"),
        (agent(endless_line), ProtocolError, "is not the agent: A line is longer"),
        (agent(half_a_line), ClusterError, "port 16200 does not answer within 0.5 seconds"),
        (silent, ClusterError, "port 16200 does not answer within 0.5 seconds"),
        (slow, ClusterError, "port 16200 does not answer within 0.5 seconds"),
        (refused, PortForwardError, "connection refused"),
        (saying(AttestRefusal("not this pod")), ClusterError, "the sidecar's agent refuses: not this pod"),
        (saying(ManagerVerdict(True)), ProtocolError, "something else than it was asked"),
        (saying(b'{"capability":"5f"}\n'), ProtocolError, "64 hexadecimal digits"),
        (saying(b'{"capability":"' + b"5f" * 32 + b'"}\n'), ProtocolError, "has no csr"),
    ],
)
async def test_whoever_else_answers_is_reported_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, kind: type[MeshdevError], words: str
) -> None:
    monkeypatch.setattr(module, "EXCHANGE_SECONDS", 0.5)
    async with cluster(tmp_path, answer) as made:
        began = time.monotonic()
        with pytest.raises(kind, match=words):
            await made.attest()
        assert time.monotonic() - began < 2
        assert made.seen.introduced == []


async def test_no_more_is_read_than_an_agent_sends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RECEIVED", 500)
    async with cluster(tmp_path, well([])) as made:
        with pytest.raises(ProtocolError, match="it sends too much"):
            await made.attest()
