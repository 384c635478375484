"""Taking, keeping and giving back intercepts in a cluster that keeps state."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from meshdev.errors import ClusterError, InterceptError
from meshdev.intercept.lease import LeaseStatus, lease, name_of
from meshdev.intercept.liveness import CONFIRM_SECONDS
from meshdev.intercept.match import HeaderMatch
from meshdev.intercept.spec import Spec
from meshdev.kube import leases
from meshdev.kube.client import KubeApi
from meshdev.kube.leases import Held, LostError, all_of, of_workload, release, renew, take, watch_workload
from meshdev.kube.observing import Observer
from tests.intercept.values import mesh, proxy
from tests.kube.fake_api import FakeApi

NOW = 1_767_225_600.0  # the fake server's clock: 2026-01-01T00:00:00Z
GROUP = "coordination.k8s.io"
A2 = HeaderMatch("a", "exact", "2")


class Time:
    """The server's clock, and the looker's, which began when the machine started; both run while somebody waits."""

    def __init__(self, fake: FakeApi) -> None:
        self.now = NOW
        self.during: dict[float, Callable[[], None]] = {}  # what happens meanwhile
        fake.clock = lambda: self.now

    def observer(self) -> Observer:
        return Observer(lambda: self.now - NOW, self._pause)

    async def _pause(self, seconds: float) -> None:
        self.now += seconds
        for at in [at for at in self.during if at <= self.now - NOW]:
            self.during.pop(at)()


@pytest.fixture
def time(fake: FakeApi) -> Time:
    return Time(fake)


async def taken(api: KubeApi, spec: Spec, holder: str = "jane@laptop", **options: Any) -> Held:
    """The holder's own clock is a year behind: it plays no part."""
    options.setdefault("observer", Observer())
    return await take(api, spec, holder, options.pop("manager", "default"), clock=lambda: NOW - 3.2e7, **options)


def renewed_again(fake: FakeApi, spec: Spec) -> None:
    """By its session."""
    there = fake.objects[GROUP, "leases"]["default", name_of(spec)]
    fake.put("leases", there, group=GROUP)


def names(fake: FakeApi) -> list[str]:
    return [name.removeprefix("default/") for name in fake.names("leases", GROUP)]


async def test_one_is_taken_renewed_and_given_back(fake: FakeApi, api: KubeApi) -> None:
    held = await taken(api, mesh())
    assert names(fake) == [name_of(mesh())]
    held = await renew(api, held, LeaseStatus("active", 1, 2), lambda: NOW + 10)
    (found,) = (await of_workload(api, mesh().workload)).records
    assert (found.status, found.holder) == (LeaseStatus("active", 1, 2), "jane@laptop")
    await release(api, held)
    await release(api, held)
    assert names(fake) == []


async def test_different_matches_live_together(fake: FakeApi, api: KubeApi) -> None:
    await taken(api, mesh(number=1))
    await taken(api, mesh(A2, number=2), "joe@pc")
    assert len(names(fake)) == 2
    assert [each.holder for each in (await all_of(api)).records].count("joe@pc") == 1


@pytest.mark.parametrize(
    ("first", "second"), [(mesh(number=1), mesh(number=2)), (mesh(), proxy(2)), (proxy(), mesh(number=2))]
)
async def test_who_comes_second_is_refused_with_who_was_first(
    fake: FakeApi, api: KubeApi, first: Spec, second: Spec
) -> None:
    await taken(api, first)
    with pytest.raises(InterceptError, match="deployment/b in namespace default is taken: jane on laptop has"):
        await taken(api, second, "joe@pc")
    assert names(fake) == [name_of(first)]


@pytest.mark.parametrize(("first", "second"), [(mesh(number=1), mesh(number=2)), (mesh(), proxy(2))])
async def test_takeover(fake: FakeApi, api: KubeApi, first: Spec, second: Spec) -> None:
    held = await taken(api, first)
    await taken(api, second, "joe@pc", takeover=True)
    assert names(fake) == [name_of(second)]
    with pytest.raises(LostError, match="not yours any more"):
        await renew(api, held, LeaseStatus(), lambda: NOW)
    await release(api, held)  # not the other's
    assert names(fake) == [name_of(second)]


