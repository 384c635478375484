"""Sidecars, sessions and both containers together, with real gRPC: who gets what, when, and who does not."""

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import grpc
import pytest

from meshdev.intercept.spec import Port
from meshdev.manager.control import service
from meshdev.sidecar.envoy import names
from meshdev.wire import agent
from meshdev.wire.access import AccessRecord, AccessRecords
from meshdev.wire.agent import FromAgent, PodPort, State
from meshdev.wire.counts import Counts, InterceptCounts
from meshdev.wire.intercepts import Report
from meshdev.wire.modes import MESH, PROXY
from tests.manager.claims import spec
from tests.manager.control.claimant import Claimant
from tests.manager.control.identities import NAMES, OTHER_AGENTS, OURS, THEIRS, identity
from tests.manager.control.sidecars import PORT, Control, agent_of, channel, control, envoy_of, joined, sidecar
from tests.manager.standin import Manager
from tests.manager.test_intercepts import Ann
from tests.waiting import until

B = spec("b")
IDENTITY = "spiffe://manager-uid/ns/default/deployment/b/pod/uid-b-1"


def permitted(mesh: Control) -> dict[int, set[str]]:
    """The names of the pods, of either workload, whose keys may use each relay."""
    names = {identity(name, workload).key: name for workload in (OURS, THEIRS) for name in NAMES}
    return {relay: {names[key] for key in keys} for relay, keys in mesh.relay.permitted().items()}


