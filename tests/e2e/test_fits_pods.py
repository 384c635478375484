"""Pods as people have them: whatever their spec says, they are intercepted either way, and are as before afterwards.

Everything has names as long as Kubernetes takes them: the namespace here, a workload and its Service, a container, a
bare pod.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.cluster.images import SAMPLE_IMAGE
from tests.cluster.manifests import App, Manifest, Port
from tests.e2e import pods, workloads
from tests.e2e.accounts import apply, remove
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.intercepting import A1, LOCAL, Answer, ask, intercepted, listed, local
from tests.e2e.workloads import as_pod, container, http, of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

#: A namespace, a Service and a label's value have at most 63 characters; a pod more, but its log's folder on the node
#: (NAMESPACE_POD_UID) has at most 255.
NAMESPACE: Final = "fits-pods-".ljust(63, "n")
LONG: Final = "long-".ljust(63, "w")
LONG_POD: Final = "lone-".ljust(150, "p")
PORTS: Final = range(8080, 8090)
#: Agent and Envoy run as this user.
SIDECAR_UID: Final = 0
PRIORITY: Final = json.dumps(
    {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "fits-pods"},
        "value": 1000,
    }
)


def hardened() -> list[Manifest]:
    """As careful people write it, with a user that no image knows."""
    made = of(
        http("hardened"),
        NAMESPACE,
        priorityClassName="fits-pods",
        automountServiceAccountToken=False,
        securityContext={"runAsNonRoot": True, "runAsUser": 1234567890, "runAsGroup": 7, "fsGroup": 8},
    )
    container(made[0])["securityContext"] = {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    return made


def shared() -> list[Manifest]:
    """Containers see each other's processes, and the app's have the sidecar's user; it calls another service."""
    app = App("shared", ("--name=shared", "--port=8080", f"--next=http://hardened.{NAMESPACE}/"), http("x").ports)
    return of(app, NAMESPACE, shareProcessNamespace=True, securityContext={"runAsUser": SIDECAR_UID})


def initialized() -> list[Manifest]:
    """An init container, and a sidecar of its own that serves a port."""
    run = {"image": SAMPLE_IMAGE, "imagePullPolicy": "Never"}
    side = {"args": ["--name=side", "--port=8081"], "ports": [{"name": "side", "containerPort": 8081}]}
    return of(
        http("initialized"),
        NAMESPACE,
        initContainers=[
            {**run, "name": "before", "command": ["python3", "-c", "pass"]},
            {**run, "name": "side", "restartPolicy": "Always", **side},
        ],
    )


def ten() -> list[Manifest]:
    """Ten containers, each with a port of its own."""
    ports = tuple(Port(f"http-{number - PORTS[0]}", number) for number in PORTS)
    made = of(App("ten", (), ports), NAMESPACE)
    first = container(made[0])
    made[0]["spec"]["template"]["spec"]["containers"] = [
        {
            **first,
            "name": port.name,
            "args": [f"--name={port.name}", f"--port={port.container}"],
            "ports": [port.of_container()],
        }
        for port in ports
    ]
    return made


def scaled() -> list[Manifest]:
    """An autoscaler decides how many there are, and a budget lets nobody evict one."""
    hpa = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "scaled", "namespace": NAMESPACE},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "scaled"},
            "minReplicas": 1,
            "maxReplicas": 3,
        },
    }
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "scaled", "namespace": NAMESPACE},
        "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "scaled"}}},
    }
    return [*of(http("scaled"), NAMESPACE), hpa, budget]


def lone() -> list[Manifest]:
    """A bare pod with a long name, behind a Service with a short one."""
    made = of(http("lone"), NAMESPACE)
    pod = as_pod(made[0])
    pod["metadata"] = {**pod["metadata"], "name": LONG_POD}
    return [pod, made[1]]


@pytest.fixture(scope="module")
def there(cluster: None) -> Iterator[Laptop]:  # noqa: ARG001 -- for its effect
    """The workloads, B' on all of their ports, and the laptop connected."""
    apply(PRIORITY)
    made = [*hardened(), *shared(), *initialized(), *ten(), *scaled(), *lone(), *of(http(LONG), NAMESPACE)]
    laptop = Laptop(1)
    laptop.clean()
    try:
        with (
            workloads.namespace(NAMESPACE, *made),
            laptop.connected("-n", NAMESPACE, "--manager-namespace", "default"),
            local(laptop, *(f"--port={number}" for number in PORTS)),
        ):
            yield laptop
    finally:
        laptop.clean()
        remove(PRIORITY)


def fits(laptop: Laptop, name: str, original: str = "", *, url: str = "", flags: tuple[str, ...] = ()) -> None:
    """Mesh by an ephemeral container, which restarts nothing, and proxy by a patch; afterwards it is as it was."""
    target, url, original = f"deployment/{name}", url or f"http://{name}.{NAMESPACE}/", original or name
    before, there = workload(name), pods.identities(NAMESPACE, f"app={name}")
    with intercepted(laptop, "mesh", target, NAMESPACE, "-H", "a=1", *flags) as told:
        assert (told["strategy"], told["pods"]["acked"]) == ("ephemeral", told["pods"]["total"])
        assert ask(NAMESPACE, (url, A1), (url, {})) == [(200, LOCAL), (200, original)]
    assert ask(NAMESPACE, (url, A1)) == [(200, original)]
    assert pods.identities(NAMESPACE, f"app={name}") == there
    with intercepted(laptop, "proxy", target, NAMESPACE, "--strategy", "patch", *flags) as told:
        assert (told["strategy"], told["pods"]["acked"]) == ("patch", told["pods"]["total"])
        until("the Service leads to the new pods", lambda: ask(NAMESPACE, *[(url, {})] * 3) == [(200, LOCAL)] * 3, 5)
    assert workload(name)["spec"] == before["spec"]
    until("the original", lambda: ask(NAMESPACE, (url, {})) == [(200, original)], 10)
    assert listed(laptop, "-n", NAMESPACE) == []


