"""Which way is taken, and what is said where there is none."""

from typing import Any, Literal

import pytest

from meshdev.errors import AdmissionError, ForbiddenError, InterceptError, MeshdevError, UnreachableError
from meshdev.intercept.target import parse_target
from meshdev.kube.client import KubeApi
from meshdev.kube.workloads import pods_of, resolve
from meshdev.sidecar.join.choice import choose
from meshdev.sidecar.join.container import container
from tests.kube.fake_api import FakeApi
from tests.kube.objects import pod, put_pod, resolved_b, workload
from tests.sidecar.join.conftest import SPEC

Wanted = Literal["ephemeral", "patch", "auto"]
EPHEMERAL, APPLY, POD = "patch pods/ephemeralcontainers", "patch deployments", "create pods"
POD_SECURITY = 'pods "b-1" is forbidden: violates PodSecurity "baseline:latest": non-default capabilities'
RBAC = 'x is forbidden: User "dev" cannot patch resource "pods/ephemeralcontainers" in API group ""'


async def chosen(fake: FakeApi, api: KubeApi, wanted: Wanted, **refused: tuple[int, str]) -> str:
    resolved = await resolved_b(fake, api, "b-1")
    fake.refuse = {name.replace("__", "/").replace("_", " "): answer for name, answer in refused.items()}
    before = {**fake.objects["", "pods"], **fake.objects["apps", "deployments"]}
    try:
        return await choose(api, resolved, await pods_of(api, resolved), SPEC, wanted)
    finally:
        assert {**fake.objects["", "pods"], **fake.objects["apps", "deployments"]} == before


@pytest.mark.parametrize(
    ("wanted", "refused", "expected"),
    [
        ("auto", {}, "ephemeral"),
        ("ephemeral", {}, "ephemeral"),
        ("patch", {}, "patch"),
        ("auto", {"patch_pods__ephemeralcontainers": (403, RBAC)}, "patch"),
        (
            "auto",
            {"patch_pods__ephemeralcontainers": (404, "the server could not find the requested resource")},
            "patch",
        ),
        ("patch", {"patch_pods__ephemeralcontainers": (403, POD_SECURITY)}, "patch"),
    ],
)
async def test_the_first_way_that_is_allowed(
    fake: FakeApi, api: KubeApi, wanted: Wanted, refused: dict[str, tuple[int, str]], expected: str
) -> None:
    assert await chosen(fake, api, wanted, **refused) == expected


@pytest.mark.parametrize(
    ("wanted", "refused", "kind", "words"),
    [
        (
            "auto",
            {"patch_pods__ephemeralcontainers": (403, POD_SECURITY), "create_pods": (403, POD_SECURITY)},
            AdmissionError,
            f"as an ephemeral container: {POD_SECURITY}; by a patch of its template: {POD_SECURITY}",
        ),
        (
            "ephemeral",
            {"patch_pods__ephemeralcontainers": (403, RBAC)},
            ForbiddenError,
            "as an ephemeral container: you (dev) may not patch pods/ephemeralcontainers in namespace default",
        ),
        (
            "auto",
            {"patch_pods__ephemeralcontainers": (403, RBAC), "create_pods": (403, POD_SECURITY)},
            AdmissionError,
            POD_SECURITY,
        ),
    ],
)
async def test_refusals_are_told_verbatim(
    fake: FakeApi,
    api: KubeApi,
    wanted: Wanted,
    refused: dict[str, tuple[int, str]],
    kind: type[MeshdevError],
    words: str,
) -> None:
    with pytest.raises(kind) as caught:
        await chosen(fake, api, wanted, **refused)
    assert type(caught.value) is kind
    assert words in caught.value.message
    hint = caught.value.hint or ""
    assert ("enforce=privileged" in hint) == (POD_SECURITY in caught.value.message)
    assert ('resources: ["pods/ephemeralcontainers"]' in hint) == ("you (dev)" in caught.value.message)


async def test_a_bare_pod_cannot_be_patched(fake: FakeApi, api: KubeApi) -> None:
    put_pod(fake, pod("p"))
    fake.objects["", "pods"]["default", "p"]["kind"] = "Pod"
    resolved = await resolve(api, parse_target("pod/p"), "default")
    assert await choose(api, resolved, await pods_of(api, resolved), SPEC, "auto") == "ephemeral"
    with pytest.raises(InterceptError, match="the containers of a pod cannot be changed"):
        await choose(api, resolved, await pods_of(api, resolved), SPEC, "patch")


async def test_a_server_that_goes_away_is_no_refusal(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api, "b-1")
    pods = await pods_of(api, resolved)

    async def gone(*_args: Any, **_options: Any) -> Any:
        raise UnreachableError("no connection")

    api.patch = gone  # type: ignore[method-assign]  # the server's connection breaks here
    with pytest.raises(UnreachableError):
        await choose(api, resolved, pods, SPEC, "auto")


async def test_pods_of_a_manager_elsewhere_are_refused_first(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api)
    other = {
        **container(SPEC, "meshdev-1", {}),
        "env": [{"name": "MESHDEV_MANAGER", "value": "x:1"}, {"name": "MESHDEV_MANAGER_NAMESPACE", "value": "tools"}],
    }
    put_pod(fake, pod("b-1", workload(), ephemeralContainers=[other]))
    with pytest.raises(InterceptError, match="namespace tools"):
        await choose(api, resolved, await pods_of(api, resolved), SPEC, "auto")
