"""Each part for itself: what fails or takes long is named, and the others are there."""

import asyncio

import pytest

from meshdev.errors import ClusterError
from meshdev.gather import machine
from meshdev.gather.parts import BugReport, Files, Part, Reasons, collect


async def fine(reasons: Reasons) -> Files:
    reasons.note(ClusterError("half of it"))
    reasons.note(ClusterError("half of it"))
    return {"fine.txt": "x"}


async def failing(_: Reasons) -> Files:
    raise ClusterError("not today")


async def unreadable(_: Reasons) -> Files:
    raise PermissionError(13, "Permission denied", "/x")


async def endless(_: Reasons) -> Files:
    await asyncio.Event().wait()
    return {}


async def test_the_others_are_there() -> None:
    parts = [Part(each.__name__, "", each) for each in (fine, failing, unreadable, endless)]
    report = await collect(parts, 0.2)
    assert report == BugReport(
        {"fine.txt": "x"},
        {
            "fine": ("half of it",),
            "failing": ("not today",),
            "unreadable": ("PermissionError: [Errno 13] Permission denied: '/x'",),
            "endless": ("it took longer than 0.2 s",),
        },
    )


async def wrong(_: Reasons) -> Files:
    raise AssertionError("a mistake of ours")


async def test_a_mistake_is_not_hidden() -> None:
    with pytest.raises(AssertionError, match="a mistake"):
        await collect([Part("wrong", "", wrong), Part("endless", "", endless)], 0.2)


async def test_this_machine() -> None:
    reasons = Reasons()
    found = {**await machine.versions(reasons), **await machine.network(reasons)}
    assert {"versions.json", "network/etc/resolv.conf"} <= set(found)
    versions = found["versions.json"]
    assert isinstance(versions, dict)
    assert versions["packages"]["aiohttp"]
    assert not any(name.startswith("/") for name in found)


async def test_a_program_that_is_missing_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_COMMANDS", {"a.txt": ("no-such-program",), "b.txt": ("ls", "/no-such-folder")})
    reasons = Reasons()
    assert set(await machine.network(reasons)) <= {"network/etc/resolv.conf", "network/etc/nsswitch.conf"}
    assert reasons.found[0] == "no-such-program is not installed"
    assert "No such file" in reasons.found[1]
