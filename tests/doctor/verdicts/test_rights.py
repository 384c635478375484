"""What the user may do."""

from dataclasses import replace

import pytest

from meshdev.doctor.verdicts import rights
from meshdev.doctor.verdicts.rights import RightsFacts
from meshdev.kube.access import Access

LIST = Access("list", "", "pods", "n")
PATCH = Access("patch", "apps", "deployments", "n")
ALL = RightsFacts("n", "n", preinstalled=True, user="jane")
APPLY = "| kubectl apply -f -"


@pytest.mark.parametrize(
    ("change", "state", "detail", "hint"),
    [
        ({}, "ok", "you may connect in namespace n", None),
        ({"preinstalled": False}, "ok", "you may connect in namespace n and install the traffic-manager", None),
        (
            {"manager": [LIST]},
            "failed",
            "you may not list pods in namespace n",
            f"ask an administrator for: meshdev rbac -n n --preinstalled --user jane --connect-only {APPLY}",
        ),
        (
            {"manager": [LIST], "manager_namespace": "ops", "preinstalled": False, "user": "o'neil smith"},
            "failed",
            "you may not list pods in namespace n",
            (
                "ask an administrator for: meshdev rbac -n n --manager-namespace ops --user 'o'\\''neil smith' "
                f"--connect-only {APPLY}"
            ),
        ),
        (
            {"services": [LIST], "user": "system:serviceaccount:ci:deployer"},
            "warning",
            "you may not list pods in namespace n: only whole ranges and names that are asked for are routed",
            (
                f"ask an administrator for: meshdev rbac -n n --preinstalled --serviceaccount ci:deployer "
                f"--connect-only {APPLY}"
            ),
        ),
    ],
)
def test_connecting(change: dict[str, object], state: str, detail: str, hint: str | None) -> None:
    found = rights.connecting(replace(ALL, **change))  # type: ignore[arg-type]  # fields of several types
    assert (found.state, found.detail, found.hint) == (state, detail, hint)


@pytest.mark.parametrize(
    ("change", "state", "words"),
    [
        ({}, "ok", "you may intercept in namespace n"),
        ({"patch": [PATCH]}, "ok", "you may intercept in namespace n"),
        ({"ephemeral": [LIST]}, "ok", "by --strategy patch, which replaces the pods"),
        ({"ephemeral": [LIST], "patch": [PATCH]}, "warning", "no intercepts: you may not list pods"),
        ({"intercept": [LIST, PATCH]}, "warning", "list pods in namespace n, patch deployments.apps in namespace n"),
        ({"intercept": [replace(LIST, name=str(n)) for n in range(6)]}, "warning", "and 2 more"),
        ({"intercept": [LIST], "user": ""}, "warning", "--user YOU"),
    ],
)
def test_intercepting(change: dict[str, object], state: str, words: str) -> None:
    found = rights.intercepting(replace(ALL, **change))  # type: ignore[arg-type]  # fields of several types
    assert found.state == state
    assert words in f"{found.detail} {found.hint}"
