"""What the shells complete: commands, options, names; nothing on stderr, nothing that a shell would interpret."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from meshdev.cli import complete, name_cache
from meshdev.cli.completion import Shell
from meshdev.cli.registry import COMMANDS
from meshdev.state import Paths
from tests.cli.conftest import Commands

SCRIPTS: Final = Path(complete.__file__).with_name("shells")


def lists(names: list[str]) -> dict[str, Any]:
    return {"items": [{"metadata": {"name": name}} for name in names]}


SECRET: Final = {"name": "PASSWORD", "value": "secret"}
POD_SPEC: Final = {
    "containers": [{"ports": [{"containerPort": 8080, "name": "http"}, {"containerPort": 9090}], "env": [SECRET]}]
}
ANSWERS: Final[dict[str, Any]] = {
    "/api/v1/namespaces": lists(["default", "team-1"]),
    "/apis/apps/v1/namespaces/team-1/deployments": lists(["a", "b", "$(reboot)"]),
    "/apis/apps/v1/namespaces/team-1/deployments/b": {"kind": "Deployment", "spec": {"template": {"spec": POD_SPEC}}},
    "/api/v1/namespaces/team-1/services/b": {"kind": "Service", "spec": {"ports": [{"port": 80, "name": "web"}]}},
    "/api/v1/namespaces/team-1/services/hostile": {
        "kind": "Service",
        "spec": {"ports": [{"port": 80, "name": "a\x1b]0;x\x07\u202eb"}]},
    },
}


class Api(http.server.BaseHTTPRequestHandler):
    """Answers that are lists, and counts what is asked."""

    asked: list[str]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(f"{self.path} {self.headers['Authorization']}")
        body = json.dumps(ANSWERS.get(path, {})).encode()
        self.send_response(200 if path in ANSWERS else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nowhere."""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An API server, and a kubeconfig for it; what it was asked."""
    requests: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("CountingApi", (Api,), {"asked": requests}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "current-context": "dev",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [
            {"name": name, "context": {"cluster": "c", "user": "u", "namespace": "team-1"}}
            for name in ("dev", "arn:aws:eks:eu-1:1:cluster/x", "two words; reboot")
        ],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    yield requests
    server.shutdown()
    server.server_close()


def offered(*words: str) -> list[str]:
    """The values, without descriptions and directive."""
    return [line.partition("\t")[0] for line in complete.lines(words)][:-1]


def directive(*words: str) -> str:
    return list(complete.lines(words))[-1]


def test_commands_and_options() -> None:
    assert offered("") == list(COMMANDS)
    assert offered("conn") == ["connect"]
    assert offered("completion", "") == [str(shell) for shell in Shell]
    assert offered("mesh", "--base") == []
    assert offered("mesh", "--bagg") == ["--baggage"]
    assert offered("status", "-o", "") == ["text", "json"]
    assert offered("nonsense", "") == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("connect", "--kubeconfig", ""), ":0"),  # a file
        (("run", "--", ""), ":0"),  # a program
        (("run", "--mesh", "deployment/b", "--", "./sm"), ":0"),
        (("mesh", ""), ":6"),  # kinds, and no space behind them
        (("connect", "--image", ""), ":4"),
        (("connect", "--nonsense", ""), ":4"),
    ],
)
def test_where_files_are_offered(words: tuple[str, ...], expected: str) -> None:
    assert directive(*words) == expected


def test_names(asked: list[str]) -> None:
    assert offered("connect", "--context", "") == ["dev", "arn:aws:eks:eu-1:1:cluster/x"]
    assert asked == []
    assert offered("connect", "-n", "t") == ["team-1"]
    assert asked == ["/api/v1/namespaces?limit=500 Bearer secret"]


def test_targets(asked: list[str]) -> None:
    assert offered("mesh", "s") == ["service/", "statefulset/"]
    assert asked == []
    assert offered("mesh", "dep") == ["deployment/a", "deployment/b"], "and no name that a shell would run"
    assert offered("proxy", "deploy/") == ["deploy/a", "deploy/b"]
    assert offered("run", "--mesh", "deploy/b") == ["deploy/b"]
    assert len(asked) == 1, "the answer is kept for some seconds"
    assert offered("inspect", "sts/") == [], "forbidden"


@pytest.mark.parametrize("before", [("mesh", "deployment/b", "--port"), ("run", "--mesh", "deploy/b", "--port")])
def test_ports(asked: list[str], before: tuple[str, ...]) -> None:  # noqa: ARG001 -- for its effect
    assert offered(*before, "") == ["8080", "9090"]
    assert offered(*before, "80:") == ["80:8080", "80:9090", "80:http"]
    assert "8080\thttp" in list(complete.lines((*before, "8")))


def test_ports_of_a_service(asked: list[str]) -> None:  # noqa: ARG001 -- for its effect
    assert offered("mesh", "svc/b", "--port", "8080:") == ["8080:80", "8080:web"]


@pytest.mark.usefixtures("asked")
def test_a_description_acts_on_no_terminal() -> None:
    assert list(complete.lines(["mesh", "svc/hostile", "--port", ""])) == ["80\ta\\x1b]0;x\\x07\\u202eb", ":4"]


def test_what_is_kept_is_private(asked: list[str], tmp_path: Path) -> None:
    offered("connect", "-n", "t")
    kept = tmp_path / "meshdev" / "completion.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    offered("mesh", "deployment/b", "--port", "")
    assert "secret" not in kept.read_text(), "neither the token nor what is in the object"
    offered("connect", "-n", "t")
    count = len(asked)
    kept.write_text("[]")
    assert offered("connect", "-n", "t") == ["team-1"]
    assert len(asked) == count + 1


def test_what_is_kept_is_forgotten(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "meshdev")
    name_cache.remember(paths, ("a",), {"items": []}, now=100)
    assert name_cache.recall(paths, ("a",), now=109) == {"items": []}
    assert name_cache.recall(paths, ("b",), now=109) is None
    assert name_cache.recall(paths, ("a",), now=111) is None
    assert name_cache.recall(paths, ("a",), now=99) is None, "the clock was set back"


def test_a_cluster_that_hangs_is_not_waited_for(
    asked: list[str],  # noqa: ARG001 -- for its effect
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Here a credential plugin."""
    config = json.loads((tmp_path / "config").read_text())
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sleep", "args": ["60"]}
    config["users"][0]["user"] = {"exec": plugin}
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setattr("meshdev.cli.live_names._REQUEST_SECONDS", 0.1)
    assert offered("connect", "-n", "") == []
    (tmp_path / "config").write_text("nonsense: [")
    assert offered("connect", "-n", "") == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("meshdev ", [""]),
        ("meshdev", [""]),
        ("meshdev conn", ["conn"]),
        ("meshdev mesh deployment/b --port 8080:h", ["mesh", "deployment/b", "--port", "8080:h"]),
        ("meshdev mesh 'two words' --header a=", ["mesh", "two words", "--header", "a="]),
        ("meshdev mesh 'two wo", ["mesh", "two wo"]),
    ],
)
def test_the_words_of_a_line(line: str, words: list[str]) -> None:
    assert complete.words_of(line) == words


