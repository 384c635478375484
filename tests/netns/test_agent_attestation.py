"""Sessions attest the agent on the pod's loopback, and whoever is no session gets nothing; real processes."""

import asyncio
import contextlib
import re
import statistics
import time
from contextlib import AsyncExitStack, ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from meshdev.errors import ClusterError, MeshdevError, ProtocolError
from meshdev.identity.edges import claim_proof
from meshdev.identity.keys import KeyPair, id_of, key_id, requested_key
from meshdev.kube.attestation import Attested
from meshdev.sidecar.agent.attesting import MAX_CONNECTIONS, AttestationListener
from meshdev.sidecar.agent.own_key import make_key
from meshdev.sidecar.agent.trust import new_identity
from meshdev.wire import attestation
from meshdev.wire.attestation import CHOSEN_PORTS, AttestRequest, ManagerOffer
from tests.netns.cluster import POD
from tests.netns.sidecar import intercepted, sidecar
from tests.sidecar.agent.attesting_session import attested, connect, tls
from tests.sidecar.certificates import Certificates
from tests.waiting import until

UID = "uid-b-1"


def key_of(found: Attested) -> str:
    return id_of(requested_key(found.request))


async def test_each_process_has_a_key_of_its_own_and_announces_it() -> None:
    async with sidecar() as pod:
        first = await pod.announcement()
        assert first.port in CHOSEN_PORTS
        found = await pod.attest(first)
        assert (found.accepted, key_of(found)) == (True, key_id(pod.manager.peers[0]))
        await until(lambda: found.proof in pod.manager.consents)
        pod.agent.kill()
        pod.agent.wait()
        await until(lambda: not pod.manager.connected)
        pod.start_agent()
        second = await pod.announcement()
        await until(lambda: len(pod.manager.peers) == 2)
        assert second.fingerprint != first.fingerprint
        assert key_of(await pod.attest(second)) == key_id(pod.manager.peers[1]) != key_of(found)
        with pytest.raises((MeshdevError, ConnectionError)):
            await pod.attest(first)


async def test_the_assigned_port_is_taken_where_it_is_free() -> None:
    async with sidecar() as pod:
        for expected in ({16205}, CHOSEN_PORTS):
            before = pod.agent
            pod.start_agent("[]", "", "16205")
            try:
                announced = await pod.announcement()
                assert announced.port in expected
                assert (await pod.attest(announced)).fingerprint == announced.fingerprint
            finally:
                before.kill()
                before.wait()


async def test_it_is_attested_while_it_waits_for_the_table() -> None:
    async with sidecar() as pod:
        holder = pod.agent
        try:
            pod.start_agent()
            announced = await pod.announcement()
            assert key_of(await pod.attest(announced)) != key_id(pod.manager.peers[0])
            assert len(pod.manager.peers) == 1
        finally:
            holder.kill()
            holder.wait()


async def test_the_manager_learns_whom_it_knows_as_that_changes() -> None:
    async with sidecar() as pod:
        announced = await pod.announcement()
        proofs = [(await pod.attest(announced)).proof for _ in range(3)]
        await until(lambda: set(proofs) <= set(pod.manager.consents))


# -- whoever is no session ---------------------------------------------------------------------------------------------


async def test_a_process_that_took_the_assigned_port_is_not_the_one_that_the_log_names() -> None:
    """It is attested by whoever does not look into the log, with a key of its own: that is how it is found out."""
    async with sidecar() as pod:
        thief = new_identity(make_key())
        with pod.pod.inside():
            listener = AttestationListener(UID, thief, 16207)
        async with listener.serving():
            before = pod.agent
            pod.start_agent("[]", "", "16207")
            try:
                announced = await pod.announcement()
                assert announced.port in CHOSEN_PORTS
                taken = await attested(
                    16207, UID, pod.certificates.authority, place=pod.pod.inside, issue=pod.certificates.issue
                )
                assert taken.fingerprint != announced.fingerprint
                with pytest.raises(ProtocolError, match="another key than the one that the agent's log names"):
                    await attested(16207, UID, b"", announced.fingerprint, pod.pod.inside)
                assert (await pod.attest(announced)).request not in {taken.request, thief.key.request}
            finally:
                before.kill()
                before.wait()


