"""All processes at once: a laptop's helper and tunnel, the containers of the manager, a pod's agent and Envoy."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from meshdev.errors import PeerClosed
from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import Port, Spec
from meshdev.kube.attestation import ManagerCertificates
from meshdev.wire.intercepts import AttestedAgent, Report
from meshdev.wire.modes import MESH
from tests.manager.claims import WORKLOAD
from tests.netns.cluster import Cluster
from tests.netns.laptop import Laptop
from tests.netns.relayed import Session, connected
from tests.netns.sidecar import SidecarPod
from tests.sidecar.pod import End
from tests.waiting import until

MINE = Spec("c" * 32, WORKLOAD, MESH, Match((HeaderMatch("a", "exact", "1"),)), (Port(8080, "http", 3000),))


@dataclass
class World:
    cluster: Cluster
    pod: SidecarPod
    laptop: Laptop

    async def program(self, name: str = "laptop") -> End:
        """B', on the laptop's loopback."""
        end = End(name)
        end.host, end.port, end.place = "127.0.0.1", 3000, self.laptop.inside
        await end.start()
        return end


@pytest.fixture
async def world(laptop: Laptop) -> AsyncIterator[World]:
    pod = SidecarPod()
    cluster = pod._cluster
    try:
        cluster.start_manager()
        cluster.start_control()
        cluster.start_relay()
        await pod.app(8080)
        yield World(cluster, pod, laptop)
    finally:
        if pod._process is not None:
            pod.agent.kill()
            pod.agent.wait()
        pod._log.close()
        for end in pod._ends:
            await end.stop()
        cluster.close()


def state(session: Session) -> str:
    reports = [one for one in session.heard if isinstance(one, Report)]
    return reports[-1].state if reports else ""


def ways(session: Session) -> list[str]:
    return [one.return_path for one in session.heard if isinstance(one, Report)]


@asynccontextmanager
async def intercepted(world: World) -> AsyncIterator[Session]:
    """Every part is there and the pod has taken the route."""
    world.pod.start_agent()
    async with connected(world.laptop, world.cluster, MINE) as session:
        await session.lead()
        await attested(world, session)
        await until(lambda: state(session) == "acked")
        yield session


async def attested(world: World, session: Session) -> None:
    """The agent knows the session, and the manager of it."""
    manager = session.pool.claims.manager_certificate
    await manager.until(bool)

    async def introduce(request: bytes, proof: str) -> ManagerCertificates:
        session.pool.claims.agents(MINE.id, (AttestedAgent(request, proof, "b-1", "uid-b-1"),))
        issued = await session.pool.claims.issued(MINE.id, request)
        assert manager.value is not None
        return ManagerCertificates(manager.value, issued)

    assert (await world.pod.attest(await world.pod.announcement(), introduce)).accepted


async def answers(who: str, ask: Callable[[], Awaitable[str]]) -> float:
    """Seconds until *who* answers."""
    began = time.perf_counter()
    while await ask() != who:
        assert time.perf_counter() - began < 10
    return time.perf_counter() - began


async def test_a_matched_request_reaches_the_laptop_and_no_other(world: World) -> None:
    program = await world.program()
    began = time.perf_counter()
    async with intercepted(world) as session:
        joined = time.perf_counter() - began
        assert await world.pod.get(a="1") == "laptop"
        assert (await world.pod.get(a="2"), await world.pod.get()) == ("original", "original")
        times = []
        for _ in range(50):
            began = time.perf_counter()
            assert await world.pod.get(a="1") == "laptop"
            times.append(time.perf_counter() - began)
        print(f"agent and session to acked {joined:.2f} s; matched request p50 {sorted(times)[25] * 1e3:.1f} ms")
        await until(lambda: any(isinstance(one, Report) and one.counts.matched >= 51 for one in session.heard))
        await until(lambda: ways(session)[-1] == "open")
        assert set(ways(session)) <= {"untried", "open"}
        await program.stop()
        assert await world.pod.get(a="1") == "original"


async def test_local_down_and_up_and_leaving(world: World) -> None:
    program = await world.program()
    async with intercepted(world) as session:
        times: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(10):
            for up, who in ((False, "original"), (True, "laptop")):
                session.local(up)
                times[up].append(await answers(who, lambda: world.pod.get(a="1")))
        print({up: f"max {max(some) * 1e3:.1f} ms" for up, some in times.items()})
        assert max(*times[True], *times[False]) < 1, "when it happens, not when somebody looks again"
        session.pool.claims.withdraw(MINE.id)
        await until(lambda: state(session) == "gone")
        assert await world.pod.get(a="1") == "original"
        assert "8080 :" not in world.pod.rules()
    await program.stop()


async def test_a_session_that_dies_leaves_everything_to_the_original(world: World) -> None:
    program = await world.program()
    async with intercepted(world) as session:
        assert await world.pod.get(a="1") == "laptop"
        session.running.cancel()
        began = time.monotonic()
        for carrier in list(session.pool._carriers.values()):
            carrier.end(PeerClosed("killed"))
        assert await world.pod.get(a="1") == "original"
        at_once = time.monotonic() - began
        await until(lambda: "8080 :" not in world.pod.rules(), 20)
        print(f"answered after {at_once:.2f} s by the original, no redirect after {time.monotonic() - began:.1f} s")
        assert at_once < 1.5, "two connects of 0.5 s each"
        assert time.monotonic() - began < 15
    await program.stop()


async def test_control_that_is_killed_costs_no_request(world: World) -> None:
    program = await world.program()
    counts: dict[str, int] = {}
    stop = asyncio.Event()

    async def ask(header: str) -> None:
        while not stop.is_set():
            who = await world.pod.get(a=header)
            counts[f"{header} {who}"] = counts.get(f"{header} {who}", 0) + 1

    async with intercepted(world) as session:
        asking = [asyncio.create_task(ask(header)) for header in "12"]
        await asyncio.to_thread(world.cluster.stop_control)
        before = len(session.heard)
        await asyncio.to_thread(world.cluster.start_control)
        await until(lambda: len(session.heard) > before and state(session) == "acked", 20)
        assert await world.pod.get(a="1") == "laptop"
        stop.set()
        await asyncio.gather(*asking)
    print(f"while control was killed and began anew: {counts}")
    assert counts.keys() == {"1 laptop", "2 original"}
    await program.stop()
