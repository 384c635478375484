"""Targets as they are typed."""

import pytest

from meshdev.errors import UsageError
from meshdev.intercept.target import Target, parse_target


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        *((f"{word}/b", Target("deployment", "b")) for word in ("deployment", "deployments", "deploy", "Deployment")),
        *((f"{word}/b", Target("statefulset", "b")) for word in ("statefulset", "statefulsets", "sts")),
        *((f"{word}/b", Target("daemonset", "b")) for word in ("daemonset", "daemonsets", "ds")),
        *((f"{word}/b", Target("replicaset", "b")) for word in ("replicaset", "replicasets", "rs")),
        *((f"{word}/b", Target("pod", "b")) for word in ("pod", "pods", "po")),
        *((f"{word}/b", Target("service", "b")) for word in ("service", "services", "svc")),
        ("deployment.apps/b", Target("deployment", "b")),
        ("deployments.v1.apps/b", Target("deployment", "b")),
        ("pod/b-1.x", Target("pod", "b-1.x")),
    ],
)
def test_kinds_and_short_names(typed: str, expected: Target) -> None:
    assert parse_target(typed) == expected
    assert parse_target(str(expected)) == expected


@pytest.mark.parametrize(
    "typed", ["", "b", "/b", "deploy/", "deploy/B", "deploy/b/c", "job/b", "deployment.batch/b", "deploy/../x", "d\0/b"]
)
def test_what_cannot_be_meant_says_how_to_write_it(typed: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_target(typed)
    assert "deployment/b" in (caught.value.hint or "")


def test_hints_speak_of_what_was_typed() -> None:
    with pytest.raises(UsageError) as caught:
        parse_target("web")
    assert (caught.value.hint or "").startswith("deployment/web or svc/web? ")
    for kind in ("rc", "job", "rollout"):
        with pytest.raises(UsageError, match=f"{kind}' is no kind") as caught:
            parse_target(f"{kind}/x")
        assert "by a Service that selects them" in (caught.value.hint or "")
