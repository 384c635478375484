"""Which container a target stands for, and what is read for it: with which requests, and what is refused."""

import json
from typing import Any

import pytest

from meshdev.environment.sources import Entries, Needs, Store, TokenRequest, Unreadable
from meshdev.errors import ForbiddenError, InterceptError, UnreachableError
from meshdev.intercept.target import parse_target
from meshdev.kube.client import KubeApi
from meshdev.kube.workload_sources import FoundContainer, find_container, read_sources
from tests.kube.fake_api import FakeApi
from tests.kube.objects import pod, workload


async def found(api: KubeApi, target: str, container: str | None = None) -> FoundContainer:
    return await find_container(api, parse_target(target), "default", container)


def deployment(fake: FakeApi, *pods: str, **spec: Any) -> dict[str, Any]:
    made = workload(name="b")
    made["spec"]["template"]["spec"].update(spec)
    fake.put("deployments", made, group="apps")
    for name in pods:
        fake.put("pods", pod(name, made))
    return made


async def test_a_pod_of_the_workload_that_runs(fake: FakeApi, api: KubeApi) -> None:
    made = deployment(fake)
    fake.put("pods", {**pod("b-old", made), "status": {"phase": "Failed"}})
    ending = pod("b-ending", made)
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    fake.put("pods", ending)
    unrelated = pod("unrelated", workload(name="other"), labels={"app": "b"})
    fake.put("pods", unrelated)
    template = await found(api, "deployment/b")
    assert (template.where, template.view.live) == ("deployment/b", False)
    assert template.note == "this is the template of deployment/b: no pod of it runs"
    fake.put("pods", pod("b-1", made))
    one = await found(api, "deploy/b")
    assert (one.where, one.view.live, one.note) == ("pod/b-1", True, None)
    assert one.view.container["name"] == "b"
    assert (await found(api, "pod/b-old")).where == "pod/b-old", "as it was asked for"


async def test_pods_that_may_not_be_listed(fake: FakeApi, api: KubeApi) -> None:
    deployment(fake, "b-1")
    fake.allow = lambda asked: asked.resource != "pods"
    template = await found(api, "deployment/b")
    assert not template.view.live
    assert "template of deployment/b: you (dev) may not list pods in namespace default" in (template.note or "")
    with pytest.raises(ForbiddenError):
        await found(api, "pod/b-1")


async def test_a_pod_behind_a_service(fake: FakeApi, api: KubeApi) -> None:
    fake.put("services", {"metadata": {"name": "s"}, "spec": {"selector": {"app": "b"}}})
    fake.put("services", {"metadata": {"name": "headless"}, "spec": {}})
    with pytest.raises(InterceptError, match="no pod that runs"):
        await found(api, "svc/s")
    deployment(fake, "b-1")
    assert (await found(api, "svc/s")).where == "pod/b-1"
    with pytest.raises(InterceptError, match="selects no pods"):
        await found(api, "svc/headless")
    with pytest.raises(InterceptError, match="there is no service/none"):
        await found(api, "svc/none")
    with pytest.raises(InterceptError, match="there is no deployment/none"):
        await found(api, "deployment/none")


async def test_what_cannot_be_intercepted_has_an_environment(fake: FakeApi, api: KubeApi) -> None:
    sidecar = {"name": "meshdev", "restartPolicy": "Always"}
    deployment(fake, "b-1", hostNetwork=True, initContainers=[sidecar, {"name": "istio-init"}])
    assert (await found(api, "deployment/b", "istio-init")).view.container == {"name": "istio-init"}
    with pytest.raises(InterceptError, match="there is no container meshdev; there is b, istio-init"):
        await found(api, "deployment/b", "meshdev")


