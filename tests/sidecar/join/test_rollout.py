"""How far a rollout is, from what the objects say."""

from typing import Any

import pytest

from meshdev.errors import AdmissionError, ClusterError, ImageError
from meshdev.sidecar.join.rollout import progress_of
from tests.kube.objects import pod, workload

Object = dict[str, Any]


def seen(kind: str, **status: Any) -> Object:
    made = workload(kind)
    return {**made, "status": {"observedGeneration": 1, **status}}


def waiting(container: str, reason: str, message: str = "", *, name: str = "b-1", init: bool = True) -> Object:
    made = pod(name, workload())
    statuses = [{"name": container, "state": {"waiting": {"reason": reason, "message": message}}}]
    made["status"]["initContainerStatuses" if init else "containerStatuses"] = statuses
    return made


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({**workload(), "status": {}}, "its controller has not seen the change yet"),
        (seen("Deployment"), "0 of 2 pods are replaced"),
        (seen("Deployment", replicas=3, updatedReplicas=1, availableReplicas=2), "1 of 2 pods are replaced"),
        (seen("Deployment", replicas=3, updatedReplicas=2, availableReplicas=2), "2 of 2 pods are replaced"),
        (seen("Deployment", replicas=2, updatedReplicas=2, availableReplicas=1), "1 of 2 pods are replaced"),
        (seen("Deployment", replicas=2, updatedReplicas=2, availableReplicas=2), None),
        (
            seen(
                "StatefulSet",
                replicas=2,
                updatedReplicas=1,
                availableReplicas=2,
                updateRevision="b",
                currentRevision="a",
            ),
            "1 of 2 pods are replaced",
        ),
        (seen("StatefulSet", replicas=2, availableReplicas=2, updateRevision="b", currentRevision="b"), None),
        (
            seen("DaemonSet", desiredNumberScheduled=3, updatedNumberScheduled=2, numberAvailable=3),
            "2 of 3 pods are replaced",
        ),
        (seen("DaemonSet", desiredNumberScheduled=3, updatedNumberScheduled=3, numberAvailable=3), None),
    ],
)
def test_counts(made: Object, expected: str | None) -> None:
    assert progress_of(made, []) == expected


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (waiting("b", "ErrImagePull", "no app:2", init=False), "container b of pod b-1: no app:2"),
        (waiting("b", "CrashLoopBackOff", init=False), "container b of pod b-1: CrashLoopBackOff"),
        (waiting("meshdev", "PodInitializing"), "0 of 2 pods are replaced"),
    ],
)
def test_what_may_pass_is_told(there: Object, words: str) -> None:
    assert progress_of(seen("Deployment"), [there]) == words


def test_a_pod_that_is_not_scheduled_and_one_that_goes() -> None:
    stuck = pod("b-1", workload())
    stuck["status"] = {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]}
    assert progress_of(seen("Deployment"), [stuck]) == "pod b-1 is not scheduled: 0/1 nodes"
    stuck["metadata"]["deletionTimestamp"] = "now"
    assert progress_of(seen("Deployment"), [stuck]) == "pod b-1 is terminating"


@pytest.mark.parametrize(
    ("reason", "kind", "words"),
    [
        ("ErrImageNeverPull", ImageError, "the sidecar's image cannot be pulled: container meshdev of pod b-1: why"),
        ("CrashLoopBackOff", ClusterError, "the sidecar cannot start: container meshdev of pod b-1: why"),
        ("CreateContainerConfigError", ClusterError, "the sidecar cannot start"),
    ],
)
def test_our_own_container_is_told_at_once(reason: str, kind: type[ClusterError], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        progress_of(seen("Deployment"), [waiting("meshdev", reason, "why")])
    assert ("--image" in (caught.value.hint or "")) == (kind is ImageError)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (
            'pods "b-1" is forbidden: violates PodSecurity "baseline:latest"',
            "the sidecar needs the capability NET_ADMIN",
        ),
        (
            'pods "b-1" is forbidden: exceeded quota: q, requested: cpu=50m',
            "its quota: kubectl -n team-1 describe quota",
        ),
        ('admission webhook "p" denied the request: no', "this is a policy of the cluster"),
    ],
)
def test_pods_that_are_refused_are_told_with_a_hint_of_their_own(words: str, hint: str) -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "message": words}
    made = seen("Deployment", conditions=[condition])
    made["metadata"]["namespace"] = "team-1"
    with pytest.raises(AdmissionError) as caught:
        progress_of(made, [])
    assert caught.value.message == words
    assert hint in (caught.value.hint or "")
    assert "manager" not in (caught.value.hint or "")  # it has nothing to do with that
