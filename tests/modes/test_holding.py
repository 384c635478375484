"""One intercept against a cluster that keeps state: what is put there, and that all of it goes again."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from meshdev.errors import AdmissionError, CredentialError, FirewallError, ForbiddenError, InterceptError
from meshdev.intercept.lease import name_of
from meshdev.intercept.match import HeaderMatch, Match
from meshdev.kube import leases
from meshdev.kube.client import KubeApi
from meshdev.kube.observing import Observer
from meshdev.modes import holding, keeping, pods
from meshdev.modes.pods import Pods
from tests.kube.fake_api import FakeApi
from tests.kube.objects import pod, put_pod, workload
from tests.modes.world import LEASES, World
from tests.waiting import until


async def test_it_comes_up_follows_new_pods_and_leaves(fake: FakeApi, api: KubeApi) -> None:
    world = World(fake, api)
    async with world.holding_it():
        await world.comes_up()
        status = world.status()
        assert (status.target, status.state, status.acked, status.total) == ("deployment/b", "active", 1, 1)
        assert (status.match, status.ports, status.strategy) == ("a=1", ("8080:8080/http",), "ephemeral")
        assert world.link.claims[0].was_proven
        there = await leases.all_of(api)
        assert [each.holder for each in there.records] == ["jane@laptop"]
        put_pod(fake, pod("b-2", workload()))
        await until(lambda: world.sidecars("b-2") == ["meshdev-1"])
    assert world.link.withdrawn_before_the_lease
    assert fake.names(*LEASES) == []
    assert [told.split(":")[0] for told in world.progress.told if told[0] not in "…!"] == ["target", "sidecar", "route"]


async def test_the_lease_says_that_it_is_active(fake: FakeApi, api: KubeApi) -> None:
    world = World(fake, api)
    async with world.holding_it():
        await world.comes_up()
        async for there in leases.watch_workload(api, world.link.spec.workload):  # type: ignore[union-attr]  # it is up
            if there.records[0].status.state == "active":
                break


@pytest.mark.parametrize("at", ["claim", "sidecar", "route"])
async def test_cancelled_on_the_way_nothing_is_left(fake: FakeApi, api: KubeApi, at: str) -> None:
    world = World(fake, api)
    async with world.holding_it():
        await until(lambda: world.link.spec is not None)
        if at != "claim":
            await until(world.sidecars)
        if at == "route":
            world.link.report(state="joined")
    world.nothing_left()


async def test_cancelled_while_something_is_created_it_is_deleted(fake: FakeApi, api: KubeApi) -> None:
    world = World(fake, api)
    task = asyncio.ensure_future(world.run())
    fake.created = partial(_cancel, task, "leases")
    await asyncio.wait([task])
    assert task.cancelled()
    world.nothing_left()


def _cancel(task: asyncio.Future[None], resource: str, made: str, _item: dict[str, Any]) -> None:
    if made == resource:
        task.cancel()


async def test_what_keeps_it_from_coming_up_undoes_it(fake: FakeApi, api: KubeApi) -> None:
    world = World(fake, api)
    world.link.trouble = FirewallError("dropped")
    with pytest.raises(FirewallError, match="dropped"):
        await world.run()
    world.nothing_left()
    assert world.sidecars() == []


async def test_a_refused_sidecar_is_known_before_anything_is_touched(fake: FakeApi, api: KubeApi) -> None:
    fake.refuse = {"patch": (403, 'pods "b-1" is forbidden: violates PodSecurity "baseline:latest"')}
    world = World(fake, api)
    with pytest.raises(AdmissionError, match="violates PodSecurity"):
        await world.run()
    world.nothing_left()
    assert not any(asked.verb == "create" and asked.resource == "leases" for asked in fake.asked)


async def test_a_nack_ends_it_before_it_is_up(fake: FakeApi, api: KubeApi) -> None:
    world = World(fake, api)
    task = asyncio.ensure_future(world.run())
    await until(world.sidecars)
    world.link.report(state="nacked", text="bad regex")
    with pytest.raises(InterceptError, match="bad regex"):
        await task
    world.nothing_left()


async def test_who_takes_it_over_ends_it(fake: FakeApi, api: KubeApi) -> None:
    world = World(fake, api)
    task = asyncio.ensure_future(world.run())
    await world.comes_up()
    assert world.link.spec is not None
    theirs = replace(world.link.spec, id=f"{2:032x}")
    other = await leases.take(api, theirs, "joe@pc", "default", observer=Observer(), takeover=True)
    with pytest.raises(InterceptError, match="not yours any more: joe@pc has it"):
        await task
    assert fake.names(*LEASES) == [f"default/{other.object['metadata']['name']}"]


async def test_hostile_leases_are_told_and_change_nothing(fake: FakeApi, api: KubeApi) -> None:
    world = World(fake, api)
    async with world.holding_it():
        await world.comes_up()
        mine = next(iter(fake.objects["coordination.k8s.io", "leases"].values()))
        labels = mine["metadata"]["labels"]
        fake.put("leases", {"metadata": {"name": "evil", "labels": labels}, "spec": {}}, group="coordination.k8s.io")
        await until(lambda: any("evil" in note for note in world.status().notes))
        assert world.up


def _delete_lease_of(world: World) -> None:
    assert world.link.spec is not None
    world.fake.remove("leases", name_of(world.link.spec), group="coordination.k8s.io")


async def test_a_lease_that_somebody_deleted_ends_it_and_names_nobody_else(
    fake: FakeApi, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "SUCCESSOR_SECONDS", 0.05)
    world = World(fake, api)
    task = asyncio.ensure_future(world.run())
    await world.comes_up()
    assert world.link.spec is not None
    another = replace(world.link.spec, id=f"{2:032x}", match=Match((HeaderMatch("a", "exact", "2"),)))
    await leases.take(api, another, "joe@pc", "default", observer=Observer())
    _delete_lease_of(world)
    with pytest.raises(InterceptError, match="not yours any more: its Lease was deleted"):
        await task


async def test_a_workload_that_is_deleted_takes_it_along(
    fake: FakeApi, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "SUCCESSOR_SECONDS", 0.05)
    world = World(fake, api)
    task = asyncio.ensure_future(world.run())
    await world.comes_up()
    fake.remove("deployments", "b", group="apps")
    _delete_lease_of(world)
    with pytest.raises(InterceptError, match="deployment/b in namespace default was deleted, and the intercept with"):
        await task
    assert fake.names(*LEASES) == []


async def test_credentials_that_run_out_later_end_nothing(
    fake: FakeApi, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "CREDENTIALS_SECONDS", 0.02)
    monkeypatch.setattr(keeping, "CREDENTIALS_SECONDS", 0.02)
    world = World(fake, api)
    async with world.holding_it() as task:
        await world.comes_up()
        fake.authenticate = lambda _: False
        fake.end_watches()
        await until(lambda: any("credentials" in note for note in world.status().notes))
        fake.authenticate = lambda _: True
        put_pod(fake, pod("b-2", workload()))
        await until(lambda: world.sidecars("b-2"))
        assert not task.done()
    assert fake.names(*LEASES) == []


async def test_credentials_that_do_not_last_until_it_is_up_are_an_error(fake: FakeApi, api: KubeApi) -> None:
    world = World(fake, api)
    task = asyncio.ensure_future(world.run())
    await until(world.sidecars)
    fake.authenticate = lambda _: False
    fake.end_watches()
    with pytest.raises(CredentialError):
        await task


async def test_an_undo_without_an_answer_is_told_and_the_others_are_done(
    fake: FakeApi, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def released(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(holding, "_UNDO_SECONDS", 0.1)
    monkeypatch.setattr(leases, "release", released)
    monkeypatch.setattr(leases, "anyone_on", nobody)
    world = World(fake, api)
    async with world.holding_it():
        await until(lambda: world.link.spec is not None)
    assert "! the Lease in namespace default is left: no answer" in world.progress.told


async def nobody(*_: object) -> bool:
    return False


async def test_a_renewal_that_fails_makes_the_silence_of_others_no_proof(
    fake: FakeApi, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch goes on where the API server cannot write: then nobody renews."""
    monkeypatch.setattr(keeping, "RENEW_SECONDS", 0.02)
    monkeypatch.setattr(keeping, "_LOOK_SECONDS", 0.01)
    world = World(fake, api)
    async with world.holding_it():
        await world.comes_up()
        blind: list[None] = []
        monkeypatch.setattr(Observer, "blind", lambda _: blind.append(None))
        fake.refuse["update"] = (500, "etcdserver: request timed out")
        await until(lambda: blind)
        del fake.refuse["update"]


