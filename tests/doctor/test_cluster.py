"""Each check of the cluster fails for what an API server really answers: HTTP from end to end."""

import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from meshdev.doctor.checks.facts import Question
from meshdev.doctor.plan import diagnose
from meshdev.intercept.target import parse_target
from meshdev.kube.client import KubeApi
from meshdev.kube.kubeconfig import Options
from meshdev.kube.replicas import WORKLOAD_VARIABLE
from meshdev.sidecar.join.container import SidecarSpec, container
from meshdev.state import Paths
from meshdev.wire.session_api import Status
from tests.intercept.values import mesh
from tests.kube import objects
from tests.kube.conftest import write_kubeconfig
from tests.kube.fake_api import FakeApi
from tests.kube.test_leases import taken
from tests.kube.test_manager import RUNNING, put_manager_pod, put_service, waiting
from tests.kube.test_manager import pod as manager_pod

Findings = dict[str, dict[str, Any]]
Doctor = Callable[..., Awaitable[Findings]]
PSA = (403, 'pods "x" is forbidden: violates PodSecurity "baseline:latest": non-default capabilities')
NETWORKING = "networking.k8s.io"


@pytest.fixture
def doctor(fake: FakeApi, tmp_path: Path) -> Doctor:
    """Runs all checks and gives their findings by name."""
    paths = Paths(tmp_path / "run")

    async def run(
        *,
        server: str = "",
        user: Any = None,
        target: str | None = None,
        mode: int = 0o600,
        ssh: str | None = None,
        **cluster: Any,
    ) -> Findings:
        config = write_kubeconfig(tmp_path / "config", server or fake.url, user=user or {"token": "t"}, **cluster)
        config.chmod(mode)
        question = Question(
            options=Options(kubeconfig=str(config), environment={}, ssh=ssh),
            image="image:1",
            paths=paths,
            uid=os.getuid(),
            status=lambda: Status(state="disconnected"),
            helper=["/bin/true"],
            target=parse_target(target) if target else None,
        )
        found = {each.check: each.as_json() for each in await diagnose(question, lambda _: None)}
        assert not [each for each in found.values() if "internal error" in str(each["detail"])]
        return found

    return run


async def test_a_cluster_that_is_well(fake: FakeApi, doctor: Doctor) -> None:
    objects.put_workload(fake, objects.workload(), "b-1")
    found = await doctor()
    assert found["api-server"]["detail"].startswith(f"{fake.url} answers in")
    assert found["rbac-connect"]["state"] == found["rbac-intercept"]["state"] == "ok"
    assert found["manager"]["detail"] == "none runs in namespace default; meshdev connect creates it"
    assert found["manager-admission"]["state"] == "ok"
    assert found["sidecar-ephemeral"]["detail"] == "deployment/b takes it (tried by a dry run)"
    assert found["leftovers-cluster"]["state"] == found["clock"]["state"] == "ok"
    assert fake.names("deployments", "apps") == ["default/b"], "nothing is made"
    assert {asked.verb for asked in fake.asked if "review" not in asked.resource} <= {
        *("get", "list", "watch"),
        *("create", "patch"),  # by dry run
    }


async def test_a_clock_that_differs(fake: FakeApi, doctor: Doctor) -> None:
    fake.clock = lambda: time.time() - 90
    found = (await doctor())["clock"]
    assert (found["state"], found["hint"]) == ("warning", "timedatectl set-ntp true")
    assert "s ahead of the API server's" in found["detail"]


async def test_an_old_kubernetes(fake: FakeApi, doctor: Doctor) -> None:
    fake.kubernetes = "v1.23.4"
    assert (await doctor())["kubernetes-version"]["state"] == "warning"


async def test_a_node_that_is_behind(fake: FakeApi, doctor: Doctor) -> None:
    node = {"metadata": {"name": "node1"}, "status": {"nodeInfo": {"kubeletVersion": "v1.30.0"}}}
    fake.put("nodes", node, namespace="")
    found = (await doctor())["kubernetes-version"]
    assert (found["state"], "a node has v1.30.0" in found["detail"]) == ("warning", True)


async def test_credentials_that_are_not_accepted(fake: FakeApi, doctor: Doctor) -> None:
    fake.authenticate = lambda _: False
    found = await doctor()
    assert (found["api-server"]["state"], found["api-server"]["hint"]) == (
        "failed",
        "check them with: kubectl auth whoami",
    )
    assert found["rbac-connect"]["detail"] == "the API server does not answer"


