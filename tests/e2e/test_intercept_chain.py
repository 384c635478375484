"""A → B → C with a local B' in the middle: from the cluster and from the laptop, and what its user sees of it."""

import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import pytest

from meshdev.errors import InterceptError, UsageError
from tests.cluster.manifests import App
from tests.e2e import pods, workloads
from tests.e2e.conftest import CHECKOUT, Laptop, kubectl, until
from tests.e2e.intercepting import (
    A1,
    LOCAL,
    LocalProgram,
    ask,
    counts,
    curl,
    intercepted,
    listed,
    local,
    refused,
)

pytestmark = [pytest.mark.cluster, pytest.mark.every_cluster, pytest.mark.timeout(90)]

NAMESPACE: Final = "intercept-chain"
A: Final = f"http://a.{NAMESPACE}/"
THROUGH_LOCAL: Final = f"service-a>{LOCAL}>service-c"
THROUGH_B: Final = "service-a>service-b>service-c"
MESH: Final = ("mesh", "deployment/b", "-n", NAMESPACE, "--header", "a=1")


@pytest.fixture(scope="module")
def there(cluster: None) -> Iterator[Laptop]:  # noqa: ARG001 -- for its effect
    """A, B and C, and a laptop that is connected."""
    chain = [workloads.sample(name) for name in "abc"]
    laptop = Laptop(1)
    laptop.clean()
    made = [each for app in map(without_udp, chain) for each in workloads.of(app, NAMESPACE)]
    with workloads.namespace(NAMESPACE, *made), laptop.connected():
        before = pods.identities(NAMESPACE)
        yield laptop
        assert pods.identities(NAMESPACE) == before
    laptop.clean()


def without_udp(app: App) -> App:
    """In mode mesh it is left alone anyway."""
    return replace(app, ports=app.ports[:1])


@pytest.fixture
def b(there: Laptop) -> Iterator[LocalProgram]:
    """B' in the middle."""
    with local(there, "--port=8080", f"--next=http://c.{NAMESPACE}/") as program:
        yield program


@pytest.mark.usefixtures("b")
def test_each_pod_has_an_identity_of_its_own(there: Laptop) -> None:
    with intercepted(there, "mesh", "deployment/b", NAMESPACE, "--header", "a=1"):
        (own,) = there.status()["intercepts"]
        (row,) = listed(there, "-n", NAMESPACE)
        manager = kubectl("get", "pod", there.status()["manager"]["pod"], "-o", "jsonpath={.metadata.uid}")
        workload = f"spiffe://{manager}/ns/{NAMESPACE}/deployment/b/pod"
        names = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods.pods(NAMESPACE, "app=b")}
        expected = [{"pod": name, "identity": f"{workload}/{uid}"} for name, uid in sorted(names.items())]
        assert (own["identities"], row["identities"]) == (expected, expected)
        assert f"{expected[0]['pod']}: {expected[0]['identity']}" in there.meshdev("status")


@pytest.mark.usefixtures("b")
def test_with_the_header_it_is_the_laptop(there: Laptop) -> None:
    with intercepted(there, "mesh", "deployment/b", NAMESPACE, "--header", "a=1"):
        for _ in range(3):
            assert ask(NAMESPACE, (A, A1), (A, {}), (A, {"a": "2"})) == [
                (200, THROUGH_LOCAL),
                (200, THROUGH_B),
                (200, THROUGH_B),
            ]
            assert curl(there, A, A1) == THROUGH_LOCAL
            assert curl(there, A) == THROUGH_B
    assert ask(NAMESPACE, (A, A1)) == [(200, THROUGH_B)]
    with intercepted(there, "proxy", "svc/b", NAMESPACE):
        assert ask(NAMESPACE, (A, {})) == [(200, THROUGH_LOCAL)]
        assert curl(there, A) == THROUGH_LOCAL
    assert ask(NAMESPACE, (A, {})) == [(200, THROUGH_B)]


@pytest.mark.usefixtures("b")
@pytest.mark.parametrize(
    ("flags", "yes", "no"),
    [
        (("-H", "a~[0-9]+"), {"A": "12"}, {"a": "1x"}),
        (("-H", "a"), {"a": ""}, {"b": "1"}),
        (("-H", "a=1", "-H", "b=2"), {"a": "1", "b": "2"}, {"a": "1"}),
        (("--baggage", "who=me"), {"baggage": "x=1, who=me;p=1"}, {"baggage": "who=you"}),
        (("--tracestate", "me=1"), {"tracestate": "other=2,me=1"}, {"tracestate": "me=2"}),
        (("-H", "a=1", "--method", "GET", "--path-prefix", "/"), {"a": "1"}, {}),
        (("-H", "a=1", "--method", "POST"), None, {"a": "1"}),
        (("-H", "a=1", "--path-prefix", "/elsewhere"), None, {"a": "1"}),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, tuple) else "",
)
def test_matches(there: Laptop, flags: tuple[str, ...], yes: dict[str, str] | None, no: dict[str, str]) -> None:
    url = f"http://b.{NAMESPACE}/"
    with intercepted(there, "mesh", "deployment/b", NAMESPACE, *flags):
        if yes is not None:
            assert ask(NAMESPACE, (url, yes)) == [(200, f"{LOCAL}>service-c")]
        assert ask(NAMESPACE, (url, no)) == [(200, "service-b>service-c")]