async def test_an_interrupted_watch_is_known_to_be_one_until_it_tells_again(
    fake: FakeApi, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    for name in ("unwatched", "watched"):
        real = getattr(Pods, name)

        def heard(pods: Pods, *of: Any, real: Callable[..., None] = real) -> None:
            real(pods, *of)
            told.append(pods._known)

        monkeypatch.setattr(Pods, name, heard)
    world = World(fake, api)
    async with world.holding_it():
        await world.comes_up()
        assert told[-1]
        fake.forget()
        fake.end_watches()
        await until(lambda: told[-2:] == [False, True])


async def test_a_pod_of_which_a_dead_watch_does_not_tell_is_not_left_out(
    fake: FakeApi, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection to the API server that died without a sign: the next list comes after minutes."""
    monkeypatch.setattr(pods, "LEFT_SECONDS", 0.0)
    monkeypatch.setattr(keeping, "_LEFT_SECONDS", 0.01)
    monkeypatch.setattr(keeping, "_RETRY_SECONDS", 0.01)
    world = World(fake, api)
    async with world.holding_it():
        await world.comes_up()
        fake.mute = True
        put_pod(fake, pod("b-2", workload()))
        fake.refuse["list"] = (500, "etcdserver: request timed out")
        asked = len(fake.asked)
        for name in ("b-2", "gone"):
            world.link.report(name)
        await until(lambda: sum(each.verb == "list" for each in fake.asked[asked:]) > 1)
        (claim,) = world.link.claims
        assert claim.excluded == (), "nobody knows"
        del fake.refuse["list"]
        await until(lambda: claim.excluded == ("gone",))
        await until(lambda: world.status().total == 2)
        status = world.status()
        assert (status.acked, status.total) == (2, 2)


@pytest.mark.parametrize("resource", ["pods/log", "pods/portforward"])
async def test_a_right_that_is_missing_is_known_before_anything_is_touched(
    fake: FakeApi, api: KubeApi, resource: str
) -> None:
    fake.allow = lambda asked: asked.resource != resource
    world = World(fake, api)
    with pytest.raises(ForbiddenError, match=f"{resource} in namespace default"):
        await world.run()
    world.nothing_left()
    assert world.sidecars() == []


async def test_the_agents_that_run_are_part_of_the_claim(fake: FakeApi, api: KubeApi) -> None:
    world = World(fake, api)
    world.link.certificates = {("b-1", "meshdev-1"): b"t", ("b-2", "meshdev-1"): b"u"}
    async with world.holding_it():
        await world.comes_up()
        (claim,) = world.link.claims
        assert claim.attested == ()
        runs(fake, "b-1")
        await until(lambda: [(each.pod, each.request) for each in claim.attested] == [("b-1", b"t")])
        put_pod(fake, pod("b-2", workload()))
        await until(lambda: world.sidecars("b-2"))
        runs(fake, "b-2")
        await until(lambda: len(claim.attested) == 2)
        fake.remove("pods", "b-1")
        await until(lambda: [(each.pod, each.request) for each in claim.attested] == [("b-2", b"u")])
    assert world.link.asked == ["b-1", "b-2"]


def runs(fake: FakeApi, name: str) -> None:
    """The kubelet's word on its sidecar."""
    there = fake.objects["", "pods"]["default", name]
    state = {"name": "meshdev-1", "containerID": f"containerd://{name}", "state": {"running": {}}}
    fake.put("pods", {**there, "status": {**there["status"], "ephemeralContainerStatuses": [state]}})
