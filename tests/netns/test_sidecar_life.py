"""How a sidecar comes and goes, and what is left when something dies: never a request that need not have failed."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from meshdev.capabilities import CAP_NET_ADMIN
from meshdev.wire.agent import PodPort
from tests.netns.sidecar import MINE, SidecarPod, ask, claim, sidecar
from tests.netns.test_capabilities import sets
from tests.sidecar.pod import End, length
from tests.waiting import until

WEB = PodPort(8080)
_NET_ADMIN: Final = 1 << CAP_NET_ADMIN


class Load:
    """Clients that ask again and again: *kept* ones on a connection each, *fresh* ones on a new one for each request.

    A kept client opens another connection when it was told to close, as clients do.
    """

    def __init__(self, pod: SidecarPod, kept: int, fresh: int) -> None:
        self._pod = pod
        self._clients = (kept, fresh)
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = False
        self.answers: dict[str, int] = {}
        self.failures: list[str] = []

    @property
    def total(self) -> int:
        return sum(self.answers.values())

    async def more(self, count: int = 200) -> None:
        """Wait until that many more were answered."""
        wanted = self.total + count
        await until(lambda: self.total >= wanted)

    async def _kept(self) -> None:
        while not self._stop:
            try:
                reader, writer = await self._pod.connect(8080)
                while not self._stop:
                    answer = await self._count(ask(reader, writer))
                    if answer.endswith("*"):
                        break
                    await asyncio.sleep(0.01)
                writer.close()
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failures.append(f"kept: {error!r}")

    async def _fresh(self) -> None:
        while not self._stop:
            try:
                await self._count(self._pod.get())
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failures.append(f"fresh: {error!r}")
            await asyncio.sleep(0.01)

    async def _count(self, asking: Any) -> str:
        answer: str = await asking
        name = answer.removesuffix("*")
        self.answers[name] = self.answers.get(name, 0) + 1
        return answer

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        kept, fresh = self._clients
        self._tasks = [asyncio.create_task(self._kept()) for _ in range(kept)]
        self._tasks += [asyncio.create_task(self._fresh()) for _ in range(fresh)]
        try:
            await self.more()
            yield self
        finally:
            self._stop = True
            await asyncio.wait(self._tasks)
        for task in self._tasks:
            task.result()


async def redirected(pod: SidecarPod) -> None:
    await pod.manager.until(lambda state: state.redirected == (WEB,))


async def test_it_enters_and_leaves_under_load_without_an_error() -> None:
    async with sidecar() as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        async with Load(pod, kept=50, fresh=4).running() as load:
            for _ in range(2):
                await pod.manager.claim(claim(MINE))
                await redirected(pod)
                await load.more()
                await pod.manager.claim(claim())  # as another intercept
                await load.more()
                await pod.manager.claim()
                assert "8080 :" not in pod.rules()
                assert "hook prerouting" in pod.rules(), "connections that were redirected need the chain"
                await load.more()
        assert load.failures == []
        assert load.answers.keys() == {"original", "laptop"}


def capabilities(pid: int) -> set[tuple[int, ...]]:
    """Effective, permitted, inheritable and ambient ones of its threads."""
    found = (sets((task / "status").read_text()) for task in Path(f"/proc/{pid}/task").iterdir())
    return {tuple(each[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")) for each in found}


async def test_envoy_has_no_capability() -> None:
    async with sidecar() as pod:
        await pod.app(8080)
        await pod.manager.claim(claim(MINE))
        await pod.manager.until(lambda state: WEB in state.redirected)
        assert capabilities(pod.envoy()) == {(0, 0, 0, 0)}
        assert capabilities(pod.agent.pid) == {(_NET_ADMIN, _NET_ADMIN, 0, 0)}


async def test_it_leaves_when_nobody_wants_it_and_no_connection_is_left() -> None:
    async with sidecar(UNWANTED_SECONDS=0.5) as pod:
        await pod.app(8080)
        await pod.manager.claim(claim(MINE))
        await redirected(pod)
        reader, writer = await pod.connect(8080)
        assert await ask(reader, writer) == "original"
        await pod.manager.claim()
        await until(lambda: b"1 connections that were redirected go on" in pod.log())
        assert "8080 :" not in pod.rules()
        assert [await ask(reader, writer) for _ in range(3)] == ["original"] * 3, "as long as its client likes"
        assert pod.envoy() == 0
        writer.close()
        await until(lambda: pod.agent.poll() is not None)
        assert pod.agent.returncode == 0
        assert pod.rules() == ""
        assert await pod.get() == "original"


async def test_one_that_has_connections_left_serves_the_next_intercept() -> None:
    async with sidecar(UNWANTED_SECONDS=0.5) as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        await pod.manager.claim(claim(MINE))
        await redirected(pod)
        reader, writer = await pod.connect(8080)
        assert await ask(reader, writer) == "original"
        await pod.manager.claim()
        await until(lambda: b"1 connections that were redirected go on" in pod.log())
        await pod.manager.claim(claim(MINE))
        await redirected(pod)
        assert [await pod.get(a="1"), await pod.get()] == ["laptop", "original"]
        assert await ask(reader, writer, a="1") == "laptop", "the older connection, too: it was followed all the time"
        writer.close()


async def test_a_port_that_is_wanted_no_more_loses_its_redirect_and_no_request() -> None:
    async with sidecar() as pod:
        await pod.app(8080)
        await pod.app(8081)
        await pod.laptop(20001)
        other = claim(MINE, port=8081, name="b" * 32)
        await pod.manager.claim(claim(MINE), other)
        await pod.manager.until(lambda state: len(state.redirected) == 2)
        reader, writer = await pod.connect(8080)
        assert await ask(reader, writer, a="1") == "laptop"
        await pod.manager.claim(other)
        await pod.manager.until(lambda state: state.redirected == (PodPort(8081),))
        assert [await ask(reader, writer, a="1"), await pod.get(a="1")] == ["original", "original"]
        assert await pod.get(8081, a="1") == "laptop"
        writer.close()


async def test_one_that_waits_is_used_again() -> None:
    async with sidecar(UNWANTED_SECONDS=1.0) as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        for _ in range(3):
            await pod.manager.claim(claim(MINE))
            await redirected(pod)
            reader, writer = await pod.connect(8080)
            answers = [await ask(reader, writer, a="1")]
            while answers[-1].endswith("*"):  # told to drain a moment ago
                reader, writer = await pod.connect(8080)
                answers.append(await ask(reader, writer, a="1"))
            assert answers[-1] == "laptop"
            writer.close()
            await pod.manager.claim()
            await pod.manager.until(lambda state: not state.redirected)
        assert pod.agent.poll() is None


async def test_one_of_a_template_waits_without_envoy_and_without_rules() -> None:
    async with sidecar(stays="1", UNWANTED_SECONDS=0.5) as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        for _ in range(2):
            await pod.manager.claim(claim(MINE))
            await redirected(pod)
            assert await pod.get(a="1") == "laptop"
            await pod.manager.claim()
            await until(lambda: not pod.envoy() and pod.rules() == "")
            assert await pod.get(a="1") == "original"
        pod.agent.terminate()
        await until(lambda: pod.agent.poll() is not None)
        assert pod.agent.returncode == 0


async def test_a_pod_that_ends_is_served_to_its_end() -> None:
    may_answer = asyncio.Event()

    async def slow(end: End, reader: Any, writer: Any) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(length(head))
        end.heard.append(head)
        await may_answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")
        await writer.drain()

    async with sidecar() as pod:
        app = await pod.app(8080, slow)
        await pod.manager.claim(claim(MINE))
        await redirected(pod)
        asking = asyncio.create_task(pod.get())
        await until(lambda: app.heard)
        pod.agent.terminate()
        later = asyncio.create_task(pod.get())
        await until(lambda: len(app.heard) == 2)
        assert app._server is not None
        app._server.close()  # takes no more, answers what it has
        may_answer.set()
        assert [await asking, await later] == ["slow", "slow"]
        await until(lambda: pod.agent.poll() is not None)
        assert (pod.agent.returncode, pod.rules()) == (0, "")


async def test_it_ends_at_once_where_nothing_is_served() -> None:
    async with sidecar() as pod:
        pod.agent.terminate()
        await until(lambda: pod.agent.poll() is not None, 3)
        assert pod.agent.returncode == 0


async def test_when_envoy_dies_the_app_gets_its_traffic() -> None:
    async with sidecar() as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        await pod.manager.claim(claim(MINE))
        await redirected(pod)
        async with Load(pod, kept=0, fresh=8).running() as load:
            for _ in range(3):
                envoy = pod.envoy()
                os.kill(envoy, signal.SIGKILL)
                await until(partial(_has_another_envoy, pod, envoy))
                while (answer := await pod.get(a="1")) != "laptop":
                    assert answer == "original", "until Envoy has its routes the app answers"
                await load.more(50)
                assert pod.manager.state.redirected == (WEB,)
        assert load.failures == [], "nobody else notices"


async def test_when_envoy_hangs_it_is_killed_and_another_one_serves() -> None:
    async with sidecar(HUNG_SECONDS=0.5) as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        await pod.manager.claim(claim(MINE))
        await redirected(pod)
        hung = pod.envoy()
        os.kill(hung, signal.SIGSTOP)
        assert await pod.get() == "original", "whoever is not intercepted does not notice"
        await until(lambda: pod.envoy() not in (0, hung), 20)
        while await pod.get(a="1") != "laptop":
            pass
        assert await pod.get() == "original"


async def test_when_workers_die_again_and_again_the_app_gets_its_traffic() -> None:
    async with sidecar() as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        await pod.manager.claim(claim())
        await redirected(pod)
        for _ in range(2):
            await until(pod.worker)
            killed = pod.worker()
            os.kill(killed, signal.SIGKILL)
            await until(partial(_has_another_worker, pod, killed))
        await pod.manager.until(lambda state: not state.redirected)
        os.kill(pod.worker(), signal.SIGSTOP)
        assert await pod.get() == "original"


async def test_when_the_agent_dies_everything_goes_with_it() -> None:
    async with sidecar() as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        await pod.manager.claim(claim())
        await redirected(pod)
        envoy = pod.envoy()
        kept = [await pod.connect(8080) for _ in range(20)]
        assert {await ask(*each) for each in kept} == {"laptop"}
        pod.agent.kill()
        pod.agent.wait()
        async with asyncio.timeout(5):  # who keeps a connection hears that it is over, without asking
            for reader, _ in kept:
                with suppress(ConnectionResetError):  # the worker's, where it learns of that before it is killed
                    assert await reader.read() == b""
        await until(lambda: not Path(f"/proc/{envoy}/exe").exists())
        await until(lambda: pod.rules() == "")
        assert await pod.get() == "original"
        for _, writer in kept:
            writer.close()


async def test_without_the_manager_it_goes_on_for_a_while() -> None:
    async with sidecar(LOST_SECONDS=2.5, CUT_OFF_SECONDS=0.3) as pod:
        await pod.app(8080)
        await pod.app(7000)
        await pod.laptop(20001)
        await pod.manager.claim(claim(MINE), claim(port=7000, protocol="tcp", name="b" * 32))
        await pod.manager.until(lambda state: len(state.redirected) == 2)
        assert [await pod.get(a="1"), await pod.get(7000)] == ["laptop", "laptop"]
        await pod.manager.stop()
        while await pod.get(7000) != "original":
            pass
        assert await pod.get(a="1") == "laptop", "requests can fall back one by one"
        await pod.manager.start()
        while await pod.get(7000) != "laptop":
            pass
        assert await pod.get(a="1") == "laptop"
        await pod.manager.stop()
        await until(lambda: pod.agent.poll() is not None, 20)
        assert (pod.agent.returncode, pod.rules()) == (0, "")
        assert await pod.get(a="1") == "original"


async def test_what_it_costs() -> None:
    async with sidecar() as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        await pod.manager.claim(claim(MINE))
        await redirected(pod)
        async with Load(pod, kept=50, fresh=8).running() as load:
            await load.more(2000)
            sizes = {"agent": pod.agent.pid, "envoy": pod.envoy()}
            mebibytes = {name: _rss(pid) for name, pid in sizes.items()}
        print(f"resident: {mebibytes} MiB after {load.total} requests")
        assert _oom_score(sizes["envoy"]) == 1000
        assert sum(mebibytes.values()) <= 130


def _has_another_envoy(pod: SidecarPod, than: int) -> bool:
    return pod.envoy() not in {0, than}


def _has_another_worker(pod: SidecarPod, than: int) -> bool:
    return pod.worker() not in {0, than}


def _oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def _rss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024
