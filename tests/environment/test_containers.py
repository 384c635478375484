"""Which container, and which pod, is meant."""

from typing import Any

import pytest

from meshdev.environment.containers import best_pod, chosen_container


def pod(*names: str, init: tuple[str, ...] = (), default: str | None = None) -> dict[str, Any]:
    annotations = {"kubectl.kubernetes.io/default-container": default} if default else None
    spec = {"containers": [{"name": name} for name in names], "initContainers": [{"name": name} for name in init]}
    return {"metadata": {"annotations": annotations}, "spec": spec}


@pytest.mark.parametrize(
    ("there", "asked", "found"),
    [
        (pod("app", "log"), None, "app"),
        (pod("app", "log", default="log"), None, "log"),
        (pod("app", "log", default="none"), None, "app"),
        (pod("ours", "app"), None, "app"),
        (pod("ours", "app", default="ours"), None, "app"),
        (pod("app", "log"), "log", "log"),
        (pod("app", init=("setup", "ours")), "setup", "setup"),
    ],
)
def test_the_container(there: dict[str, Any], asked: str | None, found: str) -> None:
    assert chosen_container(there, asked, ["ours"])["name"] == found


def test_a_container_that_is_not_there() -> None:
    with pytest.raises(LookupError, match="there is no container ours; there is app, setup"):
        chosen_container(pod("app", init=("setup", "ours")), "ours", ["ours"])
    with pytest.raises(LookupError, match="there is no container"):
        chosen_container(pod("ours"), None, ["ours"])


def test_the_pod_is_ready_then_running_then_new() -> None:
    def one(name: str, created: str, phase: str, ready: str) -> dict[str, Any]:
        status = {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}
        return {"metadata": {"name": name, "creationTimestamp": created}, "status": status}

    pending = one("pending", "2026-01-03", "Pending", "False")
    starts = one("starts", "2026-01-02", "Running", "False")
    old, new = (one(name, name[-1], "Running", "True") for name in ("old-1", "new-2"))
    order = [pending, starts, old, new]
    for last in range(len(order), 0, -1):
        assert best_pod(order[:last]) is order[last - 1]
    assert best_pod([]) is None
