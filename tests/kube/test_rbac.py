"""`meshdev rbac` prints what the code asks, no more and no less."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from meshdev.config import MANAGER_NAME
from meshdev.errors import ManagerError, MeshdevError
from meshdev.intercept.lease import LeaseStatus
from meshdev.intercept.target import parse_target
from meshdev.kube import attestation, leases, manager
from meshdev.kube.access import Access
from meshdev.kube.client import KubeApi
from meshdev.kube.kubeconfig import Options
from meshdev.kube.manager import sidecar_terms
from meshdev.kube.manifest import ManagerSpec
from meshdev.kube.observing import Observer
from meshdev.kube.portforward import PortForward, dial
from meshdev.kube.ranges import watch_addresses
from meshdev.kube.rbac import AskedRights, Rule, Subject, manifest, minimal, rules
from meshdev.kube.replicas import Replica
from meshdev.kube.rights import require
from meshdev.kube.workloads import Resolved, is_there, pods_of, resolve
from meshdev.sidecar.join import patch
from meshdev.sidecar.join.choice import choose
from meshdev.sidecar.join.container import SidecarSpec
from meshdev.sidecar.join.ephemeral import keep_joined
from meshdev.wire.attestation import AgentAnnouncement
from meshdev.wire.framing import CARRIER_KINDS, CarrierKind
from tests.intercept.values import mesh
from tests.kube.conftest import write_kubeconfig
from tests.kube.fake_api import FakeApi
from tests.kube.granted import allowed, superfluous, too_broad
from tests.kube.objects import pod as bare
from tests.kube.objects import put_pod, put_workload, service, workload
from tests.kube.test_manager import RUNNING, controller, pod, put_manager_pod, put_service
from tests.waiting import until


async def install(fake: FakeApi, api: KubeApi, namespace: str) -> None:
    """Everything that may be done to the Deployment and its Service, with a start that fails in between."""
    fake.created = cluster(fake)
    fake.deleted = lambda resource: fake.remove("pods", "m", namespace) if resource == "deployments" else None
    put_service(fake, "former", namespace)
    created: list[manager.Created] = []
    with suppress(ManagerError):
        await manager.ensure(
            api, ManagerSpec(namespace, "image:1"), progress=lambda _: None, on_created=created.append, seconds=0.2
        )
    await manager.replace(api, ManagerSpec(namespace, "image:2"), progress=lambda _: None)
    await manager.uninstall(api, namespace)
    fake.created, fake.deleted = lambda *_: None, lambda _: None


def cluster(fake: FakeApi) -> Callable[[str, dict[str, Any]], None]:
    """A pod runs only after the Deployment was replaced."""

    def created(resource: str, item: dict[str, Any]) -> None:
        if resource == "deployments" and fake.asked[-1].verb == "update":
            put_manager_pod(fake, pod("m", {"state": RUNNING}), item["metadata"]["namespace"])

    return created


async def use(api: KubeApi, namespace: str) -> None:
    """What a session for namespace default does with a manager that runs in *namespace*."""
    await manager.find_pod(api, namespace)
    await manager.wait(api, namespace, progress=lambda _: None)
    for kind in CARRIER_KINDS:
        with suppress(MeshdevError):
            await dial(api, namespace, "m", 9000, kind, 2)
    async with aclosing(watch_addresses(api, "default", lambda _: None)) as changes:
        await anext(changes)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):  # until both watches are asked for
                await anext(changes)


async def recorded(fake: FakeApi, tmp_path: Path, flow: Callable[[KubeApi], Awaitable[None]]) -> set[Access]:
    """What the server was asked, and what the client says that it asks."""
    path = write_kubeconfig(tmp_path / "config", fake.url)
    async with await KubeApi.open(Options(kubeconfig=str(path), environment={})) as api:
        said: list[Access] = []
        api.on_access = said.append
        await flow(api)
    assert set(said) == set(fake.asked)
    return set(said)


@pytest.mark.parametrize("where", ["default", "tools"])
@pytest.mark.parametrize("intercepting", ["none", "ephemeral", "patch"])
@pytest.mark.parametrize("preinstalled", [False, True])
async def test_the_developers_rules_are_enough_and_each_is_needed(
    fake: FakeApi, tmp_path: Path, preinstalled: bool, intercepting: AskedRights, where: str
) -> None:
    needed = rules("developer", "default", where, preinstalled=preinstalled, intercepting=intercepting)
    fake.allow = allowed(needed)
    fake.namespaces.add(where)

    async def flow(api: KubeApi) -> None:
        if preinstalled:
            owner = put_manager_pod(fake, pod("m", {"state": {"waiting": {}}}), where)
            put_service(fake, owner["metadata"]["uid"], where)
        else:
            await install(fake, api, where)
            fake.created = controller(fake, pod("m", {"state": {"waiting": {}}}))
        begun = len(fake.asked)
        async with asyncio.TaskGroup() as tasks:
            spec = ManagerSpec(where, "image:1")
            tasks.create_task(
                manager.ensure(api, spec, progress=lambda _: None, on_created=lambda _: None, note=pytest.fail)
            )
            await until(lambda: ("watch", "pods") in {(each.verb, each.resource) for each in fake.asked[begun:]})
            put_manager_pod(fake, pod("m", {"state": RUNNING}), where)
        await use(api, where)
        if intercepting != "none":
            await sidecar_terms(api, where)
            await intercept_everything(fake, api, intercepting)

    asked = await recorded(fake, tmp_path, flow)
    # Who only uses a manager waits for its pod without being told why there is none.
    optional = {Access("list", "apps", "deployments", where, MANAGER_NAME)} if preinstalled else set()
    assert {each for each in asked if not fake.allow(each)} <= optional
    assert superfluous(needed, asked) == set()
    assert too_broad(needed, asked) == set()


async def test_the_installers_rules_are_enough_and_each_is_needed(fake: FakeApi, tmp_path: Path) -> None:
    needed = rules("installer", "default")
    fake.allow = allowed(needed)
    asked = await recorded(fake, tmp_path, lambda api: install(fake, api, "default"))
    assert {each for each in asked if not fake.allow(each)} == set()
    assert superfluous(needed, asked) == set()
    assert too_broad(needed, asked) == set()


def test_what_is_granted_twice_is_printed_once() -> None:
    broad, named = Rule("", "pods", ("get", "list"), "a"), Rule("", "pods", ("get", "delete"), "b", ("m",))
    again, other = Rule("", "pods", ("list", "watch"), "c"), Rule("apps", "pods", ("get",), "d")
    assert minimal((named, broad, again, other)) == (
        replace(named, verbs=("delete",)),
        broad,
        replace(again, verbs=("watch",)),
        other,
    )
    assert minimal((named, named)) == (named,)


def test_two_namespaces_get_a_role_each() -> None:
    needed = rules("developer", "team", "tools", intercepting="none")
    assert {rule.resource for rule in needed["team"]} == {"services", "endpointslices"}
    assert {rule.resource for rule in needed["tools"]} == {
        "pods",
        "pods/portforward",
        "deployments",
        "replicasets",
        "services",
    }


@pytest.mark.parametrize("persona", ["developer", "installer"])
def test_the_yaml_says_what_the_rules_say(persona: Any) -> None:
    subjects = [Subject("User", "o'neil"), Subject("ServiceAccount", "sa", "ns"), Subject("Group", "yes")]
    role, binding = yaml.safe_load_all(manifest(persona, "team", subjects=subjects))
    assert (role["kind"], role["metadata"]["namespace"]) == ("Role", "team")
    assert role["rules"] == [
        {"apiGroups": [rule.group], "resources": [rule.resource], "verbs": list(rule.verbs)}
        | ({"resourceNames": list(rule.names)} if rule.names else {})
        for rule in rules(persona, "team")["team"]
    ]
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": role["metadata"]["name"],
    }
    assert binding["subjects"] == [
        {"kind": "User", "name": "o'neil", "apiGroup": "rbac.authorization.k8s.io"},
        {"kind": "ServiceAccount", "name": "sa", "namespace": "ns"},
        {"kind": "Group", "name": "yes", "apiGroup": "rbac.authorization.k8s.io"},
    ]


def test_what_is_applied_for_one_takes_nothing_from_another() -> None:
    """Two printed for one namespace: equal rules are one Role, everything else has a name of its own."""

    def named(user: str, **how: Any) -> tuple[set[str], set[str]]:
        made = list(yaml.safe_load_all(manifest("developer", "team", "ops", subjects=[Subject("User", user)], **how)))
        kinds = ("Role", "RoleBinding")
        role, bound = ({each["metadata"]["name"] for each in made if each["kind"] == kind} for kind in kinds)
        return role, bound

    jane, joe, patching = named("jane"), named("joe"), named("jane", intercepting="patch")
    assert jane[0] == joe[0]
    assert jane[1].isdisjoint(joe[1])
    assert len(jane[0] - patching[0]) == 1
    assert named("jane") == jane


def test_without_subjects_there_is_no_binding() -> None:
    assert [document["kind"] for document in yaml.safe_load_all(manifest("developer", "a", "b"))] == ["Role", "Role"]


async def test_a_service_that_is_the_workload_needs_no_right_more(fake: FakeApi, tmp_path: Path) -> None:
    needed = rules("developer", "default", "tools", intercepting="ephemeral")
    fake.allow = allowed(needed)

    async def flow(api: KubeApi) -> None:
        put_pod(fake, bare("p-1", labels={"app": "b"}))
        fake.put("services", service("b"))
        found = await resolve(api, parse_target("svc/b"), "default")
        assert found.workload.kind == "service"
        await join_one(fake, api, found, SidecarSpec("image:1", "m:15010", "tools", found.workload.uid))
        assert await is_there(api, found.workload)

    asked = await recorded(fake, tmp_path, flow)
    assert {each for each in asked if not fake.allow(each)} == set()
    assert {each.verb for each in asked if each.resource == "services"} == {"list", "watch"}


async def test_without_the_right_to_dry_run_a_pod_a_patch_is_tried_all_the_same(fake: FakeApi, tmp_path: Path) -> None:
    needed = rules("developer", "default", intercepting="patch")
    fake.allow = lambda asked: allowed(needed)(asked) and (asked.verb, asked.resource) != ("create", "pods")
    await recorded(fake, tmp_path, lambda api: intercept_everything(fake, api, "patch"))


async def intercept_everything(fake: FakeApi, api: KubeApi, strategy: Literal["ephemeral", "patch"]) -> None:
    """All that is done to a workload between proxy and leave, of each kind."""
    for kind in ("Deployment", "StatefulSet", "DaemonSet"):
        put_workload(fake, workload(kind, "b"), "b-1")
        found = await resolve(api, parse_target("pod/b-1"), "default")
        spec = SidecarSpec("image:1", "m:15010", "tools", found.workload.uid)
        await require(api, Access("get", "", "pods/log", "default"))
        assert await choose(api, found, await pods_of(api, found), spec, strategy) == strategy
        held = await leases.take(api, mesh(workload=found.workload), "jane@pc", "tools", observer=Observer())
        async with aclosing(leases.watch_workload(api, found.workload)) as changes:
            await anext(changes)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):  # until the watch is asked for
                    await anext(changes)
        await leases.renew(api, held, LeaseStatus("active"), lambda: 0)
        if strategy == "ephemeral":
            await join_one(fake, api, found, spec)
        else:
            with suppress(MeshdevError):  # nobody rolls out here
                await patch.enter(api, found, spec, held.spec.id, progress=lambda _: None, seconds=0.2)
            await attest_its_agent(fake, api, "default")
        stale = fake.objects["coordination.k8s.io", "leases"]["default", held.object["metadata"]["name"]]
        fake.put("leases", stale, group="coordination.k8s.io")  # somebody wrote into it
        await leases.renew(api, held, LeaseStatus("active"), lambda: 0)
        await leases.release(api, held)
        await patch.leave(api, found, partial(leases.anyone_on, api, found.workload, Observer()))
        fake.remove("pods", "b-1")


async def join_one(fake: FakeApi, api: KubeApi, found: Resolved, spec: SidecarSpec) -> None:
    """Until the first pod has its sidecar, and its token was asked for."""
    joined = asyncio.Event()

    def changed(state: Mapping[str, Replica]) -> None:
        if any(each.sidecars for each in state.values()):
            joined.set()

    keeping = asyncio.ensure_future(keep_joined(api, found, spec, changed=changed, failed=lambda *_: None))
    async with asyncio.timeout(5):
        await joined.wait()
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
    await attest_its_agent(fake, api, found.workload.namespace)


async def attest_its_agent(fake: FakeApi, api: KubeApi, namespace: str) -> None:
    """By each kind of carrier; nobody answers."""
    fake.logs["b-1", "meshdev-1"] = f"{AgentAnnouncement(16200, '5f' * 32)}\n".encode()

    async def forward(namespace: str, pod: str, port: int, kind: CarrierKind) -> PortForward:
        return await dial(api, namespace, pod, port, kind, 2)

    async def introduce(_request: bytes, _proof: str) -> attestation.ManagerCertificates:
        raise AssertionError("nobody answers")

    named = await attestation.announced(api, namespace, "b-1", "meshdev-1")
    agent = attestation.AgentAddress(namespace, "b-1", "uid", named.port, named.fingerprint)
    for kind in CARRIER_KINDS:
        with suppress(MeshdevError):
            await attestation.attest(partial(forward, kind=kind), agent, introduce)
