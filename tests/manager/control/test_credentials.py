"""Control's TLS: its name, and that nothing but its authority is trusted."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from meshdev.identity.authority import Authority
from meshdev.manager.control.credentials import server_credentials
from tests.manager.control.identities import identity
from tests.manager.control.sidecars import channel, issued
from tests.manager.control.test_identity import outcome
from tests.manager.control.world import authority


@dataclass
class Served:
    port: int
    authority: Authority


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server without any method."""
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", server_credentials(authority(), datetime.now(UTC)))
    await server.start()
    yield Served(port, authority())
    await server.stop(0)


async def test_what_the_authority_issued_completes_a_handshake_as_long_as_it_is_good(served: Served) -> None:
    mine, now = identity(), datetime.now(UTC)
    path = "ns/default/deployment/b/pod/u"
    expired = authority().issue_workload(
        mine.request, path, now=now - timedelta(seconds=10), lifetime=timedelta(seconds=5)
    )
    outcomes = {}
    for name, certificate in {"good": issued(served, mine), "expired": expired, "own": mine.certificate}.items():
        async with channel(served, mine, certificate) as line:
            outcomes[name] = await outcome(line)
    async with channel(served, None) as line:
        outcomes["none"] = await outcome(line)
    refused = grpc.StatusCode.UNAVAILABLE
    assert outcomes == {
        "good": grpc.StatusCode.UNIMPLEMENTED,
        "expired": refused,
        "own": refused,
        "none": refused,
    }
