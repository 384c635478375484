"""logs: files of this machine, also as they grow and are set aside, and containers by an API server."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meshdev.cli.log_files import LogFile, follow
from meshdev.errors import LaptopError
from meshdev.wire.log_lines import LogLine
from tests.cli.conftest import Commands
from tests.kube.conftest import write_kubeconfig
from tests.kube.fake_api import FakeApi, serving
from tests.kube.test_logs import lines, manager_pod
from tests.kube.test_manager import put_manager_pod
from tests.waiting import until

Object = dict[str, Any]

SESSION = """\
2026-11-29 19:15:01,000 INFO meshdev.session: begins
2026-11-29 19:15:03,000 ERROR meshdev.session: it is red: \x1b[31m
  Traceback
"""
HELPER = "sudo: a password is required\n"


def written(meshdev: Commands, session: str = SESSION, helper: str = HELPER) -> None:
    meshdev.env["TZ"] = "UTC"
    meshdev.paths.directory.mkdir(mode=0o700)
    meshdev.paths.log.write_text(session)
    meshdev.paths.helper_log.write_text(helper)


@pytest.fixture
async def fake(meshdev: Commands) -> AsyncIterator[FakeApi]:
    async with serving(FakeApi()) as fake:
        write_kubeconfig(meshdev.home / "config", fake.url)
        yield fake


def test_nothing_was_connected_yet(meshdev: Commands) -> None:
    ran = meshdev("logs")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_files_without_a_connection_and_without_a_cluster(meshdev: Commands) -> None:
    written(meshdev)
    ran = meshdev("logs")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "helper │ sudo: a password is required",
        "session │ 2026-11-29 19:15:01,000 INFO meshdev.session: begins",
        "session │ 2026-11-29 19:15:03,000 ERROR meshdev.session: it is red: \\x1b[31m",
        "session │   Traceback",
    ]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--component", "helper"), ["helper"]),
        (("--tail", "1"), ["session", "helper"]),
        (("--tail", "0"), []),
        (("--since", "1s"), []),
        (("--since", "0"), ["helper", "session", "session", "session"]),
    ],
)
def test_which_lines(meshdev: Commands, words: tuple[str, ...], wanted: list[str]) -> None:
    written(meshdev)
    ran = meshdev("logs", "-o", "json", *words)
    assert (ran.code, ran.err) == (0, "")
    assert [json.loads(line)["source"] for line in ran.out.splitlines()] == wanted


def test_times(meshdev: Commands) -> None:
    written(meshdev)
    found = [json.loads(line) for line in meshdev("logs", "-o", "json").out.splitlines()]
    assert [each["time"] for each in found] == [
        None,
        "2026-11-29T19:15:01.000000000Z",
        "2026-11-29T19:15:03.000000000Z",
        None,
    ]
    shown = meshdev("logs", "--timestamps").out.splitlines()
    assert shown[0] == "helper │ - sudo: a password is required"
    assert shown[1].startswith("session │ 2026-11-29T19:15:01.000000000Z 2026-11-29 19:15:01,000 INFO")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--previous", "--follow"), "exclude each other"),
        (("--previous", "--component", "session"), "containers in the cluster"),
        (("--component", "control"), "takes none but session, helper, manager, sidecar"),
        (("--since", "soon"), "invalid --since 'soon'"),
        (("b",), "has no kind"),
        (("-n", ""), "--namespace is empty"),
    ],
)
def test_what_cannot_be_meant(meshdev: Commands, words: tuple[str, ...], message: str) -> None:
    ran = meshdev("logs", *words)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


async def asked(meshdev: Commands, *words: str) -> Any:
    return await asyncio.to_thread(meshdev, "logs", *words)


async def test_the_manager_without_a_connection(meshdev: Commands, fake: FakeApi) -> None:
    put_manager_pod(fake, manager_pod("m"))
    fake.logs = {("m", "tunnel"): lines(1, 4), ("m", "control"): lines(2)}
    written(meshdev)
    ran = await asked(meshdev, "--component", "manager", "--component", "session")
    assert ran.code == 0
    assert [line.partition(" │ ")[0] for line in ran.out.splitlines()] == [
        *("session", "m/tunnel", "m/control", "session", "session", "m/tunnel"),
    ]
    assert "note: the API server refused to get pods/log" in ran.err
    assert 'container "relay" in pod "m" is waiting to start' in ran.err


@pytest.mark.usefixtures("fake")
async def test_what_was_asked_for_by_name_must_be_readable(meshdev: Commands) -> None:
    written(meshdev)
    ran = await asked(meshdev, "--component", "manager")
    assert (ran.code, ran.out) == (34, "")
    assert "there is no manager in namespace default" in ran.err
    ran = await asked(meshdev, "deployment/b")
    assert ran.code == 60
    assert "there is no deployment/b in namespace default" in ran.err
    ran = await asked(meshdev, "--component", "sidecar")
    assert ran.code == 60
    assert "nothing is intercepted from here" in ran.err


class Followed:
    """A command that follows."""

    def __init__(self, meshdev: Commands, *words: str) -> None:
        self.process = meshdev.start("logs", "--follow", *words)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_following_ends_by_a_signal(meshdev: Commands, number: int) -> None:
    written(meshdev)
    followed = Followed(meshdev, "--tail", "1")
    assert followed.line() == "session │   Traceback\n"
    assert followed.line() == "helper │ sudo: a password is required\n"
    with meshdev.paths.log.open("a") as log:
        log.write("2026-11-29 19:16:00,000 INFO more\n")
    assert followed.line() == "session │ 2026-11-29 19:16:00,000 INFO more\n"
    assert followed.end(number) == 0


def test_following_waits_for_the_first_connection(meshdev: Commands) -> None:
    followed = Followed(meshdev)
    meshdev.wait_for(meshdev.paths.directory.exists)
    meshdev.paths.log.write_text("first\n")
    assert followed.line() == "session │ first\n"
    assert followed.end(signal.SIGINT) == 0


def test_a_reader_that_has_enough(meshdev: Commands) -> None:
    written(meshdev)
    followed = Followed(meshdev, "--component", "session")
    assert followed.process.stdout is not None
    followed.line()
    followed.process.stdout.close()
    with meshdev.paths.log.open("a") as log:
        log.write("2026-11-29 19:16:00,000 INFO more\n")
    assert followed.process.wait(10) == 1


async def test_a_file_that_is_set_aside_is_followed_by_the_next(tmp_path: Path) -> None:
    shown: list[LogLine] = []
    path = tmp_path / "session.log"
    path.write_text("old\n")
    task = asyncio.ensure_future(follow(tmp_path, [LogFile("session", path)], shown.append))
    await until(lambda: len(shown) == 1)
    path.rename(tmp_path / "session.old.log")
    path.write_text("new\nhalf")
    await until(lambda: len(shown) == 2)
    with path.open("a") as log:
        log.write(" a line\n")
    await until(lambda: len(shown) == 3)
    os.truncate(path, 0)
    path.write_text("x\n")
    await until(lambda: len(shown) == 4)
    assert [each.line for each in shown] == ["old", "new", "half a line", "x"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_folder_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(LaptopError, match="cannot be watched: No such file"):
        await follow(tmp_path / "missing", [], lambda _: None)


def test_a_log_that_cannot_be_read(meshdev: Commands) -> None:
    meshdev.paths.directory.mkdir(mode=0o700)
    meshdev.paths.log.mkdir()
    ran = meshdev("logs", "--component", "session")
    assert (ran.code, ran.out) == (50, "")
    assert "session.log cannot be read: Is a directory" in ran.err


def test_help_is_kubectls(meshdev: Commands) -> None:
    for flag in ("--follow", "-f", "--tail", "--since", "--timestamps", "--previous", "-p", "--namespace", "--context"):
        assert flag in meshdev("logs", "--help").out
