"""A pod with the manager's labels that its Deployment does not own: not dialled, whoever comes or comes back."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from meshdev.config import MANAGER_LABELS, MANAGER_NAME
from tests.e2e import pods
from tests.e2e.accounts import account, apply, kubeconfig, role
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.test_permissions import FORWARD, PODS, SERVICES, SLICES

pytestmark = [pytest.mark.cluster, pytest.mark.every_cluster, pytest.mark.timeout(120)]

COPY: Final = "look-alike"
TUNNEL: Final = re.compile(r"meshdev\.manager\.tunnel")
_SELECTOR: Final = ",".join(f"{key}={value}" for key, value in MANAGER_LABELS.items())
#: Of the pod's spec: what its container would have to be the same.
_KEPT: Final = ("containers", "volumes", "securityContext", "nodeSelector", "automountServiceAccountToken")


@contextmanager
def look_alike() -> Iterator[None]:
    """A pod that works as the manager, runs, and is newer than it: of the same image, commands and labels."""
    (there,) = pods.pods("default", _SELECTOR)
    made = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": COPY,
            "namespace": "default",
            "labels": MANAGER_LABELS,
            "annotations": there["metadata"]["annotations"],
        },
        "spec": {name: value for name, value in there["spec"].items() if name in _KEPT},
    }
    created = there["metadata"]["creationTimestamp"]  # whole seconds
    until("a second later", lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") > created, 5)
    apply(json.dumps(made))
    try:
        kubectl("wait", "--for=condition=Ready", f"pod/{COPY}", "--timeout=30s")
        yield
    finally:
        kubectl("delete", "pod", COPY, "--now")


def served_by(laptop: Laptop) -> str | None:
    """The manager's pod by the session, while the connection stands."""
    status: dict[str, Any] = laptop.status()
    return status["manager"]["pod"] if status["state"] == "connected" else None


def test_a_look_alike_is_not_dialled(laptop: Laptop) -> None:
    """Neither by a session whose manager's container restarts, nor by one that connects."""
    with laptop.connected():
        own = served_by(laptop)
        (manager,) = pods.pods("default", _SELECTOR)
        with look_alike():
            pods.kill(manager, TUNNEL)
            until("connected again", lambda: _restarts(manager) > 0 and served_by(laptop) is not None)
            assert served_by(laptop) == own
            laptop.ok("curl", "-sS", "--fail", "--max-time", "5", "http://b/")
            laptop.meshdev("disconnect")
            done = laptop.run("meshdev", "connect")
            assert done.returncode == 0, done.stderr
            assert served_by(laptop) == own
            assert f"pod {COPY} has the manager's labels but is not used" in done.stdout + done.stderr


def _restarts(pod: pods.Pod) -> int:
    there = pods.identities("default", _SELECTOR)
    return there[pod["metadata"]["name"]][1]


def test_one_alone_is_replaced_by_a_manager(laptop: Laptop) -> None:
    with laptop.connected():
        pass
    with look_alike():
        kubectl("delete", "deployment", MANAGER_NAME)
        kubectl("wait", "--for=delete", "pod", "-l", f"{_SELECTOR},pod-template-hash", "--timeout=30s")
        with laptop.connected():
            found = served_by(laptop)
            assert found is not None
            assert found.startswith(f"{MANAGER_NAME}-")


def test_whoever_may_not_read_the_deployment_connects_and_is_told(laptop: Laptop, tmp_path: Path) -> None:
    with laptop.connected():
        pass
    with account("less", role("less", "default", [PODS, FORWARD, SERVICES, SLICES])) as user:
        config = kubeconfig(tmp_path, "less")
        with look_alike():
            done = laptop.run("meshdev", "connect", "--kubeconfig", config)
            assert done.returncode == 0, done.stderr
            told = done.stdout + done.stderr
            assert told.count(f"is not checked: you ({user}) may not get ") == 1
            assert f"pod {COPY} has the manager's labels but is not used" in told
            assert (served_by(laptop) or "").startswith(f"{MANAGER_NAME}-")
