"""What sidecars are told of their manager."""

import pytest

from meshdev.config import MANAGER_NAME
from meshdev.errors import ClusterError, ForbiddenError, ManagerError
from meshdev.kube.client import KubeApi
from meshdev.kube.manager import SidecarTerms, sidecar_terms
from meshdev.kube.manifest import deployment, service
from tests.kube.fake_api import FakeApi
from tests.kube.test_manager import DIGEST, RUNNING, SPEC, Run, controller, pod, put_manager_pod, put_service


async def test_sidecars_are_told_the_services_address_and_the_image_that_runs(fake: FakeApi, api: KubeApi) -> None:
    put_service(fake, "uid")
    put_manager_pod(fake, pod("m", {"state": RUNNING, "imageID": DIGEST}))
    assert await sidecar_terms(api, "default") == SidecarTerms("10.96.0.7:15010", DIGEST)
    assert [(asked.verb, asked.resource) for asked in fake.asked] == [
        ("list", "pods"),
        ("get", "replicasets"),
        ("get", "deployments"),
        ("get", "services"),
    ]


async def test_a_service_that_is_missing_is_made(fake: FakeApi, api: KubeApi) -> None:
    owner = fake.put("deployments", deployment(SPEC), group="apps")["metadata"]["uid"]
    put_manager_pod(fake, pod("m", {"state": RUNNING}))
    terms = await sidecar_terms(api, "default")
    made = fake.objects["", "services"]["default", MANAGER_NAME]
    assert terms.manager == f"{made['spec']['clusterIP']}:15010"
    assert made["metadata"]["ownerReferences"][0]["uid"] == owner
    assert await sidecar_terms(api, "default") == terms


async def test_who_may_not_make_a_service_is_connected_all_the_same(fake: FakeApi, api: KubeApi) -> None:
    fake.allow = lambda asked: asked.resource != "services"
    fake.created = controller(fake, pod("m", {"state": RUNNING}))
    assert (await Run().ensure(api)).name == "m"
    with pytest.raises(ForbiddenError, match="may not get services in namespace default"):
        await sidecar_terms(api, "default")


async def test_a_service_of_somebody_else_is_left_alone(fake: FakeApi, api: KubeApi) -> None:
    foreign = service("default", "uid")
    foreign["metadata"]["labels"] = {}
    kept = fake.put("services", foreign)
    fake.created = controller(fake, pod("m", {"state": RUNNING}))
    await Run().ensure(api)
    with pytest.raises(ClusterError, match=r"service meshdev-traffic-manager .* does not belong to meshdev"):
        await sidecar_terms(api, "default")
    assert fake.objects["", "services"]["default", MANAGER_NAME] == kept


async def test_without_a_manager_there_are_no_terms(api: KubeApi) -> None:
    with pytest.raises(ManagerError, match="no manager runs in namespace default"):
        await sidecar_terms(api, "default")
