"""Which names exist, as far as the user may see."""

from contextlib import aclosing

from meshdev.kube.client import KubeApi
from meshdev.kube.namespaces import ClusterNames, watch_names
from tests.kube.fake_api import FakeApi, Object


def named(name: str) -> Object:
    return {"metadata": {"name": name}}


async def test_names_as_they_come_and_go(fake: FakeApi, api: KubeApi) -> None:
    fake.put("namespaces", named("default"), "")
    fake.put("services", named("b"), "default")
    fake.put("services", named("elsewhere"), "other")
    notes: list[str] = []
    async with aclosing(watch_names(api, "default", notes.append)) as changes:
        assert await anext(changes) == ClusterNames(frozenset({"default"}), frozenset({"b"}))
        fake.put("namespaces", named("team-1"), "")
        assert await anext(changes) == ClusterNames(frozenset({"default", "team-1"}), frozenset({"b"}))
        fake.remove("services", "b", "default")
        assert await anext(changes) == ClusterNames(frozenset({"default", "team-1"}), frozenset())
    assert notes == []


async def test_services_alone_for_who_may_not_list_namespaces(fake: FakeApi, api: KubeApi) -> None:
    fake.allow = lambda asked: bool(asked.namespace)
    fake.put("services", named("b"), "default")
    notes: list[str] = []
    async with aclosing(watch_names(api, "default", notes.append)) as changes:
        assert await anext(changes) == ClusterNames(None, frozenset({"b"}))
    assert notes == ["you (dev) may not list namespaces in the whole cluster"]


async def test_it_ends_for_who_may_see_neither(fake: FakeApi, api: KubeApi) -> None:
    fake.allow = lambda _: False
    assert [names async for names in watch_names(api, "default", lambda _: None)] == [ClusterNames()]
