"""A real Envoy records as long as somebody watches, and so does the next one; then it does not."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

from meshdev.errors import ClusterError
from meshdev.sidecar.agent.envoy import Envoy
from meshdev.sidecar.agent.envoy_watch import Watching
from meshdev.sidecar.agent.settings import Settings
from meshdev.sidecar.envoy.access_log import WATCHED
from tests.loops import Clock
from tests.sidecar.real_envoy import binary
from tests.waiting import until

SETTINGS = Settings("b-1", "uid", "default", IPv4Address("127.0.0.1"), "127.0.0.1", 15010)


async def recorded(envoy: Envoy) -> str:
    """The value of the key; empty where it has none, or there is no Envoy."""
    try:
        entries = json.loads(await envoy._ask("GET", "/runtime"))["entries"]
    except ClusterError:
        return ""
    found: str = entries.get(WATCHED, {}).get("final_value", "")
    return found


async def until_recorded(envoy: Envoy, value: str) -> None:
    async with asyncio.timeout(20):
        while await recorded(envoy) != value:  # noqa: ASYNC110 -- Envoy has no event for it
            await asyncio.sleep(0.01)


@asynccontextmanager
async def beside(*work: asyncio.Task[None]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for task in work:
            task.cancel()
        await asyncio.wait(work)


async def test_each_envoy_records_while_somebody_watches() -> None:
    envoy = Envoy(SETTINGS, binary())
    watching = Watching(envoy, asyncio.get_running_loop().time)
    try:
        async with beside(asyncio.ensure_future(watching.run())):
            watching.watch(on=True)
            running = asyncio.ensure_future(envoy.run(watching.envoy_started, ended=lambda: None))
            await until_recorded(envoy, "100")
            envoy.kill()
            await running
            running = asyncio.ensure_future(envoy.run(watching.envoy_started, ended=lambda: None))
            await until_recorded(envoy, "100")
            watching.watch(on=False)
            await until_recorded(envoy, "0")
            envoy.kill()
            await running
    finally:
        await envoy.end()
        envoy.close()


class Recorder:
    """In place of an Envoy."""

    def __init__(self) -> None:
        self.pid: int | None = 1
        self.asked: list[bool] = []
        self.fails = False

    async def record(self, *, on: bool) -> None:
        self.asked.append(on)
        if self.fails:
            raise ClusterError("it does not answer")


async def test_it_ends_by_itself_when_the_manager_falls_silent() -> None:
    envoy = Recorder()
    watching = Watching(envoy, asyncio.get_running_loop().time, lease=0.05)
    async with beside(asyncio.ensure_future(watching.run())):
        watching.watch(on=True)
        await until(lambda: envoy.asked == [True, False])


async def test_one_that_is_watched_goes_on_and_is_not_asked_again() -> None:
    clock, envoy = Clock(), Recorder()
    watching = Watching(envoy, clock)
    for second in range(30):
        clock.now = float(second)
        watching.watch(on=True)
        await watching._follow()
    assert envoy.asked == [True]
    clock.now += 9.9
    await watching._follow()
    assert envoy.asked == [True]
    clock.now += 0.2
    await watching._follow()
    assert envoy.asked == [True, False]


async def test_one_that_does_not_answer_is_asked_again_and_one_that_is_gone_is_not() -> None:
    clock, envoy = Clock(), Recorder()
    watching = Watching(envoy, clock)
    await watching._follow()
    assert envoy.asked == [], "a new Envoy records nothing"
    envoy.fails = True
    watching.watch(on=True)
    assert await watching._follow()
    envoy.pid = None
    await watching._follow()
    assert envoy.asked == [True]
    envoy.pid, envoy.fails = 2, False
    await watching._follow()
    assert envoy.asked == [True, True]
    envoy.pid = 3
    watching.watch(on=False)
    await watching._follow()
    assert envoy.asked == [True, True], "nor does the next one"