def test_b_goes_and_comes(there: Laptop, b: LocalProgram) -> None:
    """The original answers while B' is not there, within the same request; both are counted."""
    with intercepted(there, "mesh", "deployment/b", NAMESPACE, "--header", "a=1"):
        assert ask(NAMESPACE, (A, A1)) == [(200, THROUGH_LOCAL)]
        before = counts(there, "deployment/b")
        b.stop()
        assert ask(NAMESPACE, *[(A, A1)] * 5) == [(200, THROUGH_B)] * 5
        b.start()
        until("B' is asked again", lambda: ask(NAMESPACE, (A, A1)) == [(200, THROUGH_LOCAL)], 3)
        until("five are counted", lambda: counts(there, "deployment/b")["fell_back"] >= before["fell_back"] + 5, 5)
        assert counts(there, "deployment/b")["errors"] == 0


def test_without_fallback(there: Laptop, b: LocalProgram) -> None:
    url = f"http://b.{NAMESPACE}/"
    with intercepted(there, "mesh", "deployment/b", NAMESPACE, "--header", "a=1", "--no-fallback"):
        b.stop()
        until("it is 503", lambda: ask(NAMESPACE, (url, A1))[0][0] == 503, 3)
        ((status, body),) = ask(NAMESPACE, (url, A1))
        assert (status, "root@laptop1" in body) == (503, True), body
        assert ask(NAMESPACE, (url, {})) == [(200, "service-b>service-c")]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])
def test_where_b_listens(there: Laptop, host: str) -> None:
    url = f"http://b.{NAMESPACE}/"
    with (
        intercepted(there, "mesh", "deployment/b", NAMESPACE, "--header", "a=1", "--port", "9191:8080"),
        local(there, "--port=9191", f"--host={host}"),
    ):
        until("B' is asked", lambda: ask(NAMESPACE, (url, A1)) == [(200, LOCAL)], 3)


# -- what the command tells -----------------------------------------------------------------------------------------


class Attached:
    """``meshdev mesh`` that stays."""

    def __init__(self, laptop: Laptop, *arguments: str) -> None:
        self.lines: list[str] = []
        self.process = laptop.start("meshdev", *arguments)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def says(self, pattern: str, seconds: float = 30) -> None:
        until(f"{pattern} is said", lambda: re.search(pattern, "".join(self.lines)), seconds)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)


@contextmanager
def attached(laptop: Laptop, *arguments: str) -> Iterator[Attached]:
    running = Attached(laptop, *arguments)
    try:
        yield running
    finally:
        print("".join(running.lines))
        running.process.kill()
        running.process.wait(10)


@pytest.mark.usefixtures("b")
def test_it_stays_and_counts_until_interrupted(there: Laptop) -> None:
    with attached(there, *MESH) as command:
        command.says(r"curl .*a: ?1")
        assert ask(NAMESPACE, (A, A1)) == [(200, THROUGH_LOCAL)]
        command.says(r"(?i)matched[^\n]*[1-9]|[1-9][0-9]* matched", 5)
        command.interrupt()
        assert command.process.returncode in (0, 130)
    assert ask(NAMESPACE, (A, A1)) == [(200, THROUGH_B)]
    assert listed(there, "-n", NAMESPACE) == []
    assert there.status()["state"] == "connected"


@pytest.mark.usefixtures("b")
def test_one_whose_terminal_is_closed_leaves(there: Laptop) -> None:
    with attached(there, *MESH) as command:
        command.says(r"curl .*a: ?1")
        command.process.kill()
        until("it is left", lambda: listed(there, "-n", NAMESPACE) == [], 10)
    assert ask(NAMESPACE, (A, A1)) == [(200, THROUGH_B)]


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("mesh", "deployment/b"), UsageError, "which requests"),
        (("mesh", "deployment/b", "-H", "a~("), UsageError, "column"),
        (("mesh", "deployment/b", "-H", "a b=1"), UsageError, "column"),
        (("mesh", "nonsense/b", "-H", "a=1"), UsageError, "nonsense"),
        (("mesh", "deployment/nobody", "-H", "a=1"), InterceptError, "nobody"),
        (("proxy", "deployment/b", "--port", "8080:nobody"), InterceptError, "nobody"),
    ],
    ids=["no-match", "regex", "header", "kind", "nobody", "port"],
)
def test_what_cannot_be_meant(there: Laptop, arguments: tuple[str, ...], kind: type[Any], words: str) -> None:
    code, error = refused(there, *arguments, "-n", NAMESPACE)
    assert (code, error["code"]) == (kind.exit_code, kind.code), error
    assert words in error["message"]
    assert kubectl("-n", NAMESPACE, "get", "leases", "-o", "name") == ""