async def test_a_plugin_that_fails(doctor: Doctor) -> None:
    plugin = {"exec": {"command": "false", "apiVersion": "client.authentication.k8s.io/v1"}}
    found = await doctor(user=plugin)
    assert found["credentials"]["state"] == "failed"
    assert "the credential plugin false failed" in found["credentials"]["detail"]
    assert found["api-server"]["state"] == "skipped"


async def test_a_key_that_is_not_there(doctor: Doctor) -> None:
    found = await doctor(user={"client-certificate": "/nowhere/crt", "client-key": "/nowhere/key"})
    assert found["kubeconfig-permissions"]["state"] == "ok"
    assert found["credentials"]["state"] == "failed"
    assert "/nowhere/crt" in found["credentials"]["detail"]


async def test_a_plugin_that_is_slow_takes_no_time_of_the_other_checks(doctor: Doctor) -> None:
    shown = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t"}}'
    plugin = {"command": "sh", "args": ["-c", f"sleep 4.2; echo '{shown}'"]}
    found = await doctor(user={"exec": plugin})
    assert (found["credentials"]["state"], "took 4." in found["credentials"]["detail"]) == ("warning", True)
    for check in ("kubernetes-version", "rbac-connect", "manager", "address-ranges"):
        assert found[check]["state"] in {"ok", "skipped"}, found[check]
        assert "no answer" not in found[check]["detail"]


async def test_no_credentials(doctor: Doctor) -> None:
    found = (await doctor(user={"as": "x"}))["credentials"]
    assert (found["state"], "anonymous" in found["detail"]) == ("warning", True)


async def test_a_kubeconfig_that_others_read(doctor: Doctor, tmp_path: Path) -> None:
    found = (await doctor(mode=0o644))["kubeconfig-permissions"]
    assert (found["state"], found["hint"]) == ("warning", f"chmod go-r {tmp_path / 'config'}")
    assert (await doctor(mode=0o666))["kubeconfig-permissions"]["state"] == "failed"


