"""What the manager's sidecars are told: where it is, and which image they run."""

from dataclasses import dataclass

from meshdev.config import CONTROL_PORT, MANAGER_NAME
from meshdev.errors import ManagerError
from meshdev.kube.client import KubeApi, services_path
from meshdev.kube.errors import NotFoundError
from meshdev.kube.manager import ensure_service, find_pod, foreign
from meshdev.kube.manifest import is_ours


@dataclass(frozen=True)
class SidecarTerms:
    """*manager* is ``address:port`` and holds as long as the manager is installed, whichever pod it is."""

    manager: str
    image: str


async def sidecar_terms(api: KubeApi, namespace: str) -> SidecarTerms:
    """What sidecars of that namespace's manager are told; its Service is made where there is none.

    Raises ManagerError where no manager runs, ClusterError where the Service is somebody else's, ForbiddenError.
    """
    pod = await find_pod(api, namespace)
    if pod is None:
        raise ManagerError(f"no manager runs in namespace {namespace}")
    try:
        there = await api.get(services_path(namespace, MANAGER_NAME))
    except NotFoundError:
        made_by = await api.get_deployment(namespace, MANAGER_NAME)
        there = await ensure_service(api, namespace, made_by["metadata"]["uid"])
    if not is_ours(there):
        raise foreign("service", namespace)
    return SidecarTerms(f"{there['spec']['clusterIP']}:{CONTROL_PORT}", pod.image)