async def test_an_expired_one_is_for_its_holder_soon_and_for_others_after_ten_minutes(api: KubeApi, time: Time) -> None:
    await taken(api, mesh(number=1))
    time.now += 60
    with pytest.raises(InterceptError) as caught:
        await taken(api, mesh(number=2), "joe@pc", observer=time.observer())
    assert "not renewed for 60s" in (caught.value.hint or "")
    assert time.now == NOW + 60, "refused either way: nobody waits to know more"
    await taken(api, mesh(number=3), observer=time.observer())
    assert CONFIRM_SECONDS < time.now - NOW - 60 <= CONFIRM_SECONDS + 2
    time.now += 631
    await taken(api, mesh(number=4), "joe@pc", observer=time.observer())
    (found,) = (await of_workload(api, mesh().workload)).records
    assert (found.holder, found.spec.id) == ("joe@pc", f"{4:032x}")


async def test_a_session_that_was_silent_and_renews_again_keeps_its_own(
    fake: FakeApi, api: KubeApi, time: Time
) -> None:
    """Another laptop of the same name, that slept."""
    await taken(api, mesh(number=1))
    time.now += 700
    time.during = {time.now - NOW + 8: lambda: renewed_again(fake, mesh())}
    with pytest.raises(InterceptError, match="is taken"):
        await taken(api, mesh(number=2), observer=time.observer())
    assert names(fake) == [name_of(mesh())]


async def test_stale_ones_go_whatever_they_claimed(fake: FakeApi, api: KubeApi, time: Time) -> None:
    observer = time.observer()
    await taken(api, mesh(A2, number=1))
    time.now += 1000
    held = await taken(api, mesh(number=2), observer=observer)
    time.now += 5
    await leases.delete_stale(api, held.spec.workload, observer)
    assert len(names(fake)) == 2, "five seconds prove nothing"
    time.now += 10
    renewed_again(fake, mesh(number=2))
    await leases.delete_stale(api, held.spec.workload, observer)
    assert names(fake) == [name_of(mesh())]


async def test_who_is_dead_is_not_on_the_workload(api: KubeApi, time: Time) -> None:
    assert not await leases.anyone_on(api, mesh().workload, time.observer())
    await taken(api, mesh())
    time.now += 20
    assert await leases.anyone_on(api, mesh().workload, time.observer())
    assert time.now == NOW + 20, "the server wrote it a moment ago"
    time.now += 20
    assert not await leases.anyone_on(api, mesh().workload, time.observer())
    assert time.now - NOW - 40 <= CONFIRM_SECONDS + 2


@pytest.mark.parametrize("server", [NOW - 86400, NOW + 86400], ids=["behind", "ahead"])
async def test_who_renews_is_on_the_workload_whatever_clocks_say(
    fake: FakeApi, api: KubeApi, time: Time, server: float
) -> None:
    """The API server that answers and the one that wrote it differ by a day."""
    await taken(api, mesh())
    fake.clock = lambda: server + time.now - NOW
    time.during = {8: lambda: renewed_again(fake, mesh())}
    assert await leases.anyone_on(api, mesh().workload, time.observer())
    assert time.now - NOW <= 8


async def test_whoever_watched_needs_no_second_look(fake: FakeApi, api: KubeApi, time: Time) -> None:
    observer = time.observer()
    await taken(api, mesh(number=1))
    await taken(api, mesh(A2, number=2), "joe@pc")
    time.now += 25  # by the server's clock both are fresh
    observer.saw(api, await all_of(api))
    time.now += 7
    renewed_again(fake, mesh(A2))
    assert await leases.anyone_on(api, mesh().workload, observer)
    fake.remove("leases", name_of(mesh(A2)), group=GROUP)
    time.now += 10
    assert not await leases.anyone_on(api, mesh().workload, observer)
    assert time.now == NOW + 42


async def test_an_outage_kills_nobody(api: KubeApi, time: Time) -> None:
    """Nobody could renew while the API server was away."""
    observer = time.observer()
    await taken(api, mesh())
    observer.saw(api, await all_of(api))
    time.now += 29
    observer.blind()
    time.now += 1
    observer.saw(api, await all_of(api))
    (record,) = (await all_of(api)).records
    assert observer.life(record) == "unknown"
    time.now += CONFIRM_SECONDS + 1
    assert observer.life(record) == "expired"


async def test_a_workload_of_another_manager_is_refused_by_its_namespace(
    fake: FakeApi, api: KubeApi, time: Time
) -> None:
    await taken(api, mesh(A2, number=1), manager="tools")
    with pytest.raises(InterceptError, match="served by the manager in namespace tools already") as caught:
        await taken(api, mesh(number=2), "joe@pc")
    assert "--manager-namespace tools" in (caught.value.hint or "")
    assert len(names(fake)) == 1
    time.now += 60
    await taken(api, mesh(number=2), "joe@pc", observer=time.observer())  # that session is dead


