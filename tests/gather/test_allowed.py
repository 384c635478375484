"""Only listed fields of objects are in a bug report."""

import json
from typing import Any

import pytest

from meshdev.gather import allowed
from meshdev.gather.allowed import only
from meshdev.kube.manifest import ManagerSpec, deployment
from tests.gather import planted

SHAPE: allowed.Shape = {"a": None, "b": {"c": None}}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"a": 1, "b": {"c": "x", "d": "secret"}, "e": "secret"}, {"a": 1, "b": {"c": "x"}}),
        ({"a": {"secret": 1}}, {"a": None}),
        ({"a": ["x", {"secret": 1}]}, {"a": ["x", None]}),
        ({"b": [{"c": True}, {"d": 1}]}, {"b": [{"c": True}, {}]}),
        ({"b": "secret"}, {"b": None}),
        ({}, {}),
        ("secret", None),
    ],
)
def test_what_is_not_listed_is_left_out(value: object, wanted: object) -> None:
    assert only(value, SHAPE) == wanted


def test_an_apps_pod() -> None:
    found = allowed.workload_pod(planted.careless_pod("b-1"))
    assert planted.seen_in(json.dumps(found)) == []
    assert found["spec"]["containers"] == [{"name": "b"}]
    (sidecar,) = found["spec"]["ephemeralContainers"]
    assert sidecar == {
        "name": "meshdev-1",
        "image": "traffic-manager:1",
        "env": [
            {"name": "MESHDEV_MANAGER", "value": "10.96.0.7:15010"},
            {"name": "MESHDEV_PROBES"},
            {"name": "OTEL_EXPORTER_OTLP_HEADERS"},
        ],
    }
    (status,) = found["status"]["containerStatuses"]
    assert status["lastState"] == {"terminated": {"exitCode": 1, "reason": "Error"}}
    assert found["status"]["phase"] == "Running"


def test_the_managers_deployment() -> None:
    made: Any = deployment(ManagerSpec("default", "image:1"))
    made["spec"]["template"]["spec"]["containers"][1]["env"] += [{"name": "OTEL_X", "value": planted.HEADERS}]
    made["spec"]["template"]["spec"]["containers"].append({"name": "injected", "env": [{"value": planted.HEADERS}]})
    found = allowed.manager_deployment(made)
    assert planted.seen_in(json.dumps(found)) == []
    tunnel, control, _, injected = found["template"]["containers"]
    assert tunnel["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "MKNOD"]}
    assert {"name": "OTEL_X"} in control["env"]
    assert injected == {"name": "injected"}


def test_what_a_probe_printed_is_the_apps_and_what_kubernetes_says_is_not() -> None:
    of_app = allowed.event(planted.event("b-1", "spec.containers{b}"))
    assert planted.seen_in(json.dumps(of_app)) == []
    assert "message" not in of_app
    assert allowed.event(planted.event("b-1"))["message"] == "Scheduled to a node"
    ours = allowed.event(planted.event("b-1", "spec.ephemeralContainers{meshdev-1}"))
    assert ours["message"].startswith("Readiness probe failed")


def kubeconfig(**cluster: Any) -> dict[str, Any]:
    return {
        "current-context": "c",
        "contexts": {"c": {"cluster": "k", "user": "u", "namespace": "team-1"}, "d": {}},
        "clusters": {"k": {"server": "https://10.0.0.1:6443", **cluster}},
        "users": {each["name"]: each["user"] for each in planted.users()},
    }


def test_the_kubeconfig() -> None:
    data = {"certificate-authority-data": planted.ANNOTATION, "insecure-skip-tls-verify": False}
    found = allowed.kubeconfig(kubeconfig(**data), "c")
    assert found == {
        "entries": {"contexts": 2, "clusters": 1, "users": 2},
        "context": {"name": "c", "cluster": "k", "user": "u", "namespace": "team-1"},
        "cluster": {
            "server": "https://10.0.0.1:6443",
            "insecure-skip-tls-verify": False,
            "has": ["certificate-authority-data"],
        },
        "user": {"has": ["client-key-data", "password", "token", "username"]},
    }
    assert allowed.kubeconfig({}, "missing")["user"] == {"has": []}


def test_the_credentials_of_all_users_are_known() -> None:
    known = allowed.secrets_of(kubeconfig())
    assert known == {planted.TOKEN, planted.PASSWORD, planted.KEY, planted.EXEC}
    provider = {"users": {"x": {"auth-provider": {"config": {"id-token": planted.TOKEN}}}}}
    assert allowed.secrets_of(provider) == {planted.TOKEN}
    assert allowed.secrets_of({}) == frozenset()
