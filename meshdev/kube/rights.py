"""What a user may do, asked in advance (SelfSubjectAccessReview; ``system:basic-user`` allows it to everybody)."""

import asyncio
from typing import Final

from meshdev.errors import ForbiddenError
from meshdev.kube.access import Access
from meshdev.kube.client import KubeApi
from meshdev.kube.errors import NotFoundError, forbidden

REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


async def require(api: KubeApi, *needed: Access) -> None:
    """Raise ForbiddenError that names the first of *needed* that the user may not do.

    If the cluster does not allow the question, the right is assumed: the request itself will show.
    """
    for asked in await missing(api, *needed):
        raise forbidden(asked)


async def missing(api: KubeApi, *needed: Access) -> tuple[Access, ...]:
    """Those of *needed* that the user may not do; none where the cluster does not allow the question."""
    allowed = await asyncio.gather(*(_allowed(api, each) for each in needed))
    return tuple(asked for asked, may in zip(needed, allowed, strict=True) if not may)


async def _allowed(api: KubeApi, asked: Access) -> bool:
    resource, _, subresource = asked.resource.partition("/")
    attributes = {
        "namespace": asked.namespace,
        "verb": asked.verb,
        "group": asked.group,
        "resource": resource,
        "subresource": subresource,
        "name": asked.name,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    try:
        answer = await api.create(REVIEWS, review)
    except (ForbiddenError, NotFoundError):
        return True
    return bool((answer.get("status") or {}).get("allowed"))
