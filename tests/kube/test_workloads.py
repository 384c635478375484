"""From a target to the workload that owns the pods, and the pods as they come and go."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace

import pytest

from meshdev.errors import ForbiddenError, InterceptError
from meshdev.intercept.target import parse_target
from meshdev.kube.client import KubeApi
from meshdev.kube.replicas import Replica
from meshdev.kube.workloads import Resolved, is_there, pods_of, resolve, selector_of, watch_replicas
from tests.kube.fake_api import FakeApi
from tests.kube.objects import (
    HTTP,
    Object,
    controlled,
    pod,
    put_pod,
    put_workload,
    resolved_b,
    service,
    template,
    workload,
)


async def resolved(api: KubeApi, typed: str) -> Resolved:
    return await resolve(api, parse_target(typed), "default")


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"])
async def test_a_workload_is_itself(fake: FakeApi, api: KubeApi, kind: str) -> None:
    put_workload(fake, workload(kind))
    found = await resolved(api, f"{kind.lower()}/b")
    assert (str(found.workload), found.workload.uid, found.selector) == (f"{kind.lower()}/b", "uid-b", "app=b")
    assert [port.number for port in found.ports.known] == [8080]
    assert found.services == ()


@pytest.mark.parametrize("typed", ["pod/b-1", "rs/b-5d4f", "svc/b", "deploy/b"])
async def test_all_ways_lead_to_the_owner(fake: FakeApi, api: KubeApi, typed: str) -> None:
    put_workload(fake, workload(), "b-1", "b-2")
    fake.put("services", service("b"))
    found = await resolved(api, typed)
    assert str(found.workload) == "deployment/b"
    assert [each["metadata"]["name"] for each in found.services] == ["b"]
    assert len(found.ports.service) == (1 if typed == "svc/b" else 0)


async def test_a_pod_of_a_stateful_set(fake: FakeApi, api: KubeApi) -> None:
    put_workload(fake, workload("StatefulSet"), "b-0")
    assert str((await resolved(api, "pod/b-0")).workload) == "statefulset/b"


async def test_a_bare_pod_is_its_own_workload(fake: FakeApi, api: KubeApi) -> None:
    put_pod(fake, pod("p"))
    fake.objects["", "pods"]["default", "p"]["kind"] = "Pod"  # a GET says it
    found = await resolved(api, "pod/p")
    assert (str(found.workload), found.workload.uid) == ("pod/p", "uid-p")
    assert [each["metadata"]["name"] for each in await pods_of(api, found)] == ["p"]


async def test_an_owner_of_a_kind_that_we_do_not_know(fake: FakeApi, api: KubeApi) -> None:
    rollout = {"kind": "Rollout", "metadata": {"name": "b", "uid": "u"}}
    made = workload("ReplicaSet", "b-1")
    made["metadata"]["ownerReferences"] = [{**rollout["metadata"], "kind": "Rollout", "controller": True}]  # type: ignore[dict-item]  # as JSON has it
    put_workload(fake, made)
    assert str((await resolved(api, "rs/b-1")).workload) == "replicaset/b-1"


async def test_an_owner_that_is_gone_or_another_by_now(fake: FakeApi, api: KubeApi) -> None:
    put_pod(fake, pod("b-1", workload()))
    fake.objects["", "pods"]["default", "b-1"]["kind"] = "Pod"
    assert str((await resolved(api, "pod/b-1")).workload) == "pod/b-1"
    other = workload("ReplicaSet", "b-5d4f")
    other["metadata"]["uid"] = "another"
    put_workload(fake, other)
    assert str((await resolved(api, "pod/b-1")).workload) == "pod/b-1"


@pytest.mark.parametrize("typed", ["deploy/x", "sts/x", "po/x", "svc/x"])
async def test_what_is_not_there(api: KubeApi, typed: str) -> None:
    with pytest.raises(InterceptError, match=f"there is no {parse_target(typed)} in namespace default") as caught:
        await resolved(api, typed)
    assert "kubectl -n default get" in (caught.value.hint or "")


async def test_services_that_lead_to_no_one_workload(fake: FakeApi, api: KubeApi) -> None:
    put_workload(fake, workload(), "b-1")
    put_workload(fake, workload("StatefulSet", "c"))
    put_pod(fake, pod("c-0", workload("StatefulSet", "c"), labels={"app": "b"}))
    fake.put("services", service("b"))
    fake.put("services", service("manual", selector={}))
    fake.put("services", service("nobody"))
    with pytest.raises(InterceptError, match="several workloads: deployment/b, statefulset/c"):
        await resolved(api, "svc/b")
    with pytest.raises(InterceptError, match="selects no pods"):
        await resolved(api, "svc/manual")
    with pytest.raises(InterceptError, match="selects no pod that runs"):
        await resolved(api, "svc/nobody")


async def test_a_service_of_a_workload_that_is_scaled_to_zero(fake: FakeApi, api: KubeApi) -> None:
    for made, hint in (
        (workload(replicas=0), "kubectl -n default scale deployment/b --replicas 1"),
        (workload("StatefulSet", replicas=0), "kubectl -n default scale statefulset/b --replicas 1"),
        (workload(replicas=2), "kubectl -n default get pods -l app=b"),
    ):
        fake.objects.clear()
        put_workload(fake, made)
        fake.put("services", service("b"))
        with pytest.raises(InterceptError, match="selects no pod that runs") as caught:
            await resolved(api, "svc/b")
        assert caught.value.hint == hint


async def test_a_target_that_cannot_be_intercepted_is_refused(fake: FakeApi, api: KubeApi) -> None:
    put_workload(fake, workload(made_of=template(hostNetwork=True)))
    with pytest.raises(InterceptError, match="deployment/b cannot be intercepted: its pods use the node's network"):
        await resolved(api, "deploy/b")


async def test_services_that_select_the_pods_tell_of_ports(fake: FakeApi, api: KubeApi) -> None:
    put_workload(fake, workload(made_of=template(ports=[])), "b-1")
    fake.put("services", service("front", [{"name": "http", "port": 80, "targetPort": 8080}], {"app": "b"}))
    fake.put("services", service("other", [{"port": 1}], {"app": "c"}))
    found = (await resolved(api, "deploy/b")).ports
    assert [(port.number, port.protocol) for port in found.known] == [(8080, "http")]


async def test_who_may_not_see_it_is_told_the_rule(fake: FakeApi, api: KubeApi) -> None:
    fake.allow = lambda asked: asked.resource != "deployments"
    with pytest.raises(ForbiddenError, match=r"get deployments\.apps in namespace default"):
        await resolved(api, "deploy/b")


async def test_services_that_may_not_be_seen_are_missed_only_where_they_are_the_target(
    fake: FakeApi, api: KubeApi
) -> None:
    fake.allow = lambda asked: asked.resource != "services"
    found = await resolved_b(fake, api)
    assert [(port.number, port.protocol) for port in found.ports.known] == [(8080, "http")]
    with pytest.raises(ForbiddenError, match="list services"):
        await resolved(api, "svc/b")


def test_selectors_as_queries() -> None:
    made = workload()
    made["spec"]["selector"] = {
        "matchLabels": {"b": "2", "a": "1"},
        "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["x", "y"]},
            {"key": "d", "operator": "NotIn", "values": ["z"]},
            {"key": "e", "operator": "Exists"},
            {"key": "f", "operator": "DoesNotExist"},
        ],
    }
    assert selector_of(made) == "a=1,b=2,c in (x,y),d notin (z),e,!f"


async def test_its_pods_and_no_others(fake: FakeApi, api: KubeApi) -> None:
    found = await resolved_b(fake, api, "b-1", "b-2")
    put_pod(fake, pod("stranger", workload("StatefulSet", "c"), labels={"app": "b"}))
    put_pod(fake, pod("bare", labels={"app": "b"}))
    done = pod("done", workload())
    done["status"]["phase"] = "Failed"
    put_pod(fake, done)
    going = pod("going", workload())
    going["metadata"]["deletionTimestamp"] = "now"
    put_pod(fake, going)
    assert sorted(each["metadata"]["name"] for each in await pods_of(api, found)) == ["b-1", "b-2"]


async def test_a_workload_without_pods_and_one_with_a_pod_that_a_mesh_has(fake: FakeApi, api: KubeApi) -> None:
    found = await resolved_b(fake, api)
    with pytest.raises(InterceptError, match="has no pod that runs") as caught:
        await pods_of(api, found)
    assert caught.value.hint == "kubectl -n default describe deployment/b"  # there should be two: its events say why
    fake.objects["apps", "deployments"]["default", "b"]["spec"]["replicas"] = 0
    with pytest.raises(InterceptError, match="has no pod that runs") as caught:
        await pods_of(api, await resolved(api, "deploy/b"))
    assert caught.value.hint == "kubectl -n default scale deployment/b --replicas 1"
    put_pod(fake, pod("b-1", workload(), containers=[{"name": "istio-proxy", "ports": [HTTP]}]))
    with pytest.raises(InterceptError, match="Istio"):
        await pods_of(api, found)


async def test_pods_come_change_and_go(fake: FakeApi, api: KubeApi) -> None:
    found = await resolved_b(fake, api, "b-1")
    async with asyncio.timeout(5), aclosing(watch_replicas(api, found)) as states:
        assert [each.name for each in (await anext(states)).values()] == ["b-1"]
        put_pod(fake, pod("stranger", workload("StatefulSet", "c"), labels={"app": "b"}))
        put_pod(fake, pod("b-2", workload()))
        assert [each.name for each in (await anext(states)).values()] == ["b-1", "b-2"]
        going = pod("b-1", workload())
        going["metadata"]["deletionTimestamp"] = "now"
        put_pod(fake, going)
        assert [each.leaving for each in (await anext(states)).values()] == [True, False]
        fake.remove("pods", "b-1")
        assert [each.name for each in (await anext(states)).values()] == ["b-2"]


def of_kind(kind: str, api_version: str) -> Object:
    """The owner of pods, of a kind whose objects nobody here reads."""
    return {**workload(kind), "apiVersion": api_version}


#: What a Service can select whose pods have no workload of their own: they come and go with somebody else.
FOREIGN = [
    of_kind("ReplicationController", "v1"),
    of_kind("Job", "batch/v1"),
    of_kind("CloneSet", "apps.kruise.io/v1alpha1"),
    of_kind("StatefulSet", "apps.kruise.io/v1beta1"),
    None,
]


@pytest.mark.parametrize("owner", FOREIGN, ids=lambda owner: owner["apiVersion"] + owner["kind"] if owner else "bare")
async def test_a_service_is_the_workload_where_its_pods_have_none(
    fake: FakeApi, api: KubeApi, owner: Object | None
) -> None:
    put_workload(fake, workload("StatefulSet"))  # one of that name is there, too
    for name in ("p-1", "p-2"):
        put_pod(fake, owned(pod(name, owner, labels={"app": "b"}), owner))
    fake.put("services", service("b"))
    fake.put("services", service("b-admin", [{"name": "http-admin", "port": 81, "targetPort": 8081}], {"app": "b"}))
    found = await resolved(api, "svc/b")
    uid = fake.objects["", "services"]["default", "b"]["metadata"]["uid"]
    assert (str(found.workload), found.workload.uid, found.selector) == ("service/b", uid, "app=b")
    assert not found.workload.has_template
    assert [(port.number, port.protocol) for port in found.ports.known] == [(8080, "http"), (8081, "http")]
    assert [port.port for port in found.ports.service] == [80]
    assert sorted(each["metadata"]["name"] for each in await pods_of(api, found)) == ["p-1", "p-2"]


def owned(made: Object, owner: Object | None) -> Object:
    """With the group of its owner, too."""
    for each in made["metadata"]["ownerReferences"]:
        each["apiVersion"] = owner["apiVersion"] if owner else ""
    return made


async def test_a_replicaset_that_another_kind_replaces_is_no_workload_of_a_service(fake: FakeApi, api: KubeApi) -> None:
    """Argo's Rollout: the next release has another ReplicaSet, whose pods the Service selects as well."""
    rollout = of_kind("Rollout", "argoproj.io/v1alpha1")
    for name in ("r-1", "r-2"):
        made = workload("ReplicaSet", name)
        made["metadata"]["ownerReferences"] = [{**controlled(rollout)[0], "apiVersion": rollout["apiVersion"]}]
        put_workload(fake, made)
        put_pod(fake, pod(f"{name}-x", made, labels={"app": "b"}))
    fake.put("services", service("b"))
    assert str((await resolved(api, "svc/b")).workload) == "service/b"
    fake.objects["", "pods"]["default", "r-1-x"]["kind"] = "Pod"
    assert str((await resolved(api, "pod/r-1-x")).workload) == "replicaset/r-1"


