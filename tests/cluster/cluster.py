"""The cluster's life: start its programs in order, import images, apply the manifests, wait, stop."""

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.cluster import addresses as plan
from tests.cluster import cgroups, components, manifests, packages, pki, processes
from tests.cluster.components import Programs
from tests.cluster.hashing import text_hash
from tests.cluster.images import Image
from tests.cluster.kinds import ClusterKind
from tests.cluster.paths import ADMIN_KUBECONFIG, KUBECTL_CACHE, LOGS, log_file
from tests.cluster.progress import wait_for
from tests.cluster.run import TestbedError, run, succeeds
from tests.cluster.state import State

_READY_SECONDS = 90.0
_ROLLOUT_SECONDS = 180
#: One try.
_TRY_SECONDS = 5
_REACH_SECONDS = 30
_SAMPLE_FACT = "manifests"
_REACH = Path(__file__).with_name("reach.py")


def write_configuration(kind: ClusterKind) -> None:
    """Certificates and configuration files; rewritten when they differ."""
    pki.create(kind)
    for path, content in components.configuration_files(kind).items():
        if not path.exists() or path.read_text() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    for folder in (
        LOGS,
        *(f for node in plan.nodes(kind) for f in (node.folders.kubelet_root, node.folders.containerd_run)),
    ):
        folder.mkdir(parents=True, exist_ok=True)


def ensure_early(state: State, kind: ClusterKind, programs: Programs) -> None:
    """Have what everything else waits for running."""
    cgroups.create([node.folders.cgroup for node in plan.nodes(kind)])
    daemons = components.daemons(kind, programs)
    for name in _early(kind):
        # An API server that finds no etcd starts without knowing what etcd supports.
        if processes.ensure(state, daemons[name]) and name == "etcd":
            wait_for("etcd", lambda: _still(state, "etcd") and _etcd_answers(), _READY_SECONDS)
    for name in _containerds(kind):
        wait_component(state, kind, name)


def ensure_late(state: State, kind: ClusterKind, programs: Programs) -> None:
    """The rest, once the API server answers. A node after the other: pod ranges are given in the order they come."""
    daemons = components.daemons(kind, programs)
    for name in components.CONTROL_PLANE:
        processes.ensure(state, daemons[name])
    for node in plan.nodes(kind):
        ensure_node(state, kind, programs, node)


def ensure_node(state: State, kind: ClusterKind, programs: Programs, node: plan.Node) -> None:
    """All programs of NODE run, and the cluster calls it ready."""
    daemons = components.daemons(kind, programs)
    processes.ensure(state, daemons[node.component("containerd")])
    wait_component(state, kind, node.component("containerd"))
    for name in ("kubelet", "kube-proxy"):
        processes.ensure(state, daemons[node.component(name)])
    wait_component(state, kind, node.component("kubelet"))


def restart(state: State, kind: ClusterKind, programs: Programs, name: str) -> None:
    """Stop (if it runs) and start one component, and wait until it works."""
    daemon = components.daemons(kind, programs).get(name)
    if daemon is None:
        raise TestbedError(f"there is no component {name}; there are: {', '.join(components.names(kind))}")
    processes.stop(state, name, daemon.stop_seconds)
    processes.ensure(state, daemon)
    wait_component(state, kind, name)


def _containerds(kind: ClusterKind) -> dict[str, plan.Node]:
    return {node.component("containerd"): node for node in plan.nodes(kind)}


def _kubelets(kind: ClusterKind) -> dict[str, plan.Node]:
    return {node.component("kubelet"): node for node in plan.nodes(kind)}


def _early(kind: ClusterKind) -> tuple[str, ...]:
    return (*_containerds(kind), "etcd", "apiserver")


def wait_component(state: State, kind: ClusterKind, name: str) -> None:
    """Wait until NAME answers; a component without an endpoint only has to run."""
    containerd, kubelet = _containerds(kind).get(name), _kubelets(kind).get(name)
    if containerd:
        wait_for(name, lambda: _still(state, name) and _containerd_answers(containerd), _READY_SECONDS)
    elif kubelet:
        wait_for(kubelet.name, lambda: _still(state, name) and _node_ready(kubelet), _READY_SECONDS, 0.3)
    elif name == "apiserver":
        wait_for("the API server", lambda: _still(state, name) and _ready("/readyz"), _READY_SECONDS)
    elif name == "etcd":
        wait_for("etcd", lambda: _still(state, name) and _etcd_answers(), _READY_SECONDS)
        wait_for("the API server", lambda: _ready("/readyz"), _READY_SECONDS)
    else:
        _still(state, name)


