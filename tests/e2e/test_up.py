"""``meshdev up`` on a real cluster: three programs and two intercepts of one file, and nothing of it afterwards."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e import workloads
from tests.e2e.conftest import Laptop, until
from tests.e2e.intercepting import A1, answers, ask, listed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

URL: Final = "http://a/"
ORIGINAL: Final = "service-a>service-b>service-c"
LOCAL: Final = "service-a>local-b>local-c"

FILE: Final = """\
connection:
  namespace: {namespace}
intercepts:
  b: {{target: deployment/b, mode: mesh, headers: ["a=${{WHO:-1}}"], ports: ["18080:http"]}}
  c: {{target: deployment/c, mode: mesh, headers: [a=1], ports: ["18081:http"]}}
processes:
  b:
    command: exec python -m tests.cluster.sample --name local-b --next http://c/ --port $PORT
    workingDir: {checkout}
    env: {{PORT: 18080}}
    serves: [b]
    ready: {{http: "http://localhost:18080/request"}}
  c:
    command: [python, -m, tests.cluster.sample, --name, local-c, --port, "18081"]
    workingDir: {checkout}
    serves: [c]
    ready: {{tcp: "localhost:18081"}}
    restart: on-failure
  watch:
    command: curl -sS -H a:1 http://a/; echo " at port $KUBERNETES_SERVICE_PORT"; exec sleep 617
    envFrom: deployment/b
    dependsOn: [b, c]
"""


@pytest.fixture(scope="module")
def namespace(cluster: None) -> Iterator[str]:  # noqa: ARG001 -- for its effect
    """a → b → c, apart from the testbed's own."""
    apps = [manifest for name in "abc" for manifest in workloads.of(workloads.sample(name), "up")]
    with workloads.namespace("up", *apps, workloads.client("up")) as name:
        yield name


class Project:
    """The file above on a laptop."""

    def __init__(self, laptop: Laptop, namespace: str, file: Path) -> None:
        self.laptop = laptop
        self.namespace = namespace
        self.file = file
        file.write_text(FILE.format(namespace=namespace, checkout=Path.cwd()))

    def start(self, *words: str) -> subprocess.Popen[str]:
        return self.laptop.start("meshdev", "up", "-f", str(self.file), *words)

    def up(self) -> subprocess.Popen[str]:
        process = self.start()
        assert process.stdout is not None
        seen = ""
        while "| up: 3 processes, 2 intercepts\n" not in seen:
            line = process.stdout.readline()
            assert line, seen
            seen += line
        return process

    def command(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.laptop.run("meshdev", name, "-f", str(self.file), *words, timeout=120)

    def asked(self) -> list[str]:
        """What the entry point answers, with and without the header."""
        return [body for _, body in ask(self.namespace, (URL, A1), (URL, {}))]

    def programs(self) -> str:
        """Those of the file that run."""
        done = self.laptop.run("pgrep", "-af", "--", "--port 1808[01]$|sleep 617$")
        assert done.returncode in {0, 1}, done.stderr
        return done.stdout

    def check_nothing_left(self) -> None:
        assert self.programs() == ""
        assert listed(self.laptop, "-n", self.namespace) == []
        assert self.asked() == [ORIGINAL, ORIGINAL]


@pytest.fixture
def project(laptop: Laptop, namespace: str, tmp_path: Path) -> Iterator[Project]:
    before = laptop.snapshot()
    made = Project(laptop, namespace, tmp_path / "meshdev.yaml")
    yield made
    made.command("down")
    assert laptop.status()["state"] == "disconnected"
    assert laptop.snapshot() == before


def test_three_programs_and_two_intercepts_and_up_twice(project: Project) -> None:
    process = project.up()
    assert project.asked() == [LOCAL, ORIGINAL]
    again = project.command("up")
    assert (again.returncode, "nothing to change" in again.stdout) == (0, True), again
    assert len(project.programs().splitlines()) == 3
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert f"watch   | {LOCAL} at port 443\n" in printed, "it was started when both intercepts were up"
    assert "Traceback" not in printed
    project.check_nothing_left()


def test_down_from_elsewhere_and_a_program_for_a_pipeline(project: Project) -> None:
    detached = project.command("up", "--detach")
    assert detached.returncode == 0, detached.stdout + detached.stderr
    assert project.asked() == [LOCAL, ORIGINAL]
    ran = project.command("up", "--", "curl", "-sS", "-H", "a: 1", URL)
    assert (ran.returncode, ran.stdout) == (0, LOCAL)
    project.file.write_text(project.file.read_text().replace("[a=1]", "[a=2]"))
    edited = project.command("up")
    assert (edited.returncode, "intercept c changed" in edited.stderr) == (59, True), edited
    assert project.command("down").stdout == "Ended\n"
    project.check_nothing_left()


def test_a_file_that_is_wrong_names_line_and_column_and_touches_nothing(project: Project) -> None:
    project.file.write_text(project.file.read_text().replace("headers: [a=1]", "header: [a=1]"))
    done = project.command("up")
    assert done.returncode == 12
    assert f"{project.file}:5:41: intercepts.c.header: unknown key, did you mean headers?" in done.stderr
    assert project.laptop.status()["state"] == "disconnected"


def test_up_that_is_killed_leaves_no_program_and_no_route(project: Project) -> None:
    process = project.up()
    process.kill()
    process.communicate(timeout=60)
    until("the guard has ended the programs", lambda: project.programs() == "", 15)
    until("the session has left", lambda: listed(project.laptop, "-n", project.namespace) == [], 40)
    answers(project.namespace, URL, A1, [ORIGINAL])
    assert project.command("down").returncode == 0
    project.check_nothing_left()
    project.laptop.meshdev("disconnect")
