"""The agents of an intercept: attested as they begin to run, confirmed by their logs, few at a time, again in time."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from meshdev.errors import ClusterError
from meshdev.identity.fingerprints import fingerprint
from meshdev.kube.attestation import AgentAddress, Attested, Introduce
from meshdev.kube.replicas import Replica, Sidecar
from meshdev.modes import agents as module
from meshdev.modes.agents import AT_ONCE, RENEW_SECONDS, PodAgents
from meshdev.modes.link import Claim, Link
from meshdev.published import Published
from meshdev.sidecar.join.container import SidecarSpec
from meshdev.wire.attestation import AgentAnnouncement
from meshdev.wire.intercepts import AttestedAgent, Report, ReportState
from tests.waiting import until

SPEC = SidecarSpec("sidecar:1", "10.96.0.5:15010", "default", "w")
FIRST, SECOND = b"first manager", b"second manager"
LOG_PORT, PORT = 16350, 16201


def pod(name: str, instance: str = "containerd://1", **more: Any) -> Replica:
    state: Any = "running" if instance else "starting"
    how = {"workload": "w", "instance": instance, **more}
    ours = Sidecar("meshdev-1", "ephemeral", state, SPEC.manager, "default", "sidecar:1", **how)
    return Replica("default", name, f"uid-{name}", "10.244.0.7", "node1", True, False, (ours,))


@dataclass
class Pod:
    """What answers in a pod, by port; certificates are texts. What its log names, once that can be read."""

    answers: dict[int, bytes] = field(default_factory=dict)
    named: AgentAnnouncement | None = None
    manager: bytes | None = None
    refuses: str = ""


class World:
    """The link and the claim. A pod's agent has the pod's name as its certificate; in *broken* nothing answers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.notes: list[str] = []
        self.agents = PodAgents(
            cast("Link", self),
            SPEC,
            cast("Claim", _Claim(self)),
            changed=self.changed,
            note=self.notes.append,
            clock=lambda: self.now,
        )
        self.manager_certificate: Published[bytes | None] = Published(FIRST)
        self.pods: dict[str, Pod] = {}
        self.broken: set[str] = set()
        self.claimed: tuple[AttestedAgent, ...] = ()
        self.claims: list[frozenset[tuple[str, str]]] = []
        self.told = self.read = self.tried = self.attested = 0
        self.attesting = self.most = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def announced(self, _namespace: str, name: str, _container: str) -> AgentAnnouncement:
        await asyncio.sleep(0)
        self.read += 1
        found = self._there(name).named
        if found is None or name in self.broken:
            raise ClusterError(f"{name} is broken")
        return found

    async def attest(self, agent: AgentAddress, introduce: Introduce) -> Attested:
        self.attesting += 1
        self.tried += 1
        self.most = max(self.most, self.attesting)
        try:
            await self.may_answer.wait()
            return await self._attest(agent, introduce)
        finally:
            self.attesting -= 1

    def _there(self, name: str) -> Pod:
        key = name.encode()
        return self.pods.setdefault(name, Pod({LOG_PORT: key}, AgentAnnouncement(LOG_PORT, fingerprint(key))))

    async def _attest(self, agent: AgentAddress, introduce: Introduce) -> Attested:
        there = self._there(agent.pod)
        certificate = there.answers.get(agent.port)
        if certificate is None or agent.pod in self.broken:
            raise ClusterError(f"nothing answers on port {agent.port}")
        if agent.fingerprint not in (None, fingerprint(certificate)):
            raise ClusterError("another key")
        assert agent.uid == f"uid-{agent.pod}"
        self.attested += 1
        proof = f"proof {self.attested}"
        manager = await introduce(certificate, proof)
        if there.refuses:
            return Attested(certificate, fingerprint(certificate), proof, False, there.refuses)
        there.manager = manager
        return Attested(certificate, fingerprint(certificate), proof, True)

    def claim(self, agents: Iterable[AttestedAgent]) -> None:
        self.claimed = tuple(agents)
        self.claims.append(frozenset((each.pod, each.proof) for each in self.claimed))

    def changed(self, _unknown: Mapping[str, str]) -> None:
        self.told += 1

    def watched(self, *pods: Replica) -> None:
        self.agents.watched({each.uid: each for each in pods})

    def has(self, *names: str) -> bool:
        assert all(each.uid == f"uid-{each.pod}" for each in self.claimed)
        return sorted(each.certificate for each in self.claimed) == sorted(name.encode() for name in names)

    def proof(self) -> str:
        (one,) = self.claimed
        return one.proof

    def report(self, name: str, state: ReportState) -> None:
        self.agents.reported(Report("1" * 32, name, state))

    @property
    def idle(self) -> bool:
        return self.attesting == 0