async def test_of_two_at_the_same_moment_one_stays(fake: FakeApi, api: KubeApi) -> None:
    """The other is created between the look and the create, and is older."""
    older = lease(proxy(9), "joe@pc", "default", NOW)

    def created(_resource: str, item: dict[str, Any]) -> None:
        if item["metadata"]["name"] == name_of(mesh()):
            item["metadata"]["creationTimestamp"] = "2026-01-01T00:00:01Z"
            fake.put("leases", older, group=GROUP)

    fake.created = created
    with pytest.raises(InterceptError, match="joe on pc has all traffic"):
        await taken(api, mesh())
    assert names(fake) == [name_of(proxy())]


async def test_who_cannot_look_who_else_is_there_leaves_nothing(fake: FakeApi, api: KubeApi) -> None:
    def created(_resource: str, _item: dict[str, Any]) -> None:
        fake.refuse = {"list": (500, "etcd is tired")}

    fake.created = created
    with pytest.raises(ClusterError, match="etcd is tired"):
        await taken(api, mesh())
    assert names(fake) == []


async def test_many_at_the_same_moment(api: KubeApi) -> None:
    """Whoever was told yes, and what is there afterwards, are the same."""
    specs = [proxy(1), mesh(number=2), mesh(A2, number=3), mesh(number=4), proxy(5)]
    results = await asyncio.gather(*(taken(api, spec, f"u{spec.id[-1]}@pc") for spec in specs), return_exceptions=True)
    told = {result.spec.id for result in results if isinstance(result, Held)}
    there = (await of_workload(api, mesh().workload)).records
    assert {each.spec.id for each in there} == told
    assert told
    assert all(isinstance(result, Held | InterceptError) for result in results)


async def test_an_unreadable_lease_of_that_name_is_told_and_taken_over(fake: FakeApi, api: KubeApi) -> None:
    fake.put("leases", {"metadata": {"name": name_of(mesh())}, "spec": {}}, group=GROUP)
    with pytest.raises(InterceptError, match=r"is locked: the Lease .* cannot be read"):
        await taken(api, mesh())
    assert len(names(fake)) == 1
    await taken(api, mesh(), takeover=True)
    assert len((await of_workload(api, mesh().workload)).records) == 1


async def test_hostile_leases_are_told_of_and_change_nothing(fake: FakeApi, api: KubeApi) -> None:
    evil = lease(proxy(9), "evil@x", "default", NOW)
    evil["metadata"]["annotations"]["meshdev.dev/spec"] = "x" * 100_000
    fake.put("leases", evil, group=GROUP)
    await taken(api, mesh())
    found = await all_of(api, "default")
    assert ([each.holder for each in found.records], len(found.troubles)) == (["jane@laptop"], 1)


async def test_renewing_when_others_wrote_into_it(fake: FakeApi, api: KubeApi) -> None:
    held = await taken(api, mesh())
    there = fake.objects[GROUP, "leases"]["default", name_of(mesh())]
    fake.put(
        "leases",
        {**there, "metadata": {**there["metadata"], "labels": {**there["metadata"]["labels"], "x": "y"}}},
        group=GROUP,
    )
    held = await renew(api, held, LeaseStatus("active"), lambda: NOW + 10)
    assert held.object["metadata"]["labels"]["x"] == "y"


async def test_renewing_one_that_somebody_else_made_anew(fake: FakeApi, api: KubeApi) -> None:
    held = await taken(api, mesh())
    fake.remove("leases", name_of(mesh()), group=GROUP)
    await taken(api, mesh(number=2), "joe@pc")
    with pytest.raises(LostError, match="joe@pc took it over"):
        await renew(api, held, LeaseStatus(), lambda: NOW)


async def test_watching_a_workload(api: KubeApi) -> None:
    async with asyncio.timeout(5), aclosing(watch_workload(api, mesh().workload)) as states:
        assert (await anext(states)).records == ()
        await taken(api, mesh())
        assert [each.holder for each in (await anext(states)).records] == ["jane@laptop"]
        await taken(api, proxy(2), "joe@pc", takeover=True)
        assert (await anext(states)).records == ()
        assert [each.holder for each in (await anext(states)).records] == ["joe@pc"]


def test_lost_is_an_error_of_intercepts() -> None:
    assert (leases.LostError.code, leases.LostError.exit_code) == ("intercept", 60)
