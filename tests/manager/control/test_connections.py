"""Connections to the port of control, and what is said on them: bounded in time and size."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from meshdev.identity.tls import load_identity, pem
from meshdev.manager.control import service
from meshdev.sidecar.envoy.protos import CLUSTERS
from meshdev.wire import agent
from meshdev.wire.agent import State
from tests.manager.control.claimant import Claimant
from tests.manager.control.identities import identity
from tests.manager.control.sidecars import Control, channel, control, issued, joined
from tests.manager.standin import Manager
from tests.manager.test_intercepts import Ann
from tests.waiting import until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


def tls(mesh: Control) -> ssl.SSLContext:
    """With the certificate of an agent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem(mesh.authority.certificate))
    context.set_alpn_protocols(["h2"])
    load_identity(context, identity().pair.private_pem, [issued(mesh, identity())])
    return context


@pytest.mark.parametrize(("secure", "greeting"), [(False, b""), (False, PREFACE), (True, b""), (True, PREFACE)])
async def test_a_connection_without_a_stream_is_closed(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secure: bool, greeting: bytes
) -> None:
    short = {"grpc.server_handshake_timeout_ms": 200, "grpc.max_connection_idle_ms": 200}
    assert short.keys() <= dict(service.OPTIONS).keys()
    monkeypatch.setattr(service, "OPTIONS", tuple((dict(service.OPTIONS) | short).items()))
    async with control(tmp_path) as mesh, asyncio.timeout(10):
        with Ann(manager) as ann:
            Claimant(ann).claim()
            await until(lambda: identity().key in mesh.core.named())
            more: Any = {"ssl": tls(mesh), "server_hostname": "control.meshdev"} if secure else {}
            reader, writer = await asyncio.open_connection("127.0.0.1", mesh.port, **more)
            writer.write(greeting)
            with suppress(ConnectionError):
                await reader.read()
            writer.close()


async def test_what_they_call_themselves_is_one_line_of_the_log(
    mesh: Control, claimant: Claimant, caplog: pytest.LogCaptureFixture
) -> None:
    claimant.claim()
    async with channel(mesh, identity()) as line:
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(line)
        call = stub.StreamAggregatedResources(wait_for_ready=True)
        request = discovery_pb2.DiscoveryRequest(type_url=CLUSTERS)
        request.node.id, request.error_detail.message = "x\nnew line", "y\nanother"
        await call.write(request)
        await until(lambda: "another" in caplog.text)
        assert "the Envoy of pod x new line refuses: y another" in caplog.text


LARGE = agent.encode(State(return_paths=tuple((20_000 + each, "open") for each in range(8192))))


async def test_the_largest_state_is_taken(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with joined(mesh) as made:
        await made.agent.say(LARGE)
        await until(lambda: any(len(pod._return_paths) == 8192 for pod in mesh.core.pods()))
        await claimant.reported("acked")
