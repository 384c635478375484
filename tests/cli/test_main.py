"""The edge of the command: help, versions, wrong command lines, what any error becomes, and how fast it starts."""

import json
import logging
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from jsonschema import Draft7Validator

from meshdev import state
from meshdev.cli import options
from meshdev.cli.commands import app, run, wants_json
from meshdev.cli.registry import COMMANDS
from meshdev.cli.render import indented, printable
from meshdev.cli.status_text import status_text
from meshdev.config import OLDEST_PROTOCOL, PROTOCOL, VERSION
from meshdev.errors import ForbiddenError, LaptopError, UsageError
from meshdev.session.__main__ import OneLineFormatter
from meshdev.wire.session_api import CarrierStatus, DnsStatus, Status
from tests.cli.conftest import Commands


def test_the_commands() -> None:
    names = (
        "completion connect dashboard disconnect doctor down env gather inspect leave list logs mesh proxy "
        "pull rbac restore run schema status uninstall up version"
    )
    assert " ".join(sorted(COMMANDS)) == names


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_by_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    app([name, "--help"], prog_name="meshdev", standalone_mode=False)
    text = capsys.readouterr().out
    assert "Example" in text
    assert f"meshdev {name}" in text
    assert text.splitlines()[2].strip() == COMMANDS[name], "meshdev --help says the same of it"


def test_versions(meshdev: Commands) -> None:
    assert VERSION in meshdev("--version").out
    spoken = {"oldest": OLDEST_PROTOCOL, "newest": PROTOCOL}
    assert meshdev("version", "-o", "json").json() == {"version": VERSION, "protocol": spoken}
    ran = subprocess.run([sys.executable, "-m", "meshdev", "version"], check=True, capture_output=True, text=True)
    assert ran.stdout == f"meshdev {VERSION}, tunnel protocol versions {OLDEST_PROTOCOL} to {PROTOCOL}\n"


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("connect", "--nonsense"),
        ("connect", "surplus"),
        ("connect", "-o", "yaml"),
        ("connect", "--carrier", "pigeon"),
        ("connect", "--carriers", "9"),
        ("connect", "--metrics-port", "0"),
        ("connect", "--metrics-port", "65536"),
        ("connect", "--otlp", "localhost:4317"),
        ("connect", "--otlp", "http://ann:secret@localhost:4318"),
        ("connect", "--otlp-logs"),
        ("connect", "--also", "10.0.0.0/33"),
        ("connect", "--never", "fd00::/8"),
        ("connect", "--request-timeout", "soon"),
        ("connect", "--kubeconfig", ""),
        ("connect", "-n", ""),
        ("proxy",),
        ("proxy", "b"),
        ("proxy", "cronjob/b"),
        ("proxy", "deploy/b", "--header", "a=1"),
        ("proxy", "deploy/b", "--port", "0"),
        ("proxy", "deploy/b", "--strategy", "best"),
        ("proxy", "deploy/b", "--existing", "some"),
        ("proxy", "deploy/b", "-n", ""),
        ("mesh", "deploy/b"),
        ("mesh", "deploy/b", "-H", "a~("),
        ("mesh", "deploy/b", "--path-prefix", "v1"),
        ("leave",),
        ("leave", "b"),
        ("leave", "deploy/b", "--all"),
        ("list", "-n", ""),
    ],
)
def test_what_cannot_be_meant_is_2(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert run([*words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("meshdev: ")
    assert "Traceback" not in err
    assert run([words[0], "-o", "json", *words[1:]]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["code"] == "usage"
    assert err == ""


@pytest.mark.parametrize(
    "words",
    [
        ("run",),
        ("run", "--nonsense", "true"),
        ("run", "--mesh", "deploy/b", "true"),
        ("run", "--header", "a=1", "true"),
        ("run", "--proxy", "deploy/b", "--header", "a=1", "true"),
        ("run", "--port", "80", "true"),
    ],
)
def test_what_cannot_be_run_is_125(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert run([*words]) == 125
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("meshdev: ")


def test_the_process_ends_with_that_code(meshdev: Commands) -> None:
    ran = meshdev("connect", "surplus")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("meshdev: ")


def test_no_command_prints_the_help(meshdev: Commands) -> None:
    ran = meshdev()
    assert ran.code == 0
    assert "connect" in ran.out


def _raise(error: BaseException) -> Any:
    raise error


def test_what_errors_become(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["connect"], lambda _: _raise(ForbiddenError("no \x1b[31m", hint="ask"))) == 20
    assert capsys.readouterr() == ("", "meshdev: no \\x1b[31m\nask\n")
    assert run(["connect"], lambda _: _raise(KeyboardInterrupt())) == 130
    assert run(["connect"], lambda _: _raise(typer.Abort())) == 130
    assert run(["connect"], lambda _: _raise(typer.Exit(3))) == 3
    capsys.readouterr()
    assert run(["connect"], lambda _: _raise(ZeroDivisionError("oh"))) == 1
    assert "ZeroDivisionError: oh\nrun it again with --debug" in capsys.readouterr().err
    assert run(["connect", "--debug"], lambda _: _raise(ZeroDivisionError("oh"))) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("status -o json", True),
        ("status -ojson", True),
        ("status --output json", True),
        ("status --output=json", True),
        ("status -o text", False),
        ("status -o", False),
        ("run -- curl -o json", False),
        ("--debug run curl -o json", False),
        ("", False),
    ],
)
def test_json_is_seen_on_any_command_line(words: str, expected: bool) -> None:
    assert wants_json(words.split()) is expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("0", 86400),
        ("0s", 86400),
        ("30", 30),
        ("10s", 10),
        ("1m30s", 90),
        ("1.5h", 5400),
        ("250ms", 0.25),
        (".5s", 0.5),
    ],
)
def test_kubectls_durations(text: str | None, seconds: float | None) -> None:
    assert options.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1x", "1m30", "-1s", "٣", "1 s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError):
        options.seconds(text)


