"""The cluster's life: start its programs in order, import images, apply the manifests, wait, stop."""

import json
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import addresses as plan
from tests.cluster import cgroups, components, manifests, packages, pki, processes
from tests.cluster.hashing import text_hash
from tests.cluster.images import Image
from tests.cluster.paths import ADMIN_KUBECONFIG, CONTAINERD_SOCKET, KUBECTL_CACHE, KUBELET_ROOT, LOGS, RUN, log_file
from tests.cluster.progress import wait_for
from tests.cluster.run import TestbedError, run
from tests.cluster.state import State

_STARTED_EARLY = ("containerd", "etcd", "apiserver")
_READY_SECONDS = 90.0
_ROLLOUT_SECONDS = 180
_SAMPLE_FACT = "manifests"


def write_configuration() -> None:
    """Certificates and configuration files; rewritten when they differ."""
    pki.create()
    for path, content in components.configuration_files().items():
        if not path.exists() or path.read_text() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    for folder in (LOGS, KUBELET_ROOT, RUN / "containerd"):
        folder.mkdir(parents=True, exist_ok=True)


def ensure_early(state: State, kubebox: Path) -> None:
    """Have what everything else waits for running."""
    cgroups.create()
    daemons = components.daemons(kubebox)
    for name in _STARTED_EARLY:
        # An API server that finds no etcd starts without knowing what etcd supports.
        if processes.ensure(state, daemons[name]) and name == "etcd":
            wait_for("etcd", lambda: _still(state, "etcd") and _etcd_answers(), _READY_SECONDS)


def ensure_late(state: State, kubebox: Path) -> None:
    """The rest, once the API server answers."""
    daemons = components.daemons(kubebox)
    for name in components.NAMES:
        if name not in _STARTED_EARLY:
            processes.ensure(state, daemons[name])


def restart(state: State, kubebox: Path, name: str) -> None:
    """Stop (if it runs) and start one component, and wait until it works."""
    daemon = components.daemons(kubebox).get(name)
    if daemon is None:
        raise TestbedError(f"there is no component {name}; there are: {', '.join(components.NAMES)}")
    processes.stop(state, name, daemon.stop_seconds)
    processes.ensure(state, daemon)
    wait_component(state, name)


def wait_component(state: State, name: str) -> None:
    """Wait until NAME answers; a component without an endpoint only has to run."""
    match name:
        case "containerd":
            wait_for("containerd", lambda: _still(state, name) and _containerd_answers(), _READY_SECONDS)
        case "apiserver":
            wait_for("the API server", lambda: _still(state, name) and _ready("/readyz"), _READY_SECONDS)
        case "etcd":
            wait_for("etcd", lambda: _still(state, name) and _etcd_answers(), _READY_SECONDS)
            wait_for("the API server", lambda: _ready("/readyz"), _READY_SECONDS)
        case "kubelet":
            wait_for("the node", lambda: _still(state, name) and _node_ready(), _READY_SECONDS, 0.3)
        case _:
            _still(state, name)


def _still(state: State, name: str) -> bool:
    """True while NAME runs; its log's end as an error when it does not."""
    if not processes.is_alive(state.processes.get(name)):
        raise TestbedError(f"{name} ended:\n{processes.tail(log_file(name))}")
    return True


def _containerd_answers() -> bool:
    return CONTAINERD_SOCKET.exists() and _quietly("ctr", "--address", CONTAINERD_SOCKET, "version")


def _etcd_answers() -> bool:
    url = f"{components.ETCD_URL}/health"
    return _quietly(
        *processes.in_network(plan.NODE_NAMESPACE), "curl", "-sf", "--max-time", "2", "-o", "/dev/null", url
    )


def _quietly(*argv: str | Path) -> bool:
    try:
        run(*argv, timeout=5)
    except TestbedError:
        return False
    return True


def _ready(path: str) -> bool:
    return _quietly(*kubectl_command(["get", "--raw", path, "--request-timeout=2s"]))


def _node_ready() -> bool:
    jsonpath = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    try:
        command = kubectl_command(["get", "node", plan.NODE_NAME, "-o", jsonpath, "--request-timeout=2s"])
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


def import_image(state: State, image: Image) -> bool:
    """Have IMAGE in containerd; True when it was imported now.

    `--digests` also makes a name with the manifest's digest, as a pull from a registry does: a sidecar is started by
    the digest that the manager runs.
    """
    fact = f"image:{image.name}"
    if state.facts.get(fact) == image.digest:
        return False
    repository = image.reference.rpartition(":")[0]
    command = ("ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", "images", "import")
    run(*command, "--base-name", repository, "--digests", image.archive)
    state.set_fact(fact, image.digest)
    return True


def ensure_sample(state: State, kubebox: Path, image: Image) -> None:
    """Apply the manifests when they are not the applied ones or something of theirs is missing; wait for it."""
    text = manifests.render(manifests.everything(kubebox, image.digest))
    wanted = text_hash([text])
    unready = _unready()
    if unready or state.facts.get(_SAMPLE_FACT) != wanted:
        kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=testbed", "-f", "-", stdin=text)
        state.set_fact(_SAMPLE_FACT, wanted)
        unready = _unready()
    for namespace, name in unready:
        kubectl("rollout", "status", "--namespace", namespace, name, f"--timeout={_ROLLOUT_SECONDS}s")


def _unready() -> list[tuple[str, str]]:
    listed = json.loads(kubectl("get", "deployments,statefulsets", "--all-namespaces", "-o", "json"))
    return manifests.unready(listed["items"])