def workload(name: str) -> Any:
    return json.loads(kubectl("-n", NAMESPACE, "get", "deployment", name, "-o", "json"))


def test_a_hardened_pod(there: Laptop) -> None:
    """PriorityClass, no token, a read-only root, a user that no image knows, no capability."""
    fits(there, "hardened")
    manager = json.loads(kubectl("-n", "default", "get", "deployment", "meshdev-traffic-manager", "-o", "json"))
    assert "priorityClassName" not in manager["spec"]["template"]["spec"]


#: Asks the pod itself, as one of its own processes does: by loopback and by its address.
_OWN: Final = """
import http.client, os, socket
for host in ("127.0.0.1", socket.gethostbyname(socket.gethostname())):
    connection = http.client.HTTPConnection(host, 8080, timeout=5)
    connection.request("GET", "/", headers={"a": "1"})
    print(os.getuid(), connection.getresponse().read().decode())
"""


def test_shared_processes_and_the_sidecars_own_user(there: Laptop) -> None:
    """No rule asks for users: what an app sends goes out as ever, whoever it runs as, and nothing comes round."""
    fits(there, "shared", "shared>hardened")
    kubectl("-n", NAMESPACE, "rollout", "status", "deployment/shared", "--timeout=60s")
    with intercepted(there, "mesh", "deploy/shared", NAMESPACE, "-H", "a=1"):
        (pod,) = pods.pods(NAMESPACE, "app=shared")
        said = kubectl("-n", NAMESPACE, "exec", pod["metadata"]["name"], "-c", "shared", "--", "python3", "-c", _OWN)
        assert said.splitlines() == [f"{SIDECAR_UID} shared>hardened"] * 2
        assert {"shared", "meshdev-1"} <= {each["name"] for each in every_container(pod)}


def every_container(pod: pods.Pod) -> list[dict[str, Any]]:
    spec = pod["spec"]
    return [*spec["containers"], *(spec.get("initContainers") or []), *(spec.get("ephemeralContainers") or [])]


def test_init_containers_and_a_native_sidecar(there: Laptop) -> None:
    fits(there, "initialized")
    kubectl("-n", NAMESPACE, "rollout", "status", "deployment/initialized", "--timeout=60s")
    (address,) = pods.addresses(NAMESPACE, "app=initialized")
    side, app = f"http://{address}:8081/", f"http://{address}:8080/"
    with intercepted(there, "mesh", "deploy/initialized", NAMESPACE, "-H", "a=1", "--port", "8080:side"):
        assert ask(NAMESPACE, (side, A1), (side, {}), (app, A1)) == [
            (200, LOCAL),
            (200, "side"),
            (200, "initialized"),
        ]


def test_ten_containers(there: Laptop) -> None:
    """All of their ports, or those of one container by its port's name."""

    def answers() -> list[Answer]:
        return ask(NAMESPACE, *[(f"http://ten.{NAMESPACE}:{number}/", A1) for number in PORTS])

    own = [(200, f"http-{number}") for number in range(len(PORTS))]
    assert answers() == own
    with intercepted(there, "proxy", "deploy/ten", NAMESPACE) as told:
        assert len(told["ports"]) == len(PORTS)
        assert answers() == [(200, LOCAL)] * len(PORTS)
    with intercepted(there, "mesh", "deploy/ten", NAMESPACE, "-H", "a=1", "--port", "8080:http-7"):
        assert answers() == [*own[:7], (200, LOCAL), *own[8:]]
    fits(there, "ten", "http-7", url=f"http://ten.{NAMESPACE}:8087/", flags=("--port", "8080:http-7"))


def test_names_of_63_characters(there: Laptop) -> None:
    assert (len(NAMESPACE), len(LONG)) == (63, 63)
    fits(there, LONG)
    assert there.ok("curl", "-sS", f"http://{LONG}/") == LONG
    with intercepted(there, "mesh", f"pod/{LONG_POD}", NAMESPACE, "-H", "a=1"):
        url = f"http://lone.{NAMESPACE}/"
        assert ask(NAMESPACE, (url, A1), (url, {})) == [(200, LOCAL), (200, "lone")]
        assert [each["target"] for each in listed(there, "-n", NAMESPACE)] == [f"pod/{LONG_POD}"]


def test_an_autoscaler_and_a_budget(there: Laptop) -> None:
    """The autoscaler's pods are intercepted; neither way changes their number, or is held up by the budget."""
    fits(there, "scaled")
    kubectl("-n", NAMESPACE, "rollout", "status", "deployment/scaled", "--timeout=60s")
    assert workload("scaled")["spec"]["replicas"] == 1
    with intercepted(there, "mesh", "deploy/scaled", NAMESPACE, "-H", "a=1"):
        kubectl("-n", NAMESPACE, "patch", "hpa", "scaled", "--type=merge", "-p", '{"spec": {"minReplicas": 2}}')

        def both() -> bool:
            (entry,) = listed(there, "-n", NAMESPACE)
            return bool(entry["pods"] == {"acked": 2, "total": 2})

        until("the autoscaler's pod is intercepted", both, 45)  # the autoscaler looks every 15 s
        each = [f"http://{address}:8080/" for address in pods.addresses(NAMESPACE, "app=scaled")]
        assert ask(NAMESPACE, *[(one, A1) for one in each]) == [(200, LOCAL)] * 2
    assert workload("scaled")["spec"]["replicas"] == 2