async def test_a_deployment_of_an_operator_is_the_workload_all_the_same(fake: FakeApi, api: KubeApi) -> None:
    made = workload("StatefulSet")
    made["metadata"]["ownerReferences"] = controlled(of_kind("Prometheus", "monitoring.coreos.com/v1"))
    put_workload(fake, made, "b-0")
    fake.put("services", service("b"))
    assert str((await resolved(api, "svc/b")).workload) == "statefulset/b"


async def test_a_service_with_pods_of_a_deployment_and_others_stands_for_all(fake: FakeApi, api: KubeApi) -> None:
    put_workload(fake, workload(), "b-1")
    put_pod(fake, pod("canary", labels={"app": "b"}))
    fake.put("services", service("b"))
    found = await resolved(api, "svc/b")
    assert str(found.workload) == "service/b"
    assert sorted(each["metadata"]["name"] for each in await pods_of(api, found)) == ["b-1", "canary"]


async def test_one_pod_of_a_service_that_cannot_be_joined_is_told(fake: FakeApi, api: KubeApi) -> None:
    put_pod(fake, pod("p-1", labels={"app": "b"}))
    put_pod(fake, pod("p-2", labels={"app": "b"}, hostNetwork=True))
    fake.put("services", service("b"))
    with pytest.raises(InterceptError, match="service/b cannot be intercepted: its pods use the node's network"):
        await resolved(api, "svc/b")


