"""Targets that are refused before anything is touched."""

from typing import Any

import pytest

from meshdev.config import MANAGER_LABELS
from meshdev.errors import InterceptError
from meshdev.kube.refusals import refuse_patch, refuse_pods
from tests.kube.objects import pod, workload

Object = dict[str, Any]


def named(*names: str) -> list[Object]:
    return [{"name": name} for name in names]


def marked(**metadata: Any) -> Object:
    made = pod("b-1", workload())
    return {**made, "metadata": {**made["metadata"], **metadata}}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (pod("b-1", workload(), hostNetwork=True), "hostNetwork"),
        (marked(annotations={"kubernetes.io/config.mirror": "x"}), "static pod"),
        (marked(ownerReferences=[{"kind": "Node", "name": "n", "uid": "u", "controller": True}]), "static pod"),
        (marked(labels=dict(MANAGER_LABELS)), "own manager"),
        (pod("b-1", workload(), os={"name": "windows"}), "Windows"),
        (pod("b-1", workload(), containers=named("b", "istio-proxy")), "Istio redirects"),
        (pod("b-1", workload(), initContainers=named("istio-proxy")), "Istio redirects"),
        (pod("b-1", workload(), initContainers=named("linkerd-init")), "Linkerd redirects"),
        (pod("b-1", workload(), containers=named("traffic-agent")), "Telepresence redirects"),
        (marked(annotations={"ambient.istio.io/redirection": "enabled"}), "Istio (ambient) redirects"),
    ],
)
def test_pods_that_cannot_be_joined(made: Object, words: str) -> None:
    with pytest.raises(InterceptError) as caught:
        refuse_pods("deployment/b", [pod("b-0", workload()), made])
    assert caught.value.message.startswith("deployment/b cannot be intercepted: ")
    assert words in caught.value.message


def test_others_can() -> None:
    refuse_pods(
        "deployment/b", [pod("b-0", workload()), marked(annotations=None, labels=None), workload()["spec"]["template"]]
    )


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("Pod", {}, "containers of a pod"),
        ("ReplicaSet", {}, "does not replace its pods"),
        ("Deployment", {"paused": True}, "paused"),
        ("StatefulSet", {"updateStrategy": {"type": "OnDelete"}}, "OnDelete"),
        ("DaemonSet", {"updateStrategy": {"type": "OnDelete"}}, "OnDelete"),
        ("StatefulSet", {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}, "partition"),
    ],
)
def test_workloads_that_a_patch_does_not_reach(kind: str, spec: Object, words: str) -> None:
    made = workload(kind)
    with pytest.raises(InterceptError, match=words) as caught:
        refuse_patch("x/b", {**made, "spec": {**made["spec"], **spec}})
    assert "--strategy ephemeral" in (caught.value.hint or "")


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_workloads_that_it_reaches(kind: str) -> None:
    refuse_patch("x/b", workload(kind))
