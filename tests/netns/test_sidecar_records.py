"""A real sidecar that is watched: its Envoy and its passthrough worker tell of each request once between them."""

import asyncio

from meshdev.sidecar.envoy import names
from meshdev.wire.access import Watch
from tests.netns.cluster import MANAGER
from tests.netns.sidecar import MINE, SidecarPod, claim, sidecar
from tests.sidecar.pod import FIRST
from tests.waiting import until


def logged(pod: SidecarPod) -> list[str]:
    """By Envoy."""
    return [entry.request.path for entry in pod.manager.ads.logs.requests]


def recorded(pod: SidecarPod) -> list[str]:
    """By the worker."""
    return [record.path for record in pod.manager.records]


async def begun(pod: SidecarPod) -> None:
    """Worker and Envoy know that they are watched: each tells of a request that it carries."""
    async with asyncio.timeout(10):
        while not recorded(pod):
            await pod.get(path="/begun")
        while not logged(pod):
            await pod.get(path="/begun", a="1")


async def test_each_request_is_recorded_once_by_whoever_carried_it() -> None:
    async with sidecar() as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        await pod.manager.claim(claim(MINE))
        await pod.manager.until(lambda state: state.redirected)
        assert [await pod.get(path="/unwatched", a="1"), await pod.get(path="/unwatched")] == ["laptop", "original"]
        await pod.manager.watch(Watch(on=True, all=True))
        await begun(pod)
        claimed, others = ([f"/{kind}/{number}" for number in range(50)] for kind in ("claimed", "others"))
        for mine, other in zip(claimed, others, strict=True):
            assert [await pod.get(path=mine, a="1"), await pod.get(path=other)] == ["laptop", "original"]
        await until(lambda: {*claimed} <= {*logged(pod)} and others[-1] in recorded(pod))
        assert sorted(path for path in logged(pod) if path != "/begun") == sorted(claimed), "of two workers"
        requests = [path for path in recorded(pod) if path]  # without connections that are followed no further
        assert [path for path in requests if path != "/begun"] == others
        entry, record = pod.manager.ads.logs.requests[-1], pod.manager.records[-1]
        assert entry.common_properties.custom_tags[names.INTERCEPT] == FIRST
        assert entry.common_properties.downstream_remote_address.socket_address.address == str(MANAGER)
        assert (record.source, record.served_by, record.reason) == (MANAGER, "original", "no header a")