async def test_whoever_poses_as_a_session_does_not_take_the_agent_from_its_manager() -> None:
    """As a process in the pod, or anybody with the right to open port-forwards, may try."""
    async with sidecar() as pod:
        announced = await pod.announcement()
        await until(lambda: b"the manager is there" in pod.log())
        known = pod.manager.consents
        other = KeyPair.generate().self_signed(lifetime=timedelta(hours=1), now=datetime.now(UTC))
        posed = await attested(announced.port, UID, other, place=pod.pod.inside)
        assert (posed.accepted, posed.reason) == (False, "another manager serves this sidecar, and is not lost")
        async with tls(announced.port, pod.pod.inside) as (reader, writer):  # by a proof that it saw elsewhere
            writer.write(attestation.encode(AttestRequest(2, UID)))
            writer.write(attestation.encode(ManagerOffer(other, known[0], b"x")))
            assert b"the proof does not match" in await asyncio.wait_for(reader.read(), 5)
        await until(lambda: pod.manager.consents == known)
        assert pod.manager.connected


async def test_another_manager_is_taken_once_the_first_is_lost(tmp_path: Path) -> None:
    async with sidecar() as pod:
        announced = await pod.announcement()
        other = Certificates(tmp_path)
        await until(lambda: b"the manager is there" in pod.log())
        await pod.manager.stop()
        await until(lambda: b"the stream to the manager is lost" in pod.log())
        taken = await attested(announced.port, UID, other.authority, place=pod.pod.inside, issue=other.issue)
        assert taken.accepted


async def test_whoever_asks_for_another_pod_gets_nothing() -> None:
    async with sidecar() as pod:
        port = (await pod.announcement()).port
        with pytest.raises(ClusterError, match="not the pod that was asked for"):
            await attested(port, "uid-b-2", b"x", place=pod.pod.inside)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"meshdev-agent/1 token\n",
        attestation.encode(ManagerOffer(b"x", claim_proof(b"x"), b"x")),
        b"\0" * 100_000,
    ],
)
async def test_whoever_says_something_else_gets_no_answer(said: bytes) -> None:
    async with sidecar() as pod:
        announced = await pod.announcement()
        async with tls(announced.port, pod.pod.inside) as (reader, writer):
            writer.write(said)
            with contextlib.suppress(ConnectionError):  # what was not read is answered with a reset
                assert await asyncio.wait_for(reader.read(), 5) == b""
        with contextlib.closing(connect(announced.port, pod.pod.inside)) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(said)
            sock.settimeout(7)
            assert b"meshdev" not in await asyncio.to_thread(sock.recv, 1 << 16)
        assert (await pod.attest(announced)).accepted


async def test_from_outside_of_the_pod_nobody_reaches_it() -> None:
    async with sidecar() as pod:
        port = (await pod.announcement()).port
        with pytest.raises(ConnectionRefusedError):
            await pod.connect(port, str(POD))


async def test_connections_that_say_nothing_keep_nobody_out() -> None:
    async with sidecar() as pod:
        announced = await pod.announcement()
        with ExitStack() as stack:
            for _ in range(3 * MAX_CONNECTIONS):
                stack.enter_context(contextlib.closing(connect(announced.port, pod.pod.inside)))
            assert (await pod.attest(announced)).accepted
        async with AsyncExitStack() as stack_of_tls:
            for _ in range(MAX_CONNECTIONS):
                await stack_of_tls.enter_async_context(tls(announced.port, pod.pod.inside))
            assert (await pod.attest(announced)).accepted


async def test_a_hundred_sessions_are_served_eight_at_a_time() -> None:
    """How long one takes is printed."""
    async with sidecar() as pod:
        announced = await pod.announcement()
        slots, took = asyncio.Semaphore(8), list[float]()

        async def one() -> bool:
            async with slots:
                began = time.monotonic()
                found = await pod.attest(announced)
                took.append(time.monotonic() - began)
                return found.accepted

        began = time.monotonic()
        assert all(await asyncio.gather(*(one() for _ in range(100))))
        each = sorted(1000 * seconds for seconds in took)
        median = statistics.median(each)
        print(f"100 in {time.monotonic() - began:.2f} s; one: median {median:.1f} ms, most {each[-1]:.0f}")
        await until(lambda: len(pod.manager.consents) >= 100)


async def test_no_library_writes_lines_of_its_own_into_the_log() -> None:
    """gRPC reports each connection that a manager closes; whoever reads for the announcement reads dates before it."""
    async with sidecar() as pod:
        await pod.app(8080)
        await intercepted(pod)
        await pod.manager.stop()
        await until(lambda: b"the stream to the manager is lost" in pod.log())
        await until(lambda: b"no stream to the manager" in pod.log())
        dated = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} |  |meshdev-agent/2 ")
        assert [line for line in pod.log().splitlines() if not dated.match(line)] == []