# -- run ------------------------------------------------------------------------------------------------------------


def run(laptop: Laptop, *command: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    words = laptop.command("meshdev", "run", "--mesh", "deployment/b", "-n", NAMESPACE, "-H", "a=1", "--", *command)
    return subprocess.run(words, cwd=CHECKOUT, input=stdin, capture_output=True, text=True, check=False, timeout=60)


_CI: Final = f"""
import subprocess, sys, time, urllib.request
local = subprocess.Popen([sys.executable, "-m", "tests.cluster.sample", "--name=$NAME", "--port=8080",
                          "--next=http://c.{NAMESPACE}/"], stdout=subprocess.PIPE, text=True)
local.stdout.readline()
try:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        asked = urllib.request.Request("{A}", headers={{"a": "1"}})
        got = urllib.request.urlopen(asked, timeout=5).read().decode()
        if got == "{THROUGH_LOCAL}":
            sys.exit(0)
        time.sleep(0.1)
    sys.exit(got)
finally:
    local.terminate()
"""


@pytest.mark.parametrize(("name", "code"), [(LOCAL, 0), ("broken", 1)])
def test_run_is_the_tests_own_exit_code(there: Laptop, name: str, code: int) -> None:
    done = run(there, "python", "-c", _CI.replace("$NAME", name))
    assert done.returncode == code, done.stderr
    assert ("broken" in done.stderr) == (code == 1)
    assert listed(there, "-n", NAMESPACE) == []
    assert there.status()["state"] == "connected"


def test_run_leaves_stdio_alone_and_connects_by_itself(there: Laptop) -> None:
    echo = run(there, "sh", "-c", "cat; exit 7", stdin="given\n")
    assert (echo.returncode, echo.stdout) == (7, "given\n")
    assert run(there, "/nonexistent").returncode == 127
    assert run(there, "/etc/hosts").returncode == 126
    there.meshdev("disconnect")
    try:
        done = there.run("meshdev", "run", "--", "curl", "-sS", "--max-time", "5", A)
        assert (done.returncode, done.stdout) == (0, THROUGH_B), done.stderr
        assert there.status()["state"] == "disconnected"
        failed = there.run("meshdev", "run", "--mesh", "deployment/nobody", "-n", NAMESPACE, "-H", "a=1", "--", "true")
        assert failed.returncode == 125
        assert there.status()["state"] == "disconnected"
    finally:
        there.meshdev("connect")


# -- others ---------------------------------------------------------------------------------------------------------


def test_two_developers(there: Laptop, laptop2: Laptop) -> None:
    url = f"http://b.{NAMESPACE}/"
    with (
        local(there, "--port=8080"),
        local(laptop2, "--port=8080", name="local-2"),
        laptop2.connected(),
        intercepted(there, "mesh", "deployment/b", NAMESPACE, "-H", "a=1"),
        intercepted(laptop2, "mesh", "deployment/b", NAMESPACE, "-H", "a=1", "-H", "b=2"),
    ):
        assert ask(NAMESPACE, (url, A1), (url, {"a": "1", "b": "2"}), (url, {"b": "2"})) == [
            (200, LOCAL),
            (200, "local-2"),
            (200, "service-b>service-c"),
        ]
        assert sorted(each["holder"] for each in listed(laptop2, "-n", NAMESPACE)) == ["root@laptop1", "root@laptop2"]
        code, error = refused(laptop2, "proxy", "deployment/b", "-n", NAMESPACE, "--detach")
        assert (code, "root on laptop1" in error["message"]) == (InterceptError.exit_code, True)
        code, error = refused(laptop2, "mesh", "deployment/b", "-n", NAMESPACE, "-H", "a=1", "--detach")
        assert (code, "a=1" in error["message"]) == (InterceptError.exit_code, True)
        laptop2.meshdev("mesh", "deployment/b", "-n", NAMESPACE, "-H", "a=1", "--takeover", "--detach")
        assert ask(NAMESPACE, (url, A1)) == [(200, "local-2")]
        until("the first one knows", lambda: there.status()["intercepts"] == [], 5)
        laptop2.meshdev("leave", "--all")
        assert ask(NAMESPACE, (url, A1)) == [(200, "service-b>service-c")]
