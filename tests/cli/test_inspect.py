"""inspect: against a session that speaks the real protocol."""

import json
import signal
from dataclasses import replace

import pytest

from meshdev.cli import request_text
from tests.cli.conftest import Commands, Terminal
from tests.cli.fake_session import INSPECTED


def test_what_is_asked_for(meshdev: Commands) -> None:
    meshdev("connect")
    assert meshdev("inspect", "svc/b", "-n", "team-1", "--all", "--show-secrets").code == 0
    asked = next(line for line in meshdev.trace() if line.startswith("asked "))
    assert json.loads(asked.removeprefix("asked ")) == {
        "op": "inspect",
        "target": "svc/b",
        "namespace": "team-1",
        "follow": False,
        "all": True,
        "values": True,
    }


def test_filters(meshdev: Commands) -> None:
    meshdev("connect")
    flags = "--method GET --method POST --path /api --status 5xx --status 404 --served-by laptop --from deployment/a"
    assert meshdev("inspect", *flags.split()).code == 0
    asked = next(line for line in meshdev.trace() if line.startswith("asked "))
    assert json.loads(asked.removeprefix("asked "))["filter"] == {
        "methods": ["GET", "POST"],
        "paths": ["/api"],
        "statuses": ["5xx", "404"],
        "served_by": ["laptop"],
        "clients": ["deployment/a"],
    }


@pytest.mark.parametrize(("flag", "value"), [("--status", "600s"), ("--served-by", "nobody")])
def test_filters_that_are_none(meshdev: Commands, flag: str, value: str) -> None:
    ran = meshdev("inspect", flag, value)
    assert ran.code == 2
    assert flag in ran.err


def test_lines_for_people(meshdev: Commands) -> None:
    meshdev("connect")
    ran = meshdev("inspect")
    heading, line = ran.out.splitlines()
    assert heading.split() == [*request_text.HEADINGS]
    assert line.split("  ")[1:] != []
    assert line.endswith("deployment/b            a=2, not a=1")
    assert "deployment/a" in line
    assert "GET      /api?token=***" in line
    assert ran.err == "note: 2 more requests were too many to show\n"


def test_json_for_scripts(meshdev: Commands) -> None:
    meshdev("connect")
    ran = meshdev("inspect", "-o", "json")
    assert [json.loads(line) for line in ran.out.splitlines()] == [INSPECTED.as_json()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_follows_until_it_is_interrupted(meshdev: Commands, number: signal.Signals) -> None:
    meshdev("connect")
    process = meshdev.start("inspect", "--follow", "-o", "json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == INSPECTED.as_json()
    process.send_signal(number)
    ran = meshdev.finish(process)
    assert (ran.code, ran.out) == (0, "")
    meshdev.wait_for_trace("nobody looks any more")


def test_a_table_on_a_terminal(meshdev: Commands) -> None:
    meshdev("connect")
    terminal = Terminal(meshdev, "inspect", "-f")
    terminal.read_until("a=2, not a=1")
    terminal.read_until("1 requests, 2 more were too many to show. Ctrl-C ends.")
    terminal.write("\x03")
    terminal.process.wait(10)
    assert terminal.process.returncode == 0
    meshdev.wait_for_trace("nobody looks any more")


def test_a_session_that_ends_is_an_error(meshdev: Commands) -> None:
    meshdev("connect")
    process = meshdev.start("inspect", "--follow")
    meshdev.wait_for_trace("asked")
    meshdev("disconnect")
    ran = meshdev.finish(process)
    assert ran.code == 40
    assert "the session ended" in ran.err


def test_without_a_connection(meshdev: Commands) -> None:
    ran = meshdev("inspect")
    assert ran.code != 0
    assert ran.err == "meshdev: there is no connection, so nothing is intercepted\nmeshdev connect\n"


def test_a_target_that_is_none(meshdev: Commands) -> None:
    ran = meshdev("inspect", "b")
    assert ran.code == 2
    assert "has no kind" in ran.err


@pytest.mark.parametrize(
    ("changes", "cells"),
    [
        ({"served_by": "laptop", "holder": "ann@laptop"}, {"to": "ann@laptop"}),
        ({"served_by": "laptop"}, {"to": "laptop"}),
        ({"served_by": "fallback"}, {"to": "deployment/b"}),
        ({"served_by": "meshdev"}, {"to": "meshdev (error)"}),
        ({"duration": 999}, {"took": "999 µs"}),
        ({"duration": 2_500_000}, {"took": "2.5 s"}),
        ({"status": 0}, {"status": "-"}),
        ({"method": "", "path": "", "protocol": "tcp"}, {"method": "tcp", "path": ":8080"}),
        ({"path": "/\x1b[31m"}, {"path": "/\\x1b[31m"}),
    ],
)
def test_cells(changes: dict[str, object], cells: dict[str, str]) -> None:
    found = request_text.row(replace(INSPECTED, record=replace(INSPECTED.record, **changes)))  # type: ignore[arg-type]  # of fields
    assert {name: getattr(found, name) for name in cells} == cells


def test_an_unknown_client_is_its_address() -> None:
    assert request_text.row(replace(INSPECTED, workload=None)).client == "10.244.0.7"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (60, " deployment/a     GET    /api?token=***       200 3."),
        (79, " deployment/a     GET    /api?token=***       200 3.4 ms   a=2, not a=1"),
        (150, "deployment/b            a=2, not a=1"),
    ],
)
def test_a_line_that_fits(columns: int, expected: str) -> None:
    found = request_text.fitting_line(INSPECTED, columns)
    assert len(found) <= columns
    assert found.endswith(expected)


def test_what_is_too_long_for_a_line_is_shortened() -> None:
    record = replace(INSPECTED.record, path="/" + "x" * 200, method="PROPFIND")
    found = request_text.fitting_line(replace(INSPECTED, record=record, workload="deployment/a-long-name"), 79)
    assert found[8:] == f" deployment/a-lo… PROPF… /{'x' * 18}… 200 3.4 ms   a=2, not a=1"
    assert len(found) == 79
