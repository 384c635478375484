"""Intercepts of Services that are the workload themselves: all of their pods, and no others."""

import asyncio
import time
from typing import Any

import pytest

from meshdev.errors import InterceptError
from meshdev.kube.client import KubeApi
from meshdev.modes import pods
from meshdev.modes.holding import hold
from meshdev.modes.intent import intent
from meshdev.modes.state import InterceptState
from meshdev.published import Published
from meshdev.wire.modes import MESH
from meshdev.wire.session_intercepts import InterceptRequest
from tests.kube.fake_api import FakeApi
from tests.kube.objects import pod, put_pod, service
from tests.modes.world import LEASES, FakeLink, Progress, World
from tests.waiting import until


class ServiceWorld(World):
    """A Service in front of two pods that nobody of ours owns."""

    def __init__(self, fake: FakeApi, api: KubeApi, **asked: Any) -> None:
        super().__init__(fake, api, target="svc/rc", **asked)
        for name in ("rc-1", "rc-2"):
            put_pod(fake, pod(name, labels={"app": "rc"}))
        fake.put("services", service("rc"))


async def test_a_service_that_is_the_workload_has_all_of_its_pods(fake: FakeApi, api: KubeApi) -> None:
    world = ServiceWorld(fake, api)
    async with world.holding_it():
        await until(lambda: world.sidecars("rc-1") and world.sidecars("rc-2"))
        world.link.report("rc-1")
        assert not world.up
        world.link.report("rc-2")
        await until(lambda: world.up)
        status = world.status()
        assert (status.target, status.acked, status.total, status.strategy) == ("service/rc", 2, 2, "ephemeral")
        assert status.url == "http://rc.default/"
        assert world.state.value.workload == "service/rc"
        (lease,) = fake.objects["coordination.k8s.io", "leases"].values()
        uid = fake.objects["", "services"]["default", "rc"]["metadata"]["uid"]
        owner = {"apiVersion": "v1", "kind": "Service", "name": "rc", "uid": uid}
        assert lease["metadata"]["ownerReferences"] == [owner]
        put_pod(fake, pod("rc-3", labels={"app": "rc"}))
        await until(lambda: world.sidecars("rc-3") == ["meshdev-1"])
    assert fake.names(*LEASES) == []
    assert not any(asked.resource == "services" and asked.verb not in {"list", "watch"} for asked in fake.asked)


async def test_a_service_has_no_template_to_patch(fake: FakeApi, api: KubeApi) -> None:
    world = ServiceWorld(fake, api, strategy="patch")
    with pytest.raises(
        InterceptError, match=r"service/rc cannot be intercepted by a patch: a Service has no"
    ) as caught:
        await world.run()
    assert "--strategy ephemeral" in (caught.value.hint or "")
    world.nothing_left()


async def test_a_pod_that_the_service_does_not_select_any_more_is_left_out(
    fake: FakeApi, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pods, "LEFT_SECONDS", 0.0)
    world = ServiceWorld(fake, api)
    async with world.holding_it():
        await until(lambda: world.sidecars("rc-1") and world.sidecars("rc-2"))
        world.link.report("rc-1")
        world.link.report("rc-2")
        await until(lambda: world.up)
        (claim,) = world.link.claims
        assert claim.excluded == ()
        fake.remove("pods", "rc-2")  # to the watch it is the same as another label
        await until(lambda: claim.excluded == ("rc-2",))


async def test_a_pod_that_is_intercepted_as_another_workloads_is_told(fake: FakeApi, api: KubeApi) -> None:
    """Two Services select the same pods: a pod has one sidecar."""
    world = ServiceWorld(fake, api)
    fake.put("services", service("other", selector={"app": "rc"}))
    request = InterceptRequest(target="svc/other", mode=MESH, headers=("b=1",))
    other = Published(InterceptState(time.monotonic()))
    async with world.holding_it():
        await until(lambda: world.sidecars("rc-1") and world.sidecars("rc-2"))
        with pytest.raises(
            InterceptError, match=r"pod rc-\d is intercepted as a pod of service/rc already, by jane@laptop"
        ) as caught:
            await hold(FakeLink(api, fake), intent(request), Progress(), other)
        assert caught.value.hint == "name the same target: service/rc"
    joining = asyncio.ensure_future(
        hold(FakeLink(api, fake), intent(request), Progress(), other)
    )  # the sidecar that is left idles, and another one waits for its end
    await until(lambda: len(world.sidecars("rc-1")) == len(world.sidecars("rc-2")) == 2)
    joining.cancel()
    await asyncio.wait([joining])