def _still(state: State, name: str) -> bool:
    """True while NAME runs; its log's end as an error when it does not."""
    if not processes.is_alive(state.processes.get(name)):
        raise TestbedError(f"{name} ended:\n{processes.tail(log_file(name))}")
    return True


def _containerd_answers(node: plan.Node) -> bool:
    socket = node.folders.containerd_socket
    return socket.exists() and succeeds("ctr", "--address", socket, "version", timeout=_TRY_SECONDS)


def _etcd_answers() -> bool:
    url = f"{components.ETCD_URL}/health"
    return succeeds(
        *processes.in_network(plan.NODE_NAMESPACE),
        "curl",
        "-sf",
        "--max-time",
        "2",
        "-o",
        "/dev/null",
        url,
        timeout=_TRY_SECONDS,
    )


def _ready(path: str) -> bool:
    return succeeds(*kubectl_command(["get", "--raw", path, "--request-timeout=2s"]), timeout=_TRY_SECONDS)


def _node_ready(node: plan.Node) -> bool:
    jsonpath = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    try:
        command = kubectl_command(["get", "node", node.name, "-o", jsonpath, "--request-timeout=2s"])
        return run(*command, timeout=5).strip() == "True"
    except TestbedError:
        return False


def kubectl_command(argv: Sequence[str]) -> list[str]:
    """kubectl as admin, in the node's namespace."""
    return [
        *processes.in_network(plan.NODE_NAMESPACE),
        str(packages.kubectl()),
        "--kubeconfig",
        str(ADMIN_KUBECONFIG),
        "--cache-dir",
        str(KUBECTL_CACHE),
        *argv,
    ]


def kubectl(*argv: str, stdin: str | None = None) -> str:
    """Run kubectl to its end and return what it printed."""
    return run(*kubectl_command(argv), stdin=stdin)


def import_image(state: State, node: plan.Node, image: Image) -> None:
    """Have IMAGE in NODE's containerd.

    `--digests` also makes a name with the manifest's digest, as a pull from a registry does: a sidecar is started by
    the digest that the manager runs.
    """
    repository = image.reference.rpartition(":")[0]
    command = ("ctr", "--address", node.folders.containerd_socket, "--namespace", "k8s.io", "images", "import")
    run(*command, "--base-name", repository, "--digests", image.archive)
    state.set_fact(_image_fact(node, image), image.digest)


def has_image(state: State, node: plan.Node, image: Image) -> bool:
    """Whether NODE's containerd has this very IMAGE."""
    return state.facts.get(_image_fact(node, image)) == image.digest


def _image_fact(node: plan.Node, image: Image) -> str:
    return f"image{node.suffix}:{image.name}"


def ensure_sample(state: State, kind: ClusterKind, support: Path, image: Image) -> None:
    """Apply the manifests when they are not the applied ones or something of theirs is missing; wait for it, and until
    every node reaches every Service of it."""
    text = manifests.render(manifests.everything(support, image.digest))
    wanted = text_hash([text])
    unready = _unready()
    if unready or state.facts.get(_SAMPLE_FACT) != wanted:
        kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=testbed", "-f", "-", stdin=text)
        state.set_fact(_SAMPLE_FACT, wanted)
        unready = _unready()
    for namespace, name in unready:
        kubectl("rollout", "status", "--namespace", namespace, name, f"--timeout={_ROLLOUT_SECONDS}s")
    listed = json.loads(kubectl("get", "services", "--all-namespaces", "-o", "json"))
    services = manifests.service_ports(listed["items"])
    for node in plan.nodes(kind):
        command = (*processes.in_network(node.namespace), sys.executable, str(_REACH), *services)
        wait_for(f"the Services on {node.name}", partial(succeeds, *command, timeout=_REACH_SECONDS), _READY_SECONDS)


def _unready() -> list[tuple[str, str]]:
    listed = json.loads(kubectl("get", "deployments,statefulsets", "--all-namespaces", "-o", "json"))
    return manifests.unready(listed["items"])