class _Claim:
    def __init__(self, world: World) -> None:
        self.agents = world.claim


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.05)
    made = World()
    async with _running(made):
        yield made


@asynccontextmanager
async def _running(world: World) -> AsyncIterator[None]:
    task = asyncio.ensure_future(world.agents.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


# -- as pods come and go -----------------------------------------------------------------------------------------------


async def test_those_that_run_are_named_and_those_that_went_are_not(world: World) -> None:
    world.watched(pod("a"), pod("b"), pod("c", instance=""))
    await until(lambda: world.has("a", "b"))
    await until(lambda: world.agents.unknown == {})
    world.watched(pod("b"), pod("c"))
    assert world.has("b")
    await until(lambda: world.has("b", "c"))
    world.watched()
    assert world.has()
    assert world.attested == 3


async def test_the_claim_names_an_agent_before_it_learns_of_the_manager(world: World) -> None:
    world.pods["a"] = Pod({LOG_PORT: b"a"}, AgentAnnouncement(LOG_PORT, fingerprint(b"a")))
    seen: list[bytes | None] = []
    record = world.claim

    def claim(agents: Iterable[AttestedAgent]) -> None:
        record(agents)
        seen.append(world.pods["a"].manager)

    world.agents._claim.agents = claim  # type: ignore[method-assign] # a function that looks
    world.watched(pod("a"))
    await until(lambda: world.agents.unknown == {})
    assert seen == [None], "once, and first"
    assert world.pods["a"].manager == FIRST
    assert world.claimed == (AttestedAgent(b"a", "proof 1", "a", "uid-a"),)


async def test_only_sidecars_of_this_manager_and_workload_are_asked(world: World) -> None:
    world.watched(pod("a"), pod("b", workload="other"), pod("c", workload=""))
    await until(lambda: world.has("a") and world.agents.unknown == {})
    assert world.tried == 1


async def test_one_that_is_started_again_is_attested_again(world: World) -> None:
    world.watched(pod("a"))
    await until(lambda: world.has("a"))
    world.watched(pod("a", instance=""))
    assert world.has()
    world.watched(pod("a", instance="containerd://2"))
    await until(lambda: world.has("a"))
    assert world.attested == 2


async def test_one_that_fails_is_told_and_tried_again_and_keeps_nobody_out(world: World) -> None:
    world.broken = {"a"}
    world.watched(pod("a"), pod("b"))
    await until(lambda: world.has("b") and world.read > 4)
    await until(lambda: world.agents.unknown == {"a": "a is broken"})
    world.broken = set()
    await until(lambda: world.has("a", "b") and world.agents.unknown == {})
    world.broken = {"c"}
    world.watched(pod("a"), pod("c"))
    await until(lambda: world.agents.unknown == {"c": "c is broken"})
    world.watched(pod("a"))
    assert world.agents.unknown == {}
    for _ in range(5):  # a try that is under way ends
        await asyncio.sleep(0)
    tries = world.read
    await asyncio.sleep(0.05)
    assert world.read == tries, "one that is gone is not asked for"


async def test_a_thousand_at_once_are_attested_few_at_a_time(world: World) -> None:
    world.may_answer.clear()
    names = [f"p-{number}" for number in range(1000)]
    world.watched(*map(pod, names))
    await until(lambda: world.attesting == AT_ONCE)
    assert world.agents.unknown == dict.fromkeys(names, "")
    world.may_answer.set()
    await until(lambda: world.has(*names))
    assert world.most == AT_ONCE


# -- the assigned port and the log -------------------------------------------------------------------------------------


async def test_one_with_an_assigned_port_is_asked_there_before_it_is_known_to_run(world: World) -> None:
    world.pods["a"] = Pod()
    world.watched(pod("a", instance="", attestation_port=PORT))
    await until(lambda: world.tried > 2)
    assert world.agents.unknown == {}, "it starts: there is nothing to wonder about"
    world.pods["a"].answers[PORT] = b"a"
    await until(lambda: world.has("a"))
    assert world.read == 0, "a container that is not known to run has no log"


async def test_the_log_confirms_it_as_soon_as_it_can_be_read(world: World) -> None:
    world.pods["a"] = Pod({PORT: b"a"}, AgentAnnouncement(PORT, fingerprint(b"a")))
    world.watched(pod("a", instance="", attestation_port=PORT))
    await until(lambda: world.has("a"))
    world.watched(pod("a", attestation_port=PORT))
    await until(lambda: world.read == 1)
    await asyncio.sleep(0.05)
    assert (world.read, world.attested, world.proof()) == (1, 1, "proof 1"), "once, and that was that"
    world.watched()
    assert world.has()


async def test_a_process_that_took_the_port_first_is_found_out(world: World) -> None:
    world.pods["a"] = Pod({PORT: b"thief"}, AgentAnnouncement(LOG_PORT, fingerprint(b"a")))
    world.watched(pod("a", instance="", attestation_port=PORT))
    await until(lambda: world.has("thief"))
    world.watched(pod("a", attestation_port=PORT))
    await until(world.has)
    await until(lambda: world.agents.unknown == {"a": f"nothing answers on port {LOG_PORT}"})
    assert world.notes == ["pod a: another process answered on the port of the sidecar's agent, and is left out"]
    world.pods["a"].answers[LOG_PORT] = b"a"
    await until(lambda: world.has("a") and world.agents.unknown == {})
    assert len(world.notes) == 1


async def test_a_log_that_cannot_be_read_takes_nothing_away(world: World) -> None:
    world.pods["a"] = Pod({PORT: b"a"})
    world.watched(pod("a", attestation_port=PORT))
    await until(lambda: world.has("a") and world.read > 2)
    assert world.agents.unknown == {}
    world.pods["a"].named = AgentAnnouncement(PORT, fingerprint(b"a"))
    reads = world.read
    await until(lambda: world.read > reads)
    await asyncio.sleep(0.05)
    assert (world.has("a"), world.attested) == (True, 1)


async def test_the_log_is_read_where_the_assigned_port_does_not_answer(world: World) -> None:
    world.pods["a"] = Pod({LOG_PORT: b"a"})
    world.watched(pod("a", instance="", attestation_port=PORT))
    await until(lambda: world.tried > 1)
    assert world.read == 0
    world.watched(pod("a", attestation_port=PORT))
    await until(lambda: world.agents.unknown == {"a": "a is broken"})
    world.pods["a"].named = AgentAnnouncement(LOG_PORT, fingerprint(b"a"))
    await until(lambda: world.has("a"))


async def test_whoever_answers_with_another_key_than_the_log_names_is_not_taken(world: World) -> None:
    world.pods["a"] = Pod({LOG_PORT: b"thief"}, AgentAnnouncement(LOG_PORT, fingerprint(b"a")))
    world.watched(pod("a"))
    await until(lambda: world.agents.unknown == {"a": "another key"})
    assert world.has()


# -- the manager -------------------------------------------------------------------------------------------------------


async def test_nobody_is_asked_before_the_manager_is_known(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MANAGER_SECONDS", 0.05)
    world.manager_certificate = Published(None)
    world.watched(pod("a"))
    await until(lambda: "its container control does not run" in world.agents.unknown.get("a", ""))
    assert world.tried == 0
    world.manager_certificate.publish(SECOND)
    await until(lambda: world.has("a"))
    assert world.pods["a"].manager == SECOND


async def test_an_agent_that_takes_another_manager_is_no_part_of_the_claim(world: World) -> None:
    world.pods["a"] = Pod({LOG_PORT: b"a"}, AgentAnnouncement(LOG_PORT, fingerprint(b"a")), refuses="another one")
    world.watched(pod("a"))
    await until(lambda: "does not take this connection's manager: another one" in world.agents.unknown.get("a", ""))
    await until(world.has)
    world.pods["a"].refuses = ""
    await until(lambda: world.has("a") and world.agents.unknown == {})


async def test_after_a_replacement_those_that_do_not_come_back_learn_of_the_new_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPLACED_SECONDS", 0.2)
    world.watched(pod("a"), pod("b"), pod("c"))
    await until(lambda: world.has("a", "b", "c") and world.agents.unknown == {})
    for name in "abc":
        world.report(name, "acked")
    world.manager_certificate.publish(SECOND)
    await asyncio.sleep(0)
    world.report("b", "acked")  # by another session's doing
    world.report("c", "joined")  # what the session says of a former manager's pods
    await until(lambda: world.pods["a"].manager == world.pods["c"].manager == SECOND)
    await asyncio.sleep(0.3)
    assert (world.pods["b"].manager, world.attested) == (FIRST, 5)
    assert world.has("a", "b", "c")
    world.report("b", "gone")
    await until(lambda: world.pods["b"].manager == SECOND)


async def test_many_learn_of_it_few_at_a_time_and_their_edges_stay(world: World) -> None:
    names = [f"p-{number}" for number in range(100)]
    world.watched(*map(pod, names))
    await until(lambda: world.has(*names) and world.agents.unknown == {})
    world.most, claims = 0, len(world.claims)
    world.manager_certificate.publish(SECOND)
    await until(lambda: all(world.pods[name].manager == SECOND for name in names))
    assert world.most <= AT_ONCE
    assert all(len(each) == len(names) for each in world.claims[claims:])


# -- in time -----------------------------------------------------------------------------------------------------------


async def test_a_capability_is_renewed_and_the_edge_stays_meanwhile(world: World) -> None:
    world.watched(pod("a"))
    await until(lambda: world.has("a") and world.agents.unknown == {})
    before = len(world.claims)
    world.now += RENEW_SECONDS
    await until(lambda: world.attested == 2 and world.idle)
    assert world.proof() == "proof 1", "the agent may not have shown the new one yet"
    await until(lambda: world.proof() == "proof 2")
    assert world.claims[before:] == [{("a", "proof 2")}]
    await asyncio.sleep(0.05)
    assert world.attested == 2


async def test_one_that_cannot_be_renewed_is_tried_again_and_stays(world: World) -> None:
    world.watched(pod("a"))
    await until(lambda: world.has("a") and world.agents.unknown == {})
    world.broken = {"a"}
    world.now += RENEW_SECONDS
    await until(lambda: world.tried > 3)
    assert (world.proof(), world.agents.unknown) == ("proof 1", {})
    world.broken = set()
    await until(lambda: world.proof() == "proof 2")


async def test_after_a_machine_was_suspended_for_long_the_new_proof_counts_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 60.0)
    world.watched(pod("a"))
    await until(lambda: world.has("a") and world.agents.unknown == {})
    world.now += 2 * 3600
    await until(lambda: world.proof() == "proof 2")


async def test_one_that_goes_while_it_is_attested_does_not_come_back(world: World) -> None:
    world.may_answer.clear()
    world.watched(pod("a"))
    await until(lambda: world.attesting == 1)
    world.watched()
    world.may_answer.set()
    await until(lambda: world.idle)
    assert world.has()