async def test_an_external_name_selects_nothing(fake: FakeApi, api: KubeApi) -> None:
    made = service("b")
    made["spec"] |= {"type": "ExternalName", "externalName": "db.example.com"}
    fake.put("services", made)
    with pytest.raises(InterceptError, match=r"service/b in namespace default is another name of db\.example\.com"):
        await resolved(api, "svc/b")


async def test_the_pods_of_a_service_come_and_go_with_their_labels_and_its_selector(
    fake: FakeApi, api: KubeApi
) -> None:
    put_pod(fake, pod("p-1", labels={"app": "b"}))
    fake.put("services", service("b"))
    found = await resolved(api, "svc/b")

    def names(state: Mapping[str, Replica]) -> list[str]:
        return sorted(each.name for each in state.values())

    async with asyncio.timeout(5), aclosing(watch_replicas(api, found)) as states:
        assert names(await anext(states)) == ["p-1"]
        put_pod(fake, pod("p-2", labels={"app": "b"}))
        assert names(await anext(states)) == ["p-1", "p-2"]
        put_pod(fake, pod("p-3", labels={"app": "c"}))
        fake.put("services", service("b", selector={"app": "c"}))
        assert names(await anext(states)) == ["p-3"]
        fake.remove("services", "b")
        assert names(await anext(states)) == []


async def test_whether_a_workload_is_there_still(fake: FakeApi, api: KubeApi) -> None:
    put_pod(fake, pod("p-1", labels={"app": "b"}))
    fake.put("services", service("b"))
    put_workload(fake, workload("Deployment", "d"))
    for typed, resource, group in (("svc/b", "services", ""), ("deploy/d", "deployments", "apps")):
        found = (await resolved(api, typed)).workload
        assert await is_there(api, found)
        assert not await is_there(api, replace(found, uid="another"))
        fake.remove(resource, found.name, group=group)
        assert not await is_there(api, found)
