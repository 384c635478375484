"""Why a container of ours does not start, and the hint that fits the kubelet's message. Pure."""

import re
from dataclasses import dataclass
from typing import Final, Literal

from meshdev.wire.session_intercepts import Strategy

#: k8s.io/kubernetes/pkg/kubelet/images/types.go, all but the ones that pass by themselves.
IMAGE_REASONS: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "SignatureValidationFailed",
    }
)
#: k8s.io/kubernetes/pkg/kubelet/kuberuntime/kuberuntime_container.go and container/sync_result.go.
START_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
#: It started, ended, and is started again after a pause.
CRASHES: Final = "CrashLoopBackOff"

#: The way out by the reason, and for failed pulls by the message of the registry or the runtime; the first that fits.
_BY_REASON: Final = {
    "ErrImageNeverPull": "{image} is not on the node and its pull policy is Never: load it, or use another: --image",
    "InvalidImageName": "{image!r} names no image: --image names one",
    "SignatureValidationFailed": "the node takes signed images only, and {image} is none: --image names another",
}
_CREDENTIALS: Final = re.compile(r"unauthorized|authentication required|authorization|denied|no basic auth|\b40[13]\b")
_BY_MESSAGE: Final = (
    (re.compile(r"not found|manifest unknown|no such image|does not exist"), "there is no {image}; another: --image"),
    (
        re.compile(r"dial tcp|no such host|i/o timeout|connection refused|unreachable|x509|HTTP response to HTTPS"),
        "the node does not reach the registry of {image}; an image that it can pull: --image",
    ),
)
_PRIVATE: Final = {
    "manager": "a private registry: --image-pull-secret; another image than {image}: --image",
    "sidecar": "the registry of {image} wants credentials: the pod's service account needs an imagePullSecret for it; "
    "another image: --image",
}
_NO_PROGRAM: Final = re.compile(r"executable file not found|no such file or directory")


@dataclass(frozen=True)
class Where:
    """A container of ours. *how* it came into its pod decides what can be changed about it."""

    namespace: str
    pod: str
    container: str
    image: str
    how: Literal["manager", Strategy]


def hint_for(reason: str, message: str, where: Where) -> str:
    """The way out for a container that waits for that *reason*."""
    if reason in IMAGE_REASONS:
        return _image(reason, message, where)
    if reason == CRASHES:
        return f"kubectl -n {where.namespace} logs {where.pod} -c {where.container} --previous"
    if reason in START_REASONS and "runAsNonRoot" in message:
        return "it has to run as root, for its one capability; a policy of the cluster seems to have changed its spec"
    if reason in START_REASONS and _NO_PROGRAM.search(message):
        return f"is {where.image} an image of meshdev's? another one: --image"
    return f"kubectl -n {where.namespace} describe pod {where.pod}"


def _image(reason: str, message: str, where: Where) -> str:
    text = _BY_REASON.get(reason)
    if text is None and _CREDENTIALS.search(message):
        text = _PRIVATE["manager" if where.how == "manager" else "sidecar"]
    if text is None:
        text = next((each for pattern, each in _BY_MESSAGE if pattern.search(message)), None)
    return (text or "the image is {image}; another one: --image").format(image=where.image)