async def test_no_server_there(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken_port:
        address = f"http://127.0.0.1:{taken_port.getsockname()[1]}"
    found = await doctor(server=address)
    assert found["api-server"]["state"] == "failed"
    assert "connection refused" in found["api-server"]["detail"]
    assert found["address-ranges"]["state"] == "skipped"


async def test_a_server_that_never_answers(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = await doctor(server=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert found["api-server"]["detail"] == "no answer within 4 seconds"
    assert "kubectl get --raw /version" in found["api-server"]["hint"]
    assert found["tun"]["state"] == "ok", "the others are made"


async def test_a_bastion_that_is_not_there(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken_port:
        bastion = f"ann@127.0.0.1:{taken_port.getsockname()[1]}"
    found = await doctor(ssh=bastion)
    assert found["ssh"]["state"] == "failed"
    assert "127.0.0.1" in found["ssh"]["detail"]
    assert found["credentials"]["detail"] == "the bastion does not let you in"
    assert found["api-server"]["state"] == "skipped"


async def test_rights_that_are_missing(fake: FakeApi, doctor: Doctor) -> None:
    fake.allow = lambda asked: (asked.verb, asked.resource) not in {("create", "deployments"), ("get", "pods/log")}
    found = await doctor()
    assert found["rbac-connect"]["state"] == "failed"
    assert found["rbac-connect"]["detail"] == "you may not create deployments.apps in namespace default"
    assert "meshdev rbac -n default --user" in found["rbac-connect"]["hint"]
    assert (found["rbac-intercept"]["state"], "get pods/log" in found["rbac-intercept"]["detail"]) == ("warning", True)
    assert found["manager-admission"]["state"] == "skipped"
    put_manager_pod(fake, manager_pod("m-1", {"state": RUNNING}))
    assert (await doctor())["rbac-connect"]["state"] == "ok", "nobody has to install one"


async def test_services_that_may_not_be_seen(fake: FakeApi, doctor: Doctor) -> None:
    fake.allow = lambda asked: asked.resource != "endpointslices"
    found = (await doctor())["rbac-connect"]
    assert (found["state"], "list endpointslices" in found["detail"]) == ("warning", True)


async def test_one_strategy_alone(fake: FakeApi, doctor: Doctor) -> None:
    fake.allow = lambda asked: asked.resource != "pods/ephemeralcontainers"
    objects.put_workload(fake, objects.workload(), "b-1")
    found = await doctor(target="deployment/b")
    assert "--strategy patch" in found["rbac-intercept"]["detail"]
    assert (found["sidecar-ephemeral"]["state"], found["sidecar-patch"]["state"]) == ("skipped", "ok")


async def test_a_namespace_that_refuses_the_pods(fake: FakeApi, doctor: Doctor) -> None:
    objects.put_workload(fake, objects.workload(), "b-1")
    fake.refuse = {"create pods": PSA, "patch pods/ephemeralcontainers": PSA}
    found = await doctor(target="deployment/b")
    for check in ("manager-admission", "sidecar-ephemeral", "sidecar-patch"):
        assert found[check]["state"] == "failed", check
        assert "violates PodSecurity" in found[check]["detail"]
    assert "--manager-namespace" in found["manager-admission"]["hint"]
    assert "kubectl label namespace default pod-security" in found["sidecar-patch"]["hint"]


async def test_an_old_manager(fake: FakeApi, doctor: Doctor) -> None:
    put_manager_pod(fake, manager_pod("m-1", {"state": RUNNING}))
    found = await doctor()
    assert (found["manager"]["state"], "no intercepts" in found["manager"]["detail"]) == ("warning", True)
    assert found["manager-admission"]["detail"] == "it runs already"
    assert found["carrier-spdy"]["state"] == found["carrier-websocket"]["state"] == "failed"
    assert "refused with HTTP status 400" in found["carrier-spdy"]["detail"]


async def test_a_manager_that_does_not_start(fake: FakeApi, doctor: Doctor) -> None:
    put_manager_pod(fake, manager_pod("m-1", {"state": waiting("ImagePullBackOff", "no such image")}))
    found = await doctor()
    assert (found["manager"]["state"], "no such image" in found["manager"]["detail"]) == ("failed", True)
    assert found["carrier-spdy"]["detail"] == "the traffic-manager does not run"


async def test_a_target_that_is_not_there(doctor: Doctor) -> None:
    found = await doctor(target="deployment/x")
    assert found["sidecar-ephemeral"]["state"] == "failed"
    assert "x" in found["sidecar-ephemeral"]["detail"]


async def test_nothing_to_try(doctor: Doctor) -> None:
    found = await doctor()
    assert found["sidecar-patch"]["detail"].startswith("no workload in namespace default to try it with")
    assert found["network-policy"]["state"] == "skipped"


async def test_a_service_mesh(fake: FakeApi, doctor: Doctor) -> None:
    meshed = objects.workload(made_of=objects.template())
    objects.put_workload(fake, meshed)
    objects.put_pod(fake, objects.pod("b-1", meshed, initContainers=[{"name": "istio-init", "image": "x"}]))
    found = await doctor(target="deployment/b")
    assert found["service-mesh"]["state"] == "failed"
    assert found["service-mesh"]["detail"].startswith("Istio redirects the traffic of the pods of deployment/b")
    assert found["sidecar-ephemeral"]["state"] == "failed"
    assert (await doctor())["service-mesh"]["state"] == "warning"


async def test_a_network_policy(fake: FakeApi, doctor: Doctor) -> None:
    objects.put_workload(fake, objects.workload(), "b-1")
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]}
    fake.put("networkpolicies", {"metadata": {"name": "dns-only"}, "spec": spec}, group=NETWORKING)
    found = (await doctor(target="deployment/b"))["network-policy"]
    assert found["state"] == "failed"
    assert "networkpolicy/dns-only in namespace default (egress)" in found["detail"]
    assert "allow TCP 15010 and 15011" in found["hint"]
    fake.allow = lambda asked: asked.resource != "networkpolicies"
    assert (await doctor(target="deployment/b"))["network-policy"]["state"] == "skipped"


async def test_what_dead_sessions_leave(fake: FakeApi, doctor: Doctor) -> None:
    made = objects.put_workload(fake, objects.workload(), "b-1")
    put_service(fake, "uid")
    sidecar = container(SidecarSpec("image", "10.0.0.1:15010", "default", made["metadata"]["uid"]), "meshdev-1", made)
    assert WORKLOAD_VARIABLE in str(sidecar)
    joined = objects.pod("b-1", made, ephemeralContainers=[sidecar])
    joined["status"]["ephemeralContainerStatuses"] = [{"name": "meshdev-1", "state": {"running": {}}}]
    objects.put_pod(fake, joined)
    found = (await doctor())["leftovers-cluster"]
    assert (found["state"], "a sidecar runs in b-1" in found["detail"]) == ("warning", True)


async def test_an_intercept_that_nobody_renews(fake: FakeApi, doctor: Doctor, tmp_path: Path) -> None:
    fake.clock = lambda: time.time() - 120
    config = write_kubeconfig(tmp_path / "other", fake.url)
    async with await KubeApi.open(Options(kubeconfig=str(config), environment={})) as api:
        await taken(api, mesh())
    fake.clock = time.time
    found = (await doctor())["leftovers-cluster"]
    assert found["state"] == "warning"
    assert "deployment/b (jane@laptop): intercepted by a session that is gone" in found["detail"]