async def test_a_pod_joins_step_by_step(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with sidecar(mesh) as made:
        await until(lambda: made.agent.wants() == ["8080"])
        assert made.agent.want is not None
        assert made.agent.want.ports[0].mode == MESH
        assert made.agent.redirect is None
        assert made.envoy.listens() == []
        await made.listen()
        await until(lambda: made.agent.redirects() == ["8080"])
        assert made.envoy.listens() == ["listener_8080"]
        assert B.id in made.envoy.routes()
        assert (await claimant.reported("joined")).pod == "b-1"
        await made.state(PORT)
        assert await claimant.reported("acked") == Report(B.id, "b-1", "acked", up=1, identity=IDENTITY)
        await until(lambda: permitted(mesh) == {20000: {"b-1"}})
        counts = Counts(5, 1, 2)
        await made.state(PORT, older=((PORT, 3),), intercepts=((B.id, counts), ("x", Counts(9, 9, 9))))
        assert await claimant.report(lambda report: report.counts.matched == 5) == Report(
            B.id, "b-1", "acked", "", InterceptCounts(5, 1, 2, 3), 1, identity=IDENTITY
        )


async def test_records_are_passed_on_and_take_nothing_from_what_an_agent_reports(
    mesh: Control, claimant: Claimant, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[AccessRecords] = []
    monkeypatch.setattr(mesh.process.watches, "recorded", lambda _, records: taken.append(records))
    record = AccessRecord(1, IPv4Address("10.244.0.9"), 8080, "HTTP/1.1", "original", 2)
    claimant.claim()
    async with joined(mesh) as made:
        await claimant.reported("acked")
        for number in range(40):
            await made.agent.say(AccessRecords((record,) * 12, number))
        await made.state(PORT, older=((PORT, 3),))
        await claimant.report(lambda report: report.counts.older == 3)
        assert [each.dropped for each in taken] == list(range(40))


async def test_a_pod_leaves_step_by_step(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with joined(mesh) as made:
        await claimant.reported("acked")
        claimant.withdraw()
        await until(lambda: made.agent.want is not None and made.agent.wants() == [])
        await until(lambda: B.id not in made.envoy.routes())
        await made.state()
        await claimant.reported("gone")
        assert made.envoy.listens() == ["listener_8080"]  # for connections that are kept alive


async def test_a_report_says_how_many_programs_were_up_in_the_state_it_is_about(
    mesh: Control, claimant: Claimant
) -> None:
    claimant.claim(up=False)
    async with joined(mesh) as made:
        assert (await claimant.reported("acked")).up == 0
        claimant.local(up=True)
        acked = await claimant.report(lambda report: report.up == 1 and report.state == "acked")
        assert acked == Report(B.id, "b-1", "acked", up=1, identity=IDENTITY)
        assert names.either(PORT, B.id) in made.envoy.routes()
        claimant.local(up=False)
        assert await claimant.report(lambda report: report.up == 0 and report.state == "acked") == replace(acked, up=0)
        assert names.either(PORT, B.id) not in made.envoy.routes()
        claimant.local(up=True)
        await claimant.report(lambda report: report.up == 1)
        claimant.withdraw()
        await made.state()
        assert await claimant.reported("gone") == Report(B.id, "b-1", "gone")


async def test_of_two_equal_claims_the_newest_has_the_requests(mesh: Control, manager: Manager) -> None:
    with Ann(manager) as ann, Ann(manager, "bob") as bob:
        ours, theirs = Claimant(ann), Claimant(bob)
        taking_over = spec("a")  # whatever the order of their ids
        ours.claim()
        async with joined(mesh) as made:
            await ours.reported("acked")
            theirs.claim(taking_over)
            await theirs.reported("acked", taking_over)
            routes = made.envoy.routes()
            assert routes.index(names.either(PORT, taking_over.id)) < routes.index(names.either(PORT, B.id))
            ours.claim(spec("b", value="1"))  # told again: it stays the older one
            theirs.withdraw(taking_over)
            await theirs.reported("gone", taking_over)
            assert names.either(PORT, B.id) in made.envoy.routes()


async def test_changes_take_effect_at_once(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    times: dict[str, list[float]] = {"match": [], "down": [], "up": []}
    async with joined(mesh) as made:
        await claimant.reported("acked")
        for number in range(20):
            began = time.perf_counter()
            claimant.claim(spec("b", value=f"value-{number}"))
            await until(lambda number=number: f"value-{number}" in made.envoy.routes())  # type: ignore[misc]  # a default in a lambda
            times["match"].append(time.perf_counter() - began)
            for name, up in (("down", False), ("up", True)):
                began = time.perf_counter()
                claimant.local(up=up)
                await until(lambda up=up: (names.either(PORT, B.id) in made.envoy.routes()) == up)  # type: ignore[misc]  # a default in a lambda
                times[name].append(time.perf_counter() - began)
    medians = {name: sorted(some)[len(some) // 2] for name, some in times.items()}
    print({name: f"p50 {medians[name] * 1e3:.1f} ms, max {max(some) * 1e3:.1f} ms" for name, some in times.items()})
    assert max(medians.values()) < 0.1, "when it happens, not when somebody looks again"


async def test_two_sessions_share_a_workload(mesh: Control, manager: Manager) -> None:
    with Ann(manager) as ann, Ann(manager, "bob") as bob:
        ours, theirs = Claimant(ann), Claimant(bob)
        other = spec("c", value="2")
        ours.claim()
        async with joined(mesh) as made:
            await ours.reported("acked")
            theirs.claim(other)
            # Its program may be up a moment after the claim: acknowledged, and routed to the original until then.
            await theirs.report(lambda report: (report.state, report.id, report.up) == ("acked", other.id, 1))
            assert all(names.either(PORT, each.id) in made.envoy.routes() for each in (B, other))
            await until(lambda: permitted(mesh) == {20000: {"b-1"}, 20001: {"b-1"}})
            theirs.withdraw(other)
            await theirs.reported("gone", other)
            assert B.id in made.envoy.routes()


async def test_every_pod_of_a_workload(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with joined(mesh), joined(mesh, name="b-2"):
        pods = {(await claimant.reported("acked")).pod for _ in range(2)}
        assert pods == {"b-1", "b-2"}
    gone = {(await claimant.reported("gone")).pod for _ in range(2)}
    assert gone == {"b-1", "b-2"}


async def test_what_envoy_refuses_is_told_and_costs_the_others_nothing(mesh: Control, manager: Manager) -> None:
    with Ann(manager) as ann, Ann(manager, "eve") as eve:
        ours, theirs = Claimant(ann), Claimant(eve)
        bad, later = spec("bad", value="poison"), spec("later", value="3")
        ours.claim()
        async with joined(mesh) as made:
            made.envoy.refuses = "poison"
            await ours.reported("acked")
            theirs.claim(bad)
            refused = await theirs.reported("nacked", bad)
            assert refused.text == "Proto constraint validation failed: poison"
            ours.claim(later)
            await ours.reported("acked", later)
            assert B.id in made.envoy.routes()
            made.envoy.refuses = ""
            theirs.claim(spec("bad", value="cured"))
            await theirs.reported("acked", bad)


async def test_ports_that_stay_with_the_original_for_a_reason_are_taken(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with sidecar(mesh) as made:
        await until(lambda: made.agent.wants() == ["8080"])
        await made.listen()
        await until(lambda: made.agent.redirects() == ["8080"])
        await made.state(held_back=((PORT, "no-envoy"),))
        assert (await claimant.report(lambda report: bool(report.text))).state == "joined"
        await made.state(held_back=((PORT, "no-listener"),))
        assert await claimant.reported("acked") == Report(
            B.id, "b-1", "acked", "8080: no-listener", up=1, pending=("8080",), identity=IDENTITY
        )
        await made.state(PORT)
        assert (await claimant.report(lambda report: not report.pending)).state == "acked"


async def test_counts_beyond_measure_are_cut_and_harm_nobody(mesh: Control, manager: Manager) -> None:
    most, other = 1 << 53, PodPort(8081)
    with Ann(manager) as ann, Ann(manager, "bob") as bob:
        ours, theirs = Claimant(ann), Claimant(bob)
        one, another = spec("a", Port(8080, "http", 1), Port(8081, "http", 2), mode=PROXY), spec("c")
        ours.claim(one)
        theirs.claim(another, OTHER_AGENTS)
        async with agent_of(mesh, name="evil") as evil, joined(mesh, THEIRS):
            await theirs.reported("acked", another)
            counts = Counts(most, most, most)
            flows, older = ((PORT, counts), (other, counts)), ((PORT, most), (other, most))
            await evil.say(State(older=older, intercepts=((one.id, counts),), flows=flows))
            told = await ours.report(lambda report: report.counts.matched > 0)
            assert told.counts == InterceptCounts(most, most, most, most)
            assert await asyncio.to_thread(manager.ask, lambda: len(manager.control._connections)) == 1
            theirs.claim(spec("c", value="2"), OTHER_AGENTS)
            assert (await theirs.reported("acked", another)).pod == "b-1"


async def test_a_first_word_that_is_no_hello_or_never_comes(
    mesh: Control, claimant: Claimant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "FIRST_SECONDS", 0.1)
    claimant.claim()
    async with channel(mesh, identity()) as line:
        call = line.stream_stream(agent.METHOD)(wait_for_ready=True)
        await call.write(agent.encode(State()))
        assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
        call = line.stream_stream(agent.METHOD)()
        await call.wait_for_connection()
        assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_an_agent_that_floods_is_read_no_faster_than_it_may(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with joined(mesh) as made, joined(mesh, name="flood") as flood:
        states = [agent.encode(State((PORT,), intercepts=((B.id, Counts(number)),))) for number in range(3000)]

        async def pour() -> None:
            for state in states:
                await flood.agent.say(state)

        pouring = asyncio.create_task(pour())
        for number in range(5):
            began = time.perf_counter()
            claimant.claim(spec("b", value=f"quick-{number}"))
            await until(lambda number=number: f"quick-{number}" in made.envoy.routes())  # type: ignore[misc]  # a default in a lambda
            assert time.perf_counter() - began < 0.3
        pouring.cancel()


async def test_an_agent_whose_messages_take_long_to_read_waits(
    mesh: Control, claimant: Claimant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is unknown in a message is skipped, and has to be read before."""
    claimant.claim()
    async with joined(mesh, name="flood") as flood:
        long = json.loads(agent.encode(State((PORT,))))
        long["state"]["unknown"] = [[]] * 300_000
        data = json.dumps(long, separators=(",", ":")).encode()
        assert len(data) < agent.MAX_MESSAGE
        read: list[FromAgent] = []
        decode = agent.decode_from_agent

        def decoded(data: bytes) -> FromAgent:
            read.append(decode(data))
            return read[-1]

        monkeypatch.setattr(agent, "decode_from_agent", decoded)

        async def pour() -> None:
            while True:
                await flood.agent.say(data)

        pouring = asyncio.create_task(pour())
        with suppress(TimeoutError):
            await until(lambda: len(read) > 100, seconds=2)
        pouring.cancel()
        assert 1 <= len(read) <= 8, "20 of them take all of the time"


async def test_a_sidecar_that_went_is_forgotten_after_a_while(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with sidecar(mesh):
        await until(lambda: permitted(mesh) == {20000: {"b-1"}})
    assert permitted(mesh) == {20000: {"b-1"}}, "its routes may outlive its streams"
    await until(lambda: permitted(mesh) == {20000: set()})


async def test_an_envoy_that_begins_anew_is_told_all_before_anything_is_decided_by(
    mesh: Control, claimant: Claimant
) -> None:
    claimant.claim()
    async with joined(mesh) as made:
        await claimant.reported("acked")
        made.envoy.call.cancel()
        await claimant.reported("joined")
        made.agent.redirect = None
        async with envoy_of(mesh) as again:
            await until(lambda: made.agent.redirect is not None and made.agent.redirect.claims)
            assert B.id in again.routes()
            await claimant.reported("acked")


async def test_control_that_begins_anew_learns_everything_and_cuts_nobody(
    mesh: Control, manager: Manager, claimant: Claimant, tmp_path: Path
) -> None:
    claimant.claim()
    async with joined(mesh):
        await claimant.reported("acked")
    mesh.relay.lose()
    async with control(tmp_path, mesh.relay) as second:
        assert second.authority.certificate == mesh.authority.certificate, "agents and Envoys know it as before"
        assert "b-1" in permitted(mesh)[20000]
        async with sidecar(second) as made:
            await until(lambda: made.agent.wants() == ["8080"])
            await made.state(PORT)
            await until(lambda: len(manager.control._connections) == 2)
            assert made.envoy.log == []  # where Envoy listens is not known yet: what it has stays
            await made.listen()
            await made.state(PORT)
            await until(lambda: made.envoy.listens() == ["listener_8080"])
            await claimant.reported("acked")


async def test_a_tunnel_that_begins_anew_is_told_what_holds(
    mesh: Control, manager: Manager, claimant: Claimant
) -> None:
    one = spec("u", Port(9090, "udp", 9090), mode=PROXY)
    claimant.claim(one)

    def allowed() -> set[IPv4Address]:
        return manager.ask(lambda: set(manager.network.relays["udp", 20000][1]))

    async with sidecar(mesh) as made:
        await until(lambda: made.agent.wants() == ["9090/udp"])
        await until(lambda: allowed() == {IPv4Address("127.0.0.1")})
        manager.ask(manager.network.relays["udp", 20000][1].clear)
        manager.ask(manager.control._connections[0].close)
        await until(lambda: allowed() == {IPv4Address("127.0.0.1")})


async def test_a_relay_that_begins_anew_is_told_what_holds(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with joined(mesh):
        await until(lambda: permitted(mesh) == {20000: {"b-1"}})
        mesh.relay.endpoints.clear()
        mesh.relay.identity = None
        mesh.relay.lose()
        await until(lambda: permitted(mesh) == {20000: {"b-1"}} and mesh.relay.identity is not None)
        claimant.withdraw()
        await until(lambda: permitted(mesh) == {})


async def test_the_session_goes_and_the_pods_are_told_to_leave(mesh: Control, ann: Ann, claimant: Claimant) -> None:
    claimant.claim()
    async with joined(mesh) as made:
        await claimant.reported("acked")
        ann.quit()
        await until(lambda: made.agent.want is not None and made.agent.wants() == [])
        await until(lambda: B.id not in made.envoy.routes())


async def test_existing_connections_are_reset_where_a_claim_says_so(mesh: Control, claimant: Claimant) -> None:
    claimant.claim(reset_older=True)
    async with agent_of(mesh) as one:
        await until(lambda: one.wants() == ["8080"])
        assert one.want is not None
        assert one.want.ports[0].reset_older
