"""The agents of an intercept: fetched as they begin to run, few at a time, tried again, forgotten when they go."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from meshdev.errors import ClusterError
from meshdev.kube.replicas import Replica, Sidecar
from meshdev.modes import agents as module
from meshdev.modes.agents import AT_ONCE, Agents
from meshdev.modes.link import Claim, Link
from meshdev.sidecar.join.container import SidecarSpec
from tests.waiting import until

SPEC = SidecarSpec("sidecar:1", "10.96.0.5:15010", "default", "w")


def pod(name: str, instance: str = "containerd://1", **more: Any) -> Replica:
    state: Any = "running" if instance else "starting"
    how = {"workload": "w", "instance": instance, **more}
    ours = Sidecar("meshdev-1", "ephemeral", state, SPEC.manager, "default", "sidecar:1", **how)
    return Replica("default", name, f"uid-{name}", "10.244.0.7", "node1", True, False, (ours,))


def key(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class World:
    """The link and the claim. Tokens are the pods' names; a pod in *broken* has none."""

    def __init__(self) -> None:
        self.agents = Agents(cast("Link", self), SPEC, cast("Claim", self), self.changed)
        self.broken: set[str] = set()
        self.ports: dict[str, int] = {}
        self.asked = 0
        self.keys: set[str] = set()
        self.told = 0
        self.fetching = self.most = self.fetched = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def agent_token(self, _namespace: str, name: str, _container: str) -> str:
        self.fetching += 1
        self.most = max(self.most, self.fetching)
        try:
            await self.may_answer.wait()
        finally:
            self.fetching -= 1
        self.fetched += 1
        if name in self.broken:
            raise ClusterError(f"{name} is broken")
        return name

    async def agent_token_at(self, _namespace: str, name: str, port: int) -> str:
        self.asked += 1
        if self.ports.get(name) != port:
            raise ClusterError(f"nothing answers on port {port}")
        return name

    def claim(self, keys: Collection[str]) -> None:
        self.keys = set(keys)

    def changed(self, _unknown: Mapping[str, str]) -> None:
        self.told += 1

    def watched(self, *pods: Replica) -> None:
        self.agents.watched({each.uid: each for each in pods})

    def has(self, *names: str) -> bool:
        return self.keys == {key(name) for name in names}


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    made = World()
    made.agents._claim = cast("Claim", _Claim(made))
    async with _running(made):
        yield made


class _Claim:
    def __init__(self, world: World) -> None:
        self.agents = world.claim


@asynccontextmanager
async def _running(world: World) -> AsyncIterator[None]:
    task = asyncio.ensure_future(world.agents.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def test_those_that_run_are_named_and_those_that_went_are_not(world: World) -> None:
    world.watched(pod("a"), pod("b"), pod("c", instance=""))
    await until(lambda: world.has("a", "b"))
    assert world.agents.unknown == {}
    world.watched(pod("b"), pod("c"))
    assert world.has("b")
    await until(lambda: world.has("b", "c"))
    world.watched()
    assert world.has()
    assert world.fetched == 3


async def test_only_sidecars_of_this_manager_and_workload_are_asked(world: World) -> None:
    world.watched(pod("a"), pod("b", workload="other"), pod("c", workload=""))
    await until(lambda: world.has("a"))
    assert (world.fetched, world.agents.unknown) == (1, {})


async def test_one_that_is_started_again_is_fetched_again(world: World) -> None:
    world.watched(pod("a"))
    await until(lambda: world.fetched == 1)
    world.watched(pod("a", instance=""))
    assert world.has()
    world.watched(pod("a", instance="containerd://2"))
    await until(lambda: world.has("a"))
    assert world.fetched == 2


async def test_one_that_fails_is_told_and_tried_again_and_keeps_nobody_out(world: World) -> None:
    world.broken = {"a"}
    world.watched(pod("a"), pod("b"))
    await until(lambda: world.has("b") and world.fetched > 4)
    assert world.agents.unknown == {"a": "a is broken"}
    world.broken = set()
    await until(lambda: world.has("a", "b"))
    assert world.agents.unknown == {}
    world.broken = {"c"}
    world.watched(pod("a"), pod("c"))
    await until(lambda: world.agents.unknown == {"c": "c is broken"})
    world.watched(pod("a"))
    assert world.agents.unknown == {}
    for _ in range(5):  # a try that is under way ends
        await asyncio.sleep(0)
    tries = world.fetched
    await asyncio.sleep(0.05)
    assert world.fetched == tries, "one that is gone is not asked for"


async def test_a_thousand_at_once_are_fetched_few_at_a_time(world: World) -> None:
    world.may_answer.clear()
    names = [f"p-{number}" for number in range(1000)]
    world.watched(*map(pod, names))
    await until(lambda: world.fetching == AT_ONCE)
    assert world.agents.unknown == dict.fromkeys(names, "")
    world.may_answer.set()
    await until(lambda: world.has(*names))
    assert world.most == AT_ONCE


async def test_one_with_an_assigned_port_is_asked_there_before_it_is_known_to_run(world: World) -> None:
    world.watched(pod("a", instance="", token_port=16201))
    await until(lambda: world.asked > 2)
    assert world.agents.unknown == {}, "it starts: there is nothing to wonder about"
    world.ports["a"] = 16201
    await until(lambda: world.has("a"))
    world.watched(pod("a", token_port=16201))
    assert world.has("a")
    assert (world.fetched, world.agents.unknown) == (0, {}), "its log is not read"
    world.watched()
    assert world.has()


async def test_the_log_is_read_where_the_assigned_port_does_not_answer(world: World) -> None:
    world.watched(pod("a", instance="", token_port=16201))
    await until(lambda: world.asked > 1)
    assert world.fetched == 0, "a container that does not run has no log"
    world.broken = {"a"}
    world.watched(pod("a", token_port=16201))
    await until(lambda: world.agents.unknown == {"a": "a is broken"})
    world.broken = set()
    await until(lambda: world.has("a"))
