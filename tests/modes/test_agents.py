"""The agents of an intercept: attested as they begin to run, confirmed by their logs, few at a time."""

import asyncio
from collections.abc import Iterable

import pytest

from meshdev.identity.fingerprints import fingerprint
from meshdev.modes import agents
from meshdev.modes.agents import AT_ONCE
from meshdev.wire.attestation import AgentAnnouncement
from meshdev.wire.intercepts import AttestedAgent
from tests.modes.agents_world import FIRST, LOG_PORT, PORT, AgentsWorld, Pod, pod
from tests.waiting import until

# -- as pods come and go -----------------------------------------------------------------------------------------------


async def test_those_that_run_are_named_and_those_that_went_are_not(world: AgentsWorld) -> None:
    world.watched(pod("a"), pod("b"), pod("c", instance=""))
    await until(lambda: world.has("a", "b"))
    await until(lambda: world.agents.unknown == {})
    world.watched(pod("b"), pod("c"))
    assert world.has("b")
    await until(lambda: world.has("b", "c"))
    world.watched()
    assert world.has()
    assert world.attested == 3


async def test_the_claim_names_an_agent_before_it_learns_of_the_manager(world: AgentsWorld) -> None:
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


async def test_only_sidecars_of_this_manager_and_workload_are_asked(world: AgentsWorld) -> None:
    world.watched(pod("a"), pod("b", workload="other"), pod("c", workload=""))
    await until(lambda: world.has("a") and world.agents.unknown == {})
    assert world.tried == 1


async def test_one_that_is_started_again_is_attested_again(world: AgentsWorld) -> None:
    world.watched(pod("a"))
    await until(lambda: world.has("a"))
    world.watched(pod("a", instance=""))
    assert world.has()
    world.watched(pod("a", instance="containerd://2"))
    await until(lambda: world.has("a"))
    assert world.attested == 2


async def test_one_that_fails_is_told_and_tried_again_and_keeps_nobody_out(world: AgentsWorld) -> None:
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


async def test_a_thousand_at_once_are_attested_few_at_a_time(world: AgentsWorld) -> None:
    world.may_answer.clear()
    names = [f"p-{number}" for number in range(1000)]
    world.watched(*map(pod, names))
    await until(lambda: world.attesting == AT_ONCE)
    assert world.agents.unknown == dict.fromkeys(names, "")
    world.may_answer.set()
    await until(lambda: world.has(*names))
    assert world.most == AT_ONCE


# -- the assigned port and the log -------------------------------------------------------------------------------------


async def test_one_with_an_assigned_port_is_asked_there_before_it_is_known_to_run(world: AgentsWorld) -> None:
    world.pods["a"] = Pod()
    world.watched(pod("a", instance="", attestation_port=PORT))
    await until(lambda: world.tried > 2)
    assert world.agents.unknown == {}, "it starts: there is nothing to wonder about"
    world.pods["a"].answers[PORT] = b"a"
    await until(lambda: world.has("a"))
    assert world.read == 0, "a container that is not known to run has no log"


async def test_the_log_confirms_it_as_soon_as_it_can_be_read(world: AgentsWorld) -> None:
    world.pods["a"] = Pod({PORT: b"a"}, AgentAnnouncement(PORT, fingerprint(b"a")))
    world.watched(pod("a", instance="", attestation_port=PORT))
    await until(lambda: world.has("a"))
    world.watched(pod("a", attestation_port=PORT))
    await until(lambda: world.read == 1)
    await asyncio.sleep(0.05)
    assert (world.read, world.attested, world.proof()) == (1, 1, "proof 1"), "once, and that was that"
    world.watched()
    assert world.has()


async def test_a_process_that_took_the_port_first_is_found_out(world: AgentsWorld) -> None:
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


async def test_why_the_agent_that_the_log_names_is_not_attested_stays(
    world: AgentsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "REPLACED_SECONDS", 0.01)
    world.pods["a"] = Pod({PORT: b"thief"}, AgentAnnouncement(LOG_PORT, fingerprint(b"a")))
    world.watched(pod("a", attestation_port=PORT))
    why = {"a": f"nothing answers on port {LOG_PORT}"}
    await until(lambda: world.agents.unknown == why)
    reads = world.read
    world.reasons.clear()
    await until(lambda: world.read > reads + 1)
    assert all(each == why for each in world.reasons)


async def test_a_log_that_cannot_be_read_takes_nothing_away(world: AgentsWorld) -> None:
    world.pods["a"] = Pod({PORT: b"a"})
    world.watched(pod("a", attestation_port=PORT))
    await until(lambda: world.has("a") and world.read > 2)
    assert world.agents.unknown == {}
    world.pods["a"].named = AgentAnnouncement(PORT, fingerprint(b"a"))
    reads = world.read
    await until(lambda: world.read > reads)
    await asyncio.sleep(0.05)
    assert (world.has("a"), world.attested) == (True, 1)


async def test_the_log_is_read_where_the_assigned_port_does_not_answer(world: AgentsWorld) -> None:
    world.pods["a"] = Pod({LOG_PORT: b"a"})
    world.watched(pod("a", instance="", attestation_port=PORT))
    await until(lambda: world.tried > 1)
    assert world.read == 0
    world.watched(pod("a", attestation_port=PORT))
    await until(lambda: world.agents.unknown == {"a": "a is broken"})
    world.pods["a"].named = AgentAnnouncement(LOG_PORT, fingerprint(b"a"))
    await until(lambda: world.has("a"))


async def test_whoever_answers_with_another_key_than_the_log_names_is_not_taken(world: AgentsWorld) -> None:
    world.pods["a"] = Pod({LOG_PORT: b"thief"}, AgentAnnouncement(LOG_PORT, fingerprint(b"a")))
    world.watched(pod("a"))
    await until(lambda: world.agents.unknown == {"a": "another key"})
    assert world.has()
