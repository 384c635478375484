"""Checks run at once, within their times, and none keeps the others from finishing."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from meshdev.doctor.runner import DoctorCheck, Fact, NotExaminedError, examine
from meshdev.doctor.verdicts.finding import Examined, Finding, ok
from meshdev.errors import ClusterError, LaptopError


async def fine() -> Finding:
    return ok("fine")


def raising(error: Exception) -> Callable[[], Awaitable[Finding]]:
    async def check() -> Finding:
        raise error

    return check


async def findings(*checks: DoctorCheck) -> list[tuple[str, str]]:
    found = await examine(checks, lambda _: None)
    assert [each.check for each in found] == [each.name for each in checks]
    return [(each.finding.state, each.finding.detail) for each in found]


async def test_what_a_check_raises_is_its_finding_and_the_others_go_on() -> None:
    assert await findings(
        DoctorCheck("a", "g", raising(ZeroDivisionError("oh"))),
        DoctorCheck("b", "g", fine),
        DoctorCheck("c", "g", raising(LaptopError("no", hint="do"))),
        DoctorCheck("d", "g", raising(NotExaminedError("not here"))),
    ) == [
        ("failed", "internal error: ZeroDivisionError: oh"),
        ("ok", "fine"),
        ("failed", "no"),
        ("skipped", "not here"),
    ]


async def test_each_check_has_its_own_time() -> None:
    async def never() -> Finding:
        await asyncio.Event().wait()
        return ok("")

    waiting: list[str] = []
    found = await examine([DoctorCheck("slow", "g", never, seconds=1.5), DoctorCheck("b", "g", fine)], waiting.append)
    assert [each.finding.state for each in found] == ["failed", "ok"]
    assert found[0].finding.detail == "no answer within 1.5 seconds"
    assert waiting == ["slow"]


async def test_a_fact_is_found_once_and_its_error_is_one_checks_own() -> None:
    tries = []

    async def find() -> int:
        tries.append(1)
        await asyncio.sleep(0)
        raise ClusterError("away", hint="look")

    fact = Fact("it is away", find)

    async def about() -> Finding:
        return ok(str(await fact.get()))

    assert await findings(DoctorCheck("a", "g", about), DoctorCheck("b", "g", fine, needs=[fact])) == [
        ("failed", "away"),
        ("skipped", "it is away"),
    ]
    assert tries == [1]


async def test_a_fact_that_takes_too_long() -> None:
    async def find() -> None:
        await asyncio.Event().wait()

    fact = Fact("it is away", find, seconds=0.05)
    with pytest.raises(Exception, match=r"no answer within 0\.05 seconds"):
        await fact.get()
    with pytest.raises(NotExaminedError):
        await fact.needed()


async def test_time_begins_when_the_needs_are_there() -> None:
    async def find() -> None:
        await asyncio.sleep(0.05)

    async def quick() -> Finding:
        return ok("quick")

    fact = Fact("never", find, seconds=5)
    assert await findings(DoctorCheck("a", "g", quick, needs=[fact], seconds=0.04)) == [("ok", "quick")]


async def test_what_is_used_is_waited_for_and_may_be_missing() -> None:
    async def slow() -> None:
        await asyncio.sleep(0.05)

    async def away() -> None:
        raise ClusterError("away")

    async def quick() -> Finding:
        await asyncio.sleep(0)
        return ok("made")

    there, gone = Fact("never", slow), Fact("it is away", away)
    behind = Fact("no second one", slow, needs=[gone])
    assert await findings(
        DoctorCheck("a", "g", quick, uses=[there, gone, behind], seconds=0.04),
        DoctorCheck("b", "g", quick, needs=[behind]),
    ) == [("ok", "made"), ("skipped", "it is away")]


async def test_threads_run_at_once_and_give_back_errors() -> None:
    barrier = threading.Barrier(40, timeout=5)

    async def meet() -> Finding:
        await asyncio.to_thread(barrier.wait)
        return ok("met")

    assert set(await findings(*(DoctorCheck(str(n), "g", meet) for n in range(40)))) == {("ok", "met")}

    async def broken() -> Finding:
        await asyncio.to_thread(int, "x")
        return ok("")

    ((state, detail),) = await findings(DoctorCheck("a", "g", broken))
    assert (state, "ValueError" in detail) == ("failed", True)


def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    code = """
import asyncio, threading
from meshdev.doctor.runner import DoctorCheck, examine
async def hang():
    await asyncio.to_thread(threading.Event().wait)
found = asyncio.run(examine([DoctorCheck("a", "g", hang, seconds=0.1)], print))
print(found[0].finding.state)
"""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("failed\n", "")
    assert time.monotonic() - started < 20


def test_the_keys_of_json() -> None:
    assert Examined("tun", "This machine", ok("fine")).as_json() == {
        "check": "tun",
        "state": "ok",
        "detail": "fine",
        "hint": None,
    }
