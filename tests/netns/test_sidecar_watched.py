"""A sidecar that is watched: what it tells of requests that nobody claimed."""

import asyncio
from typing import Final

from meshdev.wire.access import Watch
from tests.netns.cluster import MANAGER
from tests.netns.sidecar import SidecarPod, intercepted, sidecar
from tests.waiting import until

ALL: Final = Watch(on=True, all=True)


async def test_unclaimed_requests_are_told_while_somebody_watches() -> None:
    async with sidecar() as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        await intercepted(pod)
        assert pod.manager.hello is not None
        assert pod.manager.hello.records, "control may say that it is watched"
        assert await pod.get() == "original"
        await pod.manager.watch(ALL)
        await begun(pod)
        assert await pod.get(path="/x?token=abc", a="2", authorization="Basic abc") == "original"
        assert await pod.get(a="1") == "laptop"
        assert await pod.get(path="/last") == "original"
        await until(lambda: pod.manager.records[-1].path == "/last")
        [record] = [each for each in pod.manager.records if each.path not in {"/begun", "/last"}]
        assert (record.method, record.path, record.authority, record.status) == ("GET", "/x?token=***", "b", 200)
        assert (record.source, record.port, record.protocol) == (MANAGER, 8080, "HTTP/1.1")
        assert (record.served_by, record.reason, record.intercept) == ("original", "a=2, not a=1", None)
        assert (record.request_bytes, record.response_bytes) == (0, len("original"))
        assert pod.manager.dropped == 0


async def begun(pod: SidecarPod) -> None:
    """Its worker knows that somebody watches."""
    async with asyncio.timeout(10):
        while not pod.manager.records:
            assert await pod.get(path="/begun") == "original"
            await asyncio.sleep(0.05)
