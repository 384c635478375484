"""The agents of an intercept and their manager: known before anybody is asked, replaced; capabilities in time."""

import asyncio

import pytest

from meshdev.identity.fingerprints import fingerprint
from meshdev.modes import agents
from meshdev.modes.agents import AT_ONCE, AWAY_SECONDS, RENEW_SECONDS, PodAgents
from meshdev.published import Published
from meshdev.wire.attestation import AgentAnnouncement
from tests.modes.agents_world import FIRST, LOG_PORT, SECOND, AgentsWorld, Pod, pod
from tests.waiting import until


async def test_nobody_is_asked_before_the_manager_is_known(world: AgentsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "MANAGER_SECONDS", 0.05)
    world.manager_certificate = Published(None)
    world.watched(pod("a"))
    await until(lambda: "its container control does not run" in world.agents.unknown.get("a", ""))
    assert world.tried == 0
    world.manager_certificate.publish(SECOND)
    await until(lambda: world.has("a"))
    assert world.pods["a"].manager == SECOND


async def test_what_the_manager_issued_is_handed_over_and_waited_for(
    world: AgentsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "ISSUE_SECONDS", 0.05)
    world.may_issue.clear()
    world.watched(pod("a"))
    why = "the manager at 10.96.0.5:15010 has issued no certificate for it within"
    await until(lambda: why in world.agents.unknown.get("a", ""))
    assert world.pods["a"].introduced is None
    await until(world.has)
    world.may_issue.set()
    await until(lambda: world.has("a") and world.agents.unknown == {})
    assert world.pods["a"].introduced == (FIRST, b"issued for a")


async def test_an_agent_that_takes_another_manager_is_no_part_of_the_claim(world: AgentsWorld) -> None:
    world.pods["a"] = Pod({LOG_PORT: b"a"}, AgentAnnouncement(LOG_PORT, fingerprint(b"a")), refuses="another one")
    world.watched(pod("a"))
    await until(lambda: "does not take this connection's manager: another one" in world.agents.unknown.get("a", ""))
    await until(world.has)
    world.pods["a"].refuses = ""
    await until(lambda: world.has("a") and world.agents.unknown == {})


async def test_one_that_does_not_take_the_manager_yet_is_asked_each_second_for_a_while(
    world: AgentsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection to the former was cut without a word, and it waits for that one."""
    pauses: list[float] = []

    async def pause(_self: PodAgents, _known: object, seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    world.watched(pod("a"))
    await until(lambda: world.has("a") and world.agents.unknown == {})
    world.pods["a"].refuses = "not lost"
    monkeypatch.setattr(PodAgents, "_pause", pause)
    monkeypatch.setattr(agents, "REPLACED_SECONDS", 0.0)
    world.manager_certificate.publish(SECOND)
    await until(lambda: len(pauses) > 30)
    world.pods["a"].refuses = ""
    await until(lambda: world.pods["a"].manager == SECOND)
    assert 1.5 * max(pauses[:15]) <= 1
    assert 5 < sum(pauses[:15]) < 10, "as long as the agent waits for the former"
    assert max(pauses) == 5


async def test_after_a_replacement_those_that_do_not_come_back_learn_of_the_new_one(
    world: AgentsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "REPLACED_SECONDS", 0.02)
    world.watched(pod("a"), pod("b"), pod("c"))
    await until(lambda: world.has("a", "b", "c") and world.agents.unknown == {})
    for name in "abc":
        world.report(name, "acked")
    world.manager_certificate.publish(SECOND)
    await asyncio.sleep(0)
    world.report("b", "acked")  # by another session's doing
    world.report("c", "joined")  # what the session says of a former manager's pods
    await until(lambda: world.pods["a"].manager == world.pods["c"].manager == SECOND)
    await asyncio.sleep(0.05)
    assert (world.pods["b"].manager, world.attested) == (FIRST, 5)
    assert world.has("a", "b", "c")
    world.report("b", "gone")
    await until(lambda: world.pods["b"].manager == SECOND)


async def test_many_learn_of_it_few_at_a_time_and_their_edges_stay(world: AgentsWorld) -> None:
    names = [f"p-{number}" for number in range(100)]
    world.watched(*map(pod, names))
    await until(lambda: world.has(*names) and world.agents.unknown == {})
    world.most, claims = 0, len(world.claims)
    world.manager_certificate.publish(SECOND)
    await until(lambda: all(world.pods[name].manager == SECOND for name in names))
    assert world.most <= AT_ONCE
    assert all(len(each) == len(names) for each in world.claims[claims:])


# -- in time -----------------------------------------------------------------------------------------------------------


async def test_a_capability_is_renewed_and_the_edge_stays_meanwhile(world: AgentsWorld) -> None:
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


async def test_one_that_left_the_manager_and_runs_is_attested_again_now_and_then(world: AgentsWorld) -> None:
    world.watched(pod("a"), pod("b"))
    await until(lambda: world.has("a", "b") and world.agents.unknown == {})
    for name in "ab":
        world.report(name, "acked")
    world.report("a", "gone")
    world.now += AWAY_SECONDS - 1
    world.report("a", "gone")
    await asyncio.sleep(0.05)
    assert world.attested == 2
    for turn in (3, 4):
        world.now += AWAY_SECONDS
        await until(lambda turn=turn: world.attested == turn and world.idle)  # type: ignore[misc]  # a default in a lambda
        await asyncio.sleep(0.05)
        assert world.attested == turn
    assert world.has("a", "b")
    world.report("a", "joined")
    world.now += AWAY_SECONDS
    await asyncio.sleep(0.05)
    assert world.attested == 4, "it is back"
    world.report("a", "gone")
    world.watched(pod("a", ""), pod("b"))
    world.now += 2 * AWAY_SECONDS
    await asyncio.sleep(0.05)
    assert world.attested == 4, "its container does not run"


async def test_one_that_cannot_be_renewed_is_tried_again_and_stays(world: AgentsWorld) -> None:
    world.watched(pod("a"))
    await until(lambda: world.has("a") and world.agents.unknown == {})
    world.broken = {"a"}
    world.now += RENEW_SECONDS
    await until(lambda: world.tried > 3)
    assert (world.proof(), world.agents.unknown) == ("proof 1", {})
    world.broken = set()
    await until(lambda: world.proof() == "proof 2")


async def test_after_a_machine_was_suspended_for_long_the_new_proof_counts_at_once(
    world: AgentsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "SETTLE_SECONDS", 60.0)
    world.watched(pod("a"))
    await until(lambda: world.has("a") and world.agents.unknown == {})
    world.now += 2 * 3600
    await until(lambda: world.proof() == "proof 2")


async def test_one_that_goes_while_it_is_attested_does_not_come_back(world: AgentsWorld) -> None:
    world.may_answer.clear()
    world.watched(pod("a"))
    await until(lambda: world.attesting == 1)
    world.watched()
    world.may_answer.set()
    await until(lambda: world.idle)
    assert world.has()
