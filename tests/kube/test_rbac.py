"""`meshdev rbac` prints what the code asks, no more and no less."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshdev.errors import ManagerError, MeshdevError
from meshdev.kube import manager
from meshdev.kube.access import Access
from meshdev.kube.client import KubeApi
from meshdev.kube.kubeconfig import Options
from meshdev.kube.manifest import ManagerSpec
from meshdev.kube.portforward import dial
from meshdev.kube.ranges import watch_addresses
from meshdev.kube.rbac import Rule, Subject, manifest, rules
from tests.kube.conftest import write_kubeconfig
from tests.kube.fake_api import FakeApi
from tests.kube.test_manager import RUNNING, controller, pod

SPEC = ManagerSpec("default", "image:1")


async def install(api: KubeApi) -> None:
    """Everything that may be done to the Deployment, with a start that fails in between."""
    created: list[manager.Created] = []
    with suppress(ManagerError):
        await manager.ensure(api, SPEC, progress=lambda _: None, on_created=created.append, seconds=0.2)
    await manager.replace(api, ManagerSpec("default", "image:2"), progress=lambda _: None)
    await manager.uninstall(api, "default")


def cluster(fake: FakeApi) -> Callable[[str, dict[str, Any]], None]:
    """A pod runs only after the Deployment was replaced, and goes with it."""

    def created(_resource: str, _item: dict[str, Any]) -> None:
        if fake.asked[-1].verb == "update":
            fake.put("pods", pod("m", {"state": RUNNING}))

    fake.deleted = lambda _: fake.remove("pods", "m")
    return created


async def use(api: KubeApi) -> None:
    """What a session does with a manager that runs."""
    await manager.find_pod(api, "default")
    await manager.wait(api, "default", progress=lambda _: None)
    with suppress(MeshdevError):
        await dial(api, "default", "m", 9000, "spdy", 2)
    with suppress(MeshdevError):
        await dial(api, "default", "m", 9000, "websocket", 2)
    async with aclosing(watch_addresses(api, "default", lambda _: None)) as changes:
        await anext(changes)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):  # until both watches are asked for
                await anext(changes)


def allowed(needed: dict[str, tuple[Rule, ...]]) -> Callable[[Access], bool]:
    return lambda asked: any(rule.allows(asked) for rule in needed.get(asked.namespace, ()))


async def recorded(fake: FakeApi, tmp_path: Path, flow: Callable[[KubeApi], Awaitable[None]]) -> set[Access]:
    """What the server was asked, and what the client says that it asks."""
    path = write_kubeconfig(tmp_path / "config", fake.url)
    async with await KubeApi.open(Options(kubeconfig=str(path), environment={})) as api:
        said: list[Access] = []
        api.on_access = said.append
        await flow(api)
    assert set(said) == set(fake.asked)
    return set(said)


def unused(needed: dict[str, tuple[Rule, ...]], asked: set[Access]) -> set[tuple[str, str, str]]:
    """Verbs of the rules that nothing asked for."""
    return {
        (verb, rule.group, rule.resource)
        for namespace, each in needed.items()
        for rule in each
        for verb in rule.verbs
        if not any(a.namespace == namespace and rule.allows(a) and a.verb == verb for a in asked)
    }


async def test_the_installers_rules_are_what_installing_asks(fake: FakeApi, tmp_path: Path) -> None:
    needed = rules("installer", "default")
    fake.allow = allowed(needed)
    fake.created = cluster(fake)
    asked = await recorded(fake, tmp_path, install)
    assert unused(needed, asked) == set()


async def test_the_developers_rules_are_what_connecting_asks(fake: FakeApi, tmp_path: Path) -> None:
    needed = rules("developer", "default")
    fake.allow = allowed(needed)

    async def flow(api: KubeApi) -> None:
        fake.created = cluster(fake)
        await install(api)
        fake.created = controller(fake, pod("m", {"state": RUNNING}))
        await manager.ensure(api, SPEC, progress=lambda _: None, on_created=lambda _: None)
        await use(api)

    asked = await recorded(fake, tmp_path, flow)
    assert unused(needed, asked) == set()


async def test_with_a_manager_there_no_deployment_right_is_needed(fake: FakeApi, tmp_path: Path) -> None:
    needed = rules("developer", "default", preinstalled=True)
    fake.allow = allowed(needed)
    fake.put("pods", pod("m", {"state": RUNNING}))

    async def flow(api: KubeApi) -> None:
        await manager.ensure(api, SPEC, progress=lambda _: None, on_created=lambda _: None)
        await use(api)

    asked = await recorded(fake, tmp_path, flow)
    assert {each.resource for each in asked if fake.allow(each)} == {
        "pods",
        "pods/portforward",
        "services",
        "endpointslices",
    }


def test_two_namespaces_get_a_role_each() -> None:
    needed = rules("developer", "team", "tools")
    assert {rule.resource for rule in needed["team"]} == {"services", "endpointslices"}
    assert {rule.resource for rule in needed["tools"]} == {"pods", "pods/portforward", "deployments"}


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


def test_without_subjects_there_is_no_binding() -> None:
    assert [document["kind"] for document in yaml.safe_load_all(manifest("developer", "a", "b"))] == ["Role", "Role"]
