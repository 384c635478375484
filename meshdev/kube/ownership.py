"""Which of the pods with the manager's labels are its Deployment's own.

A guard against accidents: a copy of the pod, another Deployment with the same labels, what a deleted Deployment leaves
behind. It is none against users who may create pods in that namespace: they control the manager anyway
(docs/security.md).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from meshdev.config import MANAGER_NAME
from meshdev.errors import ForbiddenError
from meshdev.kube.client import KubeApi, Object, deployments_path, workloads_path
from meshdev.kube.errors import NotFoundError

log = logging.getLogger(__name__)

Note = Callable[[str], None]

_DEPLOYMENT: Final = f"deployment/{MANAGER_NAME}"


class Ownership:
    """Reads ReplicaSet and Deployment of each pod once; *note* is called with what the user should know."""

    def __init__(self, api: KubeApi, namespace: str, note: Note) -> None:
        self._api = api
        self._namespace = namespace
        self._note = note
        self._verdicts: dict[tuple[object, ...], str | None] = {}
        #: Why the last pod that was refused is not the manager's.
        self.refused = ""

    async def accepts(self, pod: Object) -> bool:
        """Whether the pod may be used as the manager's; True, noted, where that may not be read."""
        key = _identity(pod)
        if key not in self._verdicts:
            self._verdicts[key] = why = await self._examine(pod)
            if why is not None:
                self.refused = f"pod {pod['metadata']['name']} has the manager's labels but is not used: {why}"
                self._report(self.refused)
        return self._verdicts[key] is None

    async def _examine(self, pod: Object) -> str | None:
        why = stray(pod)
        if why is not None:
            return why
        replicaset, deployment = await asyncio.gather(
            self._read(workloads_path(self._namespace, "replicaset", str((_controller(pod) or {})["name"]))),
            self._read(deployments_path(self._namespace, MANAGER_NAME)),
        )
        missing = [each.message for each in (replicaset, deployment) if isinstance(each, ForbiddenError)]
        if isinstance(replicaset, ForbiddenError) or isinstance(deployment, ForbiddenError):
            self._report(f"whether the manager's pod belongs to {_DEPLOYMENT} is not checked: {'; '.join(missing)}")
            return None
        return foreign(pod, replicaset, deployment)

    async def _read(self, path: str) -> Object | ForbiddenError | None:
        try:
            return await self._api.get(path)
        except NotFoundError:
            return None
        except ForbiddenError as error:
            return error

    def _report(self, text: str) -> None:
        log.info("%s", text)
        self._note(text)


def stray(pod: Object) -> str | None:
    """Why the pod cannot be the Deployment's, as far as the pod itself tells.

    The ReplicaSet is named after the Deployment and the label that the Deployment's controller sets
    (k8s.io/kubernetes/pkg/controller/deployment/sync.go: getNewReplicaSet).
    """
    controller = _controller(pod)
    if controller is None or controller.get("kind") != "ReplicaSet":
        return f"it does not belong to {_DEPLOYMENT}"
    template_hash = (pod["metadata"].get("labels") or {}).get("pod-template-hash", "")
    if controller["name"] != f"{MANAGER_NAME}-{template_hash}":
        return f"it belongs to replicaset/{controller['name']}, which is not of {_DEPLOYMENT}"
    return None


def foreign(pod: Object, replicaset: Object | None, deployment: Object | None) -> str | None:
    """Why the pod is not the Deployment's by uid and image; None where it is.

    The images are compared with the ReplicaSet's template: the Deployment's may be a newer one, not rolled out yet.
    """
    if deployment is None:
        return f"there is no {_DEPLOYMENT}"
    if replicaset is None or not _controls(replicaset, pod):
        return "its ReplicaSet is gone"
    if not _controls(deployment, replicaset):
        return f"its ReplicaSet does not belong to this {_DEPLOYMENT}"
    runs = _images(pod["spec"])
    for name, image in _images(replicaset["spec"]["template"]["spec"]).items():
        if not _same_image(image, runs.get(name, "")):
            return f"its container {name} runs {runs.get(name) or 'nothing'}, not {image} as {_DEPLOYMENT} says"
    return None


def _same_image(declared: str, runs: str) -> bool:
    """Whether *runs* may be what admission made of *declared*: webhooks put a mirror's host and path in front, and
    resolve a tag to a digest. The repository's own name stays, and a tag or digest that both have.
    """
    one, other = _reference(declared), _reference(runs)
    return one[0] == other[0] and all(not a or not b or a == b for a, b in zip(one[1:], other[1:], strict=True))


def _reference(image: str) -> tuple[str, str, str]:
    """Last component of the repository's name, tag, digest (distribution/reference)."""
    named, _, digest = image.partition("@")
    name, _, tag = named.rpartition("/")[2].partition(":")
    return name, tag, digest


def _images(spec: Object) -> dict[str, str]:
    return {each["name"]: each.get("image", "") for each in spec.get("containers") or []}


def _controls(owner: Object, item: Object) -> bool:
    controller = _controller(item)
    return controller is not None and controller.get("uid") == owner["metadata"]["uid"]


def _controller(item: Object) -> Object | None:
    return next((each for each in item["metadata"].get("ownerReferences") or [] if each.get("controller")), None)


def _identity(pod: Object) -> tuple[object, ...]:
    """A pod that is adopted, or gets another image in place, is looked at again."""
    return pod["metadata"]["uid"], (_controller(pod) or {}).get("uid"), tuple(sorted(_images(pod["spec"]).items()))