async def test_everything_that_is_needed(fake: FakeApi, api: KubeApi) -> None:
    deployment(fake, "b-1")
    fake.put("configmaps", {"metadata": {"name": "c"}, "data": {"k": "v"}})
    fake.put("secrets", {"metadata": {"name": "s"}, "data": {"k": "aGk="}})
    fake.put("nodes", {"metadata": {"name": "node1"}, "status": {"allocatable": {"cpu": "4"}}}, namespace="")
    fake.put("services", {"metadata": {"name": "kubernetes"}, "spec": {}})
    stores = [Store("ConfigMap", "c"), Store("Secret", "s"), Store("Secret", "none")]
    asked = TokenRequest("vault", 600)
    view = (await found(api, "deployment/b")).view
    sources = await read_sources(api, view, Needs(frozenset(stores), True, True, frozenset({asked})))
    assert sources.stores == {
        stores[0]: Entries({"k": b"v"}),
        stores[1]: Entries({"k": b"hi"}),
        stores[2]: Unreadable("there is none in namespace default", absent=True),
    }
    assert sources.allocatable == {"cpu": "4"}
    assert isinstance(sources.services, list)
    assert [each["metadata"]["name"] for each in sources.services] == ["kubernetes"]
    assert sources.api_service == sources.services[0]
    token = sources.tokens[asked]
    assert isinstance(token, str)
    account, _, spec = token.partition(" ")
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "b-1", "uid": "uid-b-1"}
    assert (account, json.loads(spec)) == (
        "default",
        {"audiences": ["vault"], "expirationSeconds": 600, "boundObjectRef": bound},
    )


async def test_nothing_is_asked_for_that_is_not_needed(fake: FakeApi, api: KubeApi) -> None:
    deployment(fake, "b-1")
    view = (await found(api, "deployment/b")).view
    before = len(fake.asked)
    assert await read_sources(api, view, Needs()) == await read_sources(api, view, Needs())
    assert len(fake.asked) == before


async def test_services_of_another_namespace(fake: FakeApi, api: KubeApi) -> None:
    fake.namespaces.add("shop")
    fake.put("pods", pod("p", workload(name="p")), namespace="shop")
    fake.put("services", {"metadata": {"name": "db"}, "spec": {}}, namespace="shop")
    fake.put("services", {"metadata": {"name": "kubernetes"}, "spec": {"clusterIP": "10.96.0.1"}})
    view = (await find_container(api, parse_target("pod/p"), "shop", None)).view
    sources = await read_sources(api, view, Needs(services=True))
    assert isinstance(sources.services, list)
    assert [each["metadata"]["name"] for each in sources.services] == ["db"]
    assert isinstance(sources.api_service, dict)
    assert sources.api_service["spec"] == {"clusterIP": "10.96.0.1"}
    fake.allow = lambda asked: asked.namespace == "shop"
    assert isinstance((await read_sources(api, view, Needs(services=True))).api_service, Unreadable)


async def test_what_is_refused_is_a_value(fake: FakeApi, api: KubeApi) -> None:
    deployment(fake, "b-1")
    view = (await found(api, "deployment/b")).view
    fake.allow = lambda _: False
    store, token = Store("Secret", "s"), TokenRequest()
    sources = await read_sources(api, view, Needs(frozenset({store}), True, True, frozenset({token})))
    why = "you (dev) may not get secrets in namespace default"
    assert sources.stores[store] == Unreadable(why, forbidden=True)
    refused = [sources.services, sources.api_service, sources.allocatable, sources.tokens[token]]
    assert all(isinstance(each, Unreadable) and each.forbidden for each in refused)


async def test_a_server_that_is_gone_is_an_error(fake: FakeApi, api: KubeApi) -> None:
    deployment(fake, "b-1")
    view = (await found(api, "deployment/b")).view
    fake.refuse = {"get": (503, "etcd is away")}
    with pytest.raises(Exception, match="etcd is away") as raised:
        await read_sources(api, view, Needs(frozenset({Store("Secret", "s"), Store("Secret", "t")})))
    assert not isinstance(raised.value, BaseExceptionGroup | UnreachableError)
