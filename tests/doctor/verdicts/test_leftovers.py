"""The connection, and what former ones left."""

import pytest

from meshdev.doctor.verdicts import leftovers
from meshdev.doctor.verdicts.leftovers import ClusterLeftovers, DeadIntercept
from meshdev.wire.session_api import Status


@pytest.mark.parametrize(
    ("status", "state", "words"),
    [
        (Status(state="disconnected"), "ok", "none"),
        (Status(state="disconnected", notes=("the last connection ended at 1",)), "ok", "none; the last connection"),
        (Status(state="connected", context="c", namespace="n"), "ok", "connected to c, namespace n"),
        (Status(state="connecting"), "ok", "connecting to the cluster"),
        (Status(state="degraded", context="c", notes=("a route went",)), "warning", "degraded to c"),
        (Status(state="reconnecting", notes=("no answer",)), "warning", "no answer"),
    ],
)
def test_the_connection(status: Status, state: str, words: str) -> None:
    found = leftovers.connection(status)
    assert found.state == state
    assert words in found.detail


def test_what_is_left_on_this_machine() -> None:
    assert leftovers.on_this_machine(()).state == "ok"
    found = leftovers.on_this_machine(("network device meshdev0", "the former /etc/resolv.conf"))
    assert (found.state, found.hint) == ("warning", "meshdev restore")
    assert "meshdev0, the former" in found.detail


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        (ClusterLeftovers("n"), "ok", "namespace n"),
        (
            ClusterLeftovers("n", [DeadIntercept("deployment/b", "ann@x", "meshdev-1")]),
            "warning",
            "delete leases meshdev-1",
        ),
        (ClusterLeftovers("n", sidecars=["b-1"]), "warning", "a sidecar runs in b-1"),
        (
            ClusterLeftovers("n", patched=["deployment/b"]),
            "warning",
            "meshdev connect, then meshdev leave -n n deployment/b",
        ),
    ],
)
def test_what_is_left_in_the_cluster(facts: ClusterLeftovers, state: str, words: str) -> None:
    found = leftovers.in_the_cluster(facts)
    assert found.state == state
    assert words in f"{found.detail} {found.hint}"
