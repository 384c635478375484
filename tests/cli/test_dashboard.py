"""dashboard: one URL on standard output, and a browser that is not given the token as an argument."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Commands, Terminal
from tests.cli.fake_dashboard import URL as DASHBOARD

#: A browser: writes down what it was given and what that file is, and says too much.
BROWSER = """
import os, pathlib, sys, urllib.parse
path = pathlib.Path(urllib.parse.urlsplit(sys.argv[1]).path)
print("Opening in existing browser session.")
out = pathlib.Path(sys.argv[0]).with_suffix(".new")
out.write_text("\\n".join([*sys.argv[1:], oct(path.stat().st_mode), oct(path.parent.stat().st_mode), path.read_text()]))
out.rename(pathlib.Path(sys.argv[0]).with_suffix(".out"))
"""


@pytest.fixture
def browser(meshdev: Commands) -> Path:
    """What it was given."""
    script = meshdev.home / "browser.py"
    script.write_text(BROWSER)
    meshdev.env["BROWSER"] = f"{sys.executable} {script} %s"
    return script.with_suffix(".out")


@pytest.fixture(autouse=True)
def _no_display(meshdev: Commands) -> None:
    meshdev.env |= {"DISPLAY": "", "WAYLAND_DISPLAY": "", "BROWSER": ""}


@pytest.mark.parametrize(
    ("flags", "out"), [((), f"{DASHBOARD}\n"), (("-o", "json"), json.dumps({"url": DASHBOARD}, indent=2) + "\n")]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_url_until_it_is_interrupted(
    meshdev: Commands, flags: tuple[str, ...], out: str, number: signal.Signals
) -> None:
    meshdev("connect")
    process = meshdev.start("dashboard", *flags)
    assert process.stdout is not None
    assert process.stdout.read(len(out)) == out
    process.send_signal(number)
    ran = meshdev.finish(process)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    meshdev.wait_for_trace("nobody looks any more")


def test_a_command_that_is_killed_ends_it(meshdev: Commands) -> None:
    meshdev("connect")
    process = meshdev.start("dashboard")
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    meshdev.finish(process)
    meshdev.wait_for_trace("nobody looks any more")


def test_a_browser_is_given_a_file_that_only_its_owner_reads(meshdev: Commands, browser: Path) -> None:
    meshdev("connect")
    process = meshdev.start("dashboard", "--port", "8888")
    assert process.stdout is not None
    assert process.stdout.readline() == f"{DASHBOARD}\n"
    meshdev.wait_for(browser.exists)
    given, mode, folder, *page = browser.read_text().splitlines()
    assert given == (meshdev.paths.directory / f"dashboard-{process.pid}.html").as_uri()
    assert (mode, folder) == (oct(0o100600), oct(0o40700))
    assert f'<meta http-equiv="refresh" content="0; url={DASHBOARD}">' in page
    process.send_signal(signal.SIGINT)
    ran = meshdev.finish(process)
    assert (ran.code, ran.out) == (0, ""), "what a browser prints is no output of ours"
    assert list(meshdev.paths.directory.glob("*.html")) == []
    assert 'asked {"op": "dashboard", "port": 8888}' in meshdev.trace()


def test_what_a_killed_command_left_is_removed_by_the_next(meshdev: Commands, browser: Path) -> None:
    meshdev("connect")
    ended = meshdev.paths.directory / f"dashboard-{(1 << 22) - 1}.html"
    running = meshdev.paths.directory / f"dashboard-{os.getpid()}.html"
    for each in (ended, running):
        each.touch()
    process = meshdev.start("dashboard")
    meshdev.wait_for(browser.exists)
    assert (ended.exists(), running.exists()) == (False, True)
    process.send_signal(signal.SIGINT)
    assert meshdev.finish(process).code == 0


@pytest.mark.parametrize("flags", [("--no-browser",), ()])
def test_where_no_browser_is_wanted_or_could_show_anything(
    meshdev: Commands, browser: Path, flags: tuple[str, ...]
) -> None:
    meshdev("connect")
    if not flags:
        meshdev.env["BROWSER"] = ""
    process = meshdev.start("dashboard", *flags)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert meshdev.finish(process).code == 0
    assert list(meshdev.paths.directory.glob("*.html")) == []
    assert not browser.exists()


def test_people_are_told_how_to_end_it(meshdev: Commands) -> None:
    meshdev("connect")
    terminal = Terminal(meshdev, "dashboard")
    terminal.read_until("Ctrl-C ends it.")
    assert DASHBOARD in terminal.seen
    terminal.write("\x03")
    assert terminal.finish() == 0


def test_a_connection_that_ends(meshdev: Commands) -> None:
    meshdev("connect")
    process = meshdev.start("dashboard")
    meshdev.wait_for_trace("asked")
    meshdev.say("end")
    ran = meshdev.finish(process)
    assert (ran.code, ran.err) == (0, "note: the session has ended, and the dashboard with it\n")


def test_a_session_that_vanishes_is_an_error(meshdev: Commands) -> None:
    meshdev("connect")
    process = meshdev.start("dashboard")
    meshdev.wait_for_trace("asked")
    os.kill(meshdev.pids()[0], signal.SIGKILL)
    ran = meshdev.finish(process)
    assert ran.code == 40
    assert "the session ended" in ran.err


def test_a_port_that_is_taken(meshdev: Commands) -> None:
    meshdev("connect")
    ran = meshdev("dashboard", "--port", "1")
    assert (ran.code, ran.out, ran.err) == (50, "", "meshdev: port 1 is taken\nanother --port\n")


def test_a_port_that_is_none(meshdev: Commands) -> None:
    assert meshdev("dashboard", "--port", "70000").code == 2


def test_without_a_connection(meshdev: Commands) -> None:
    ran = meshdev("dashboard", "-o", "json")
    assert (ran.code, ran.json()["error"]["hint"]) == (40, "meshdev connect")