def test_kubeconfig_files() -> None:
    assert options.anchored({}) == {}
    assert options.anchored({"KUBECONFIG": ""}) == {"KUBECONFIG": ""}
    assert options.anchored({"KUBECONFIG": "/a::b"}) == {"KUBECONFIG": f"/a:{Path.cwd()}/b"}
    certificate = {"OTEL_EXPORTER_OTLP_CERTIFICATE": "ca.pem", "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY": "/key.pem"}
    assert options.anchored({**certificate, "OTEL_EXPORTER_OTLP_HEADERS": "a=b"}) == {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": f"{Path.cwd()}/ca.pem",
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY": "/key.pem",
        "OTEL_EXPORTER_OTLP_HEADERS": "a=b",
    }
    assert options.kubeconfig_file(None) is None
    assert options.kubeconfig_file("c") == f"{Path.cwd()}/c"


def test_words_of_others_do_not_drive_the_terminal() -> None:
    assert printable("a\tb\nc\x1b]0;title\x07\u202e") == "a\tb\nc\\x1b]0;title\\x07\\u202e"
    assert indented("no\nmeshdev: yes") == "no\n  meshdev: yes"


def _shell(meshdev: Commands, line: str) -> tuple[int, str, str]:
    """*line* in a shell, with ``$M`` as the command; exit code, stdout and stderr."""
    command = f"{sys.executable} {Path(__file__).with_name('driver.py')}"
    done = subprocess.run(
        ["sh", "-c", line],
        env={**meshdev.environment(), "M": command},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("words", ["status", "status -o json", "version", "--help", "rbac"])
@pytest.mark.parametrize(
    ("where", "reason"), [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")]
)
def test_a_stdout_that_takes_nothing(meshdev: Commands, words: str, where: str, reason: str) -> None:
    """As coreutils and kubectl: exit code 1 and the reason."""
    code, _, err = _shell(meshdev, f"exec $M {words} {where}")
    assert (code, err) == (1, f"meshdev: standard output cannot be written: {reason}\n")


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
def test_a_stderr_that_takes_nothing_changes_nothing(meshdev: Commands, where: str) -> None:
    assert _shell(meshdev, f"exec $M version {where}") == _shell(meshdev, "exec $M version")
    code, out, _ = _shell(meshdev, f"exec $M leave {where}")
    assert (code, out) == (2, "")
    code, out, _ = _shell(meshdev, f"exec $M connect -o json {where}")
    assert (code, json.loads(out)["state"]) == (0, "connected")


def test_a_pipe_that_nobody_reads(meshdev: Commands) -> None:
    _, _, err = _shell(meshdev, "$M --help | true; $M status | head -c0")
    assert "Traceback" not in err


def test_a_session_log_has_a_line_a_record(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(levelname)s %(message)s"))
    words = "no\n2026 INFO all is well\x1b[2J"
    try:
        _raise(ValueError(words))
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "said %s", (words,), sys.exc_info())
    handler.handle(record)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == r"ERROR said no\n2026 INFO all is well\x1b[2J"
    assert all(line.startswith("  ") for line in lines[1:])
    assert not any("\x1b" in line for line in lines)


def test_a_uid_without_name_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.setattr(state, "_temporary", partial(state._temporary, tmp_path))
    uid = os.getuid()
    found = state.Paths.locate({}, 4_000_000_000)  # no /run/user of it
    assert found.directory == tmp_path / f"meshdev-{uid}" / ".local" / "state" / "meshdev"
    found.prepare()
    (tmp_path / f"meshdev-{uid}").chmod(0o777)
    with pytest.raises(LaptopError, match="not a folder of yours alone"):
        state.Paths.locate({}, 4_000_000_000)


def test_a_status_for_people() -> None:
    status = Status(
        state="connected",
        context="dev",
        namespace="default",
        server="https://10.0.0.1:6443",
        address="198.18.0.1",
        carrier="spdy",
        carriers=(CarrierStatus("spdy", up=True, rtt_ms=0.42), CarrierStatus("spdy", up=False)),
        routes=("10.96.0.0/16", "10.244.0.0/24"),
        dns=DnsStatus("redirect", "10.96.0.10", domains=("svc", "cluster.local")),
        manager_namespace="default",
        manager_pod="meshdev-traffic-manager-1",
        session_pid=7,
        helper_pid=8,
        since_s=3725,
        metrics="http://127.0.0.1:9190/metrics",
        otlp="http://localhost:4318",
        notes=("10.0.0.0/8 is also yours",),
    )
    assert status_text(status) == (
        "Connected to dev (https://10.0.0.1:6443), namespace default\n"
        "  since      62m\n"
        "  address    198.18.0.1\n"
        "  carrier    spdy, 1 of 2 up, 0.4 ms\n"
        "  routes     10.96.0.0/16, 10.244.0.0/24\n"
        "  names      svc, cluster.local (redirect, nameserver 10.96.0.10)\n"
        "  manager    default/meshdev-traffic-manager-1\n"
        "  metrics    http://127.0.0.1:9190/metrics\n"
        "  otlp       http://localhost:4318\n"
        "  processes  session 7, helper 8\n"
        "note: 10.0.0.0/8 is also yours"
    )
    degraded = Status(state="degraded", context="dev", notes=("meshdev0 was set down (since 15:20:31)",))
    assert status_text(degraded) == "Connected (degraded) to dev\nnote: meshdev0 was set down (since 15:20:31)"
    left = Status(state="disconnected", leftovers=("network device meshdev0",))
    assert status_text(left) == (
        "Disconnected\nLeft over from a connection that crashed:\n"
        "  network device meshdev0\n`meshdev restore` removes it."
    )


def test_status_loads_nothing_heavy() -> None:
    code = (
        "import sys, meshdev.cli.commands; "
        "print(sorted({'kubernetes', 'rich', 'asyncio', 'yaml', 'pyroute2', 'ssl', 'aiohttp'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


#: Of every command that takes a match, as --help shows them.
MATCH_OPTIONS = """\
  -H, --header NAME=VALUE Match requests with this header; also NAME~REGEX or NAME. Repeatable.
  --path-prefix PATH Match requests whose path has this prefix.
  --method METHOD Match requests of this method.
  --baggage KEY=VALUE Match requests with this member of baggage. Repeatable.
  --tracestate KEY=VALUE Match requests with this member of tracestate. Repeatable.
"""


@pytest.mark.parametrize("name", ["mesh", "run"])
def test_the_options_of_a_match(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    app([name, "--help"], prog_name="meshdev", standalone_mode=False)
    assert " ".join(MATCH_OPTIONS.split()) in " ".join(capsys.readouterr().out.split())


def test_the_schema_of_project_files_is_one(meshdev: Commands) -> None:
    schema = meshdev("schema").json()
    Draft7Validator.check_schema(schema)
    assert {"connection", "intercepts", "processes"} == schema["properties"].keys()
