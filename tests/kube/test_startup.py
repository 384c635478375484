"""Why a container does not start, and a way out that fits: as kubelets, runtimes and registries say it."""

from dataclasses import replace

import pytest

from meshdev.kube.startup import Where, hint_for

EPHEMERAL = Where("team-1", "b-1", "meshdev-1", "registry.corp/tm:1", "ephemeral")
PATCH = replace(EPHEMERAL, container="meshdev", how="patch")
MANAGER = Where("tools", "m-1", "tunnel", "registry.corp/tm:1", "manager")
DESCRIBE = "kubectl -n team-1 describe pod b-1"

PULL = 'failed to pull and unpack image "registry.corp/tm:1": failed to resolve reference "registry.corp/tm:1": '
MISSING = PULL + "registry.corp/tm:1: not found"
UNAUTHORIZED = PULL + "failed to authorize: failed to fetch anonymous token: unexpected status: 401 Unauthorized"
DOCKER = "pull access denied for registry.corp/tm, repository does not exist or may require 'docker login'"
UNREACHABLE = (
    PULL + 'failed to do request: Head "https://registry.corp/v2/": dial tcp: lookup registry.corp: no such host'
)
UNTRUSTED = PULL + "tls: failed to verify certificate: x509: certificate signed by unknown authority"


@pytest.mark.parametrize(
    ("reason", "message", "where", "hint"),
    [
        ("ErrImagePull", MISSING, EPHEMERAL, "there is no registry.corp/tm:1; another: --image"),
        ("ImagePullBackOff", MISSING, MANAGER, "there is no registry.corp/tm:1; another: --image"),
        ("ErrImagePull", UNAUTHORIZED, MANAGER, "a private registry: --image-pull-secret"),
        ("ErrImagePull", UNAUTHORIZED, EPHEMERAL, "the pod's service account needs an imagePullSecret"),
        ("ErrImagePull", DOCKER, PATCH, "the pod's service account needs an imagePullSecret"),
        ("ErrImagePull", UNREACHABLE, EPHEMERAL, "the node does not reach the registry of registry.corp/tm:1"),
        ("ErrImagePull", UNTRUSTED, MANAGER, "the node does not reach the registry of registry.corp/tm:1"),
        (
            "ImagePullBackOff",
            'Back-off pulling image "x"',
            EPHEMERAL,
            "the image is registry.corp/tm:1; another one: --i",
        ),
        ("ErrImageNeverPull", "", EPHEMERAL, "is not on the node and its pull policy is Never"),
        ("InvalidImageName", "couldn't parse image reference", MANAGER, "'registry.corp/tm:1' names no image"),
        ("SignatureValidationFailed", "", MANAGER, "the node takes signed images only"),
        ("CreateContainerConfigError", "services have not yet been read", EPHEMERAL, DESCRIBE),
        (
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root",
            PATCH,
            "has to run as root",
        ),
        ("CreateContainerError", "no seccomp profile", EPHEMERAL, DESCRIBE),
        (
            "RunContainerError",
            'exec: "python3": executable file not found in $PATH',
            EPHEMERAL,
            "is registry.corp/tm:1 an image of meshdev's? another one: --image",
        ),
        ("CrashLoopBackOff", "back-off 10s", MANAGER, "kubectl -n tools logs m-1 -c tunnel --previous"),
        ("CrashLoopBackOff", "back-off 10s", PATCH, "kubectl -n team-1 logs b-1 -c meshdev --previous"),
    ],
)
def test_the_hint_fits_the_cause(reason: str, message: str, where: Where, hint: str) -> None:
    found = hint_for(reason, message, where)
    assert hint in found
    # What has nothing to do with the image does not speak of it.
    assert ("--image" in found) == ("--image" in hint or "Image" in reason or "image" in hint)