#: Of each shell: what completes the line, and prints what it offers. The program is what is first on PATH.
BASH: Final = """
source {script}
COMP_LINE="{line}" COMP_POINT=${{#COMP_LINE}}
compopt() {{ :; }}
_meshdev meshdev
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH: Final = """
source {script}
complete --do-complete "{line}"
"""
#: Its completion needs a terminal: what would be shown is caught.
ZSH: Final = """
compdef() {{ : }}
source {script}
_describe() {{ for each in "${{described[@]}}"; do print -r -- "${{${{each//\\\\\\\\:/%}}%%:*}}"; done }}
words=({line} ${{3:-}}) CURRENT=${{#words}}
_meshdev
"""
HARNESS: Final = {"bash": BASH, "fish": FISH, "zsh": ZSH}


@pytest.mark.parametrize("shell", Shell)
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("meshdev comp", ["completion"]),
        ("meshdev mesh deploy/", ["deploy/a", "deploy/b"]),
        ("meshdev mesh deployment/b --port 80", ["8080"]),
    ],
)
@pytest.mark.usefixtures("asked")
def test_shells(tmp_path: Path, shell: Shell, line: str, expected: list[str]) -> None:
    program = shutil.which(str(shell))
    if program is None:
        pytest.skip(f"no {shell} here; tests/e2e/test_completion.py has every shell")
    (tmp_path / "script").write_text(HARNESS[shell].format(script=SCRIPTS / f"meshdev.{shell}", line=line))
    done = subprocess.run(
        [program, tmp_path / "script"],
        env={**os.environ, "HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert [each.partition("\t")[0] for each in done.stdout.split("\n")[:-1]] == expected, done.stderr


@pytest.mark.usefixtures("asked")
def test_bash_gets_what_it_replaces(tmp_path: Path) -> None:
    """readline takes ``8080:`` for a word of its own."""
    script = BASH.format(script=SCRIPTS / "meshdev.bash", line="meshdev mesh deployment/b --port 8080:")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": path}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["8080", "9090", "http"]


def test_targets_of_ones_own_intercepts(meshdev: Commands) -> None:
    assert meshdev("__complete", "leave", "").out == ":4\n", "and nobody is connected"
    meshdev("proxy", "deploy/b", "--detach")
    assert meshdev("__complete", "leave", "").out == "deployment/b\n:4\n"
    assert meshdev("__complete", "leave", "deploy/").out == "deploy/b\n:4\n"
    ran = meshdev("__complete", "mesh", "deploy/")
    assert (ran.code, ran.out, ran.err) == (0, ":4\n", ""), "there is no such cluster"


def test_a_cluster_behind_a_bastion_is_not_asked_without_it(
    meshdev: Commands, asked: list[str], tmp_path: Path
) -> None:
    meshdev.env |= {"KUBECONFIG": str(tmp_path / "config")}
    assert meshdev("__complete", "mesh", "deploy/b").out == "deploy/b\n:4\n"
    meshdev.plan(status={"context": "dev", "namespace": "team-1", "ssh": "bastion"})
    meshdev("connect")
    asked.clear()
    assert (meshdev("__complete", "mesh", "deploy/").out, asked) == (":4\n", [])


def test_a_line(meshdev: Commands) -> None:
    ran = meshdev("__complete_line", "meshdev status --out")
    assert (ran.code, ran.out, ran.err) == (0, "--output\tOutput format.\n:4\n", "")
