"""``meshdev inspect`` on a real cluster: each request is reported once, with its client, its end and the reason."""

import json
import secrets
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from tests.e2e import workloads
from tests.e2e.conftest import Laptop, until
from tests.e2e.intercepting import LOCAL, ask, intercepted, local
from tests.e2e.loading import Plan, loading
from tests.e2e.workloads import CLIENT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

NAMESPACE: Final = "inspect"
TARGET: Final = "deployment/b"
URL: Final = f"http://b.{NAMESPACE}"
#: 200 requests a second of HTTP/1, of which a quarter is claimed.
PLAN: Final = Plan(f"b.{NAMESPACE}", new=70, kept=60, pool=70, grpc=0)
#: Issue: how many requests are compared with the load's own list.
REQUESTS: Final = 2000

Json = dict[str, Any]


@pytest.fixture(scope="module")
def there(cluster: None) -> Iterator[str]:  # noqa: ARG001 -- for its effect
    with workloads.namespace(NAMESPACE, *workloads.of(workloads.http("b", replicas=2), NAMESPACE)) as name:
        yield name


class Inspect:
    """A running ``meshdev inspect … -o json``."""

    def __init__(self, laptop: Laptop, *flags: str) -> None:
        self.found: list[Json] = []
        self._process = laptop.start("meshdev", "inspect", "-o", "json", *flags)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.found.append(json.loads(line))  # a note is no JSON, and fails

    def on(self, path: str) -> list[Json]:
        """What was reported of that path."""
        return [each for each in list(self.found) if each["path"] == path]

    def stop(self) -> int:
        """Ctrl-C; the exit code."""
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(10)
        self._reader.join(10)
        return code


@contextmanager
def inspecting(laptop: Laptop, *flags: str) -> Iterator[Inspect]:
    """What is asked is reported inside."""
    running = Inspect(laptop, *flags)
    try:
        yield running
    finally:
        assert running.stop() == 0


def begun(running: Inspect, **header: str) -> None:
    """Requests are reported by both pods: asked until that is so."""

    def seen() -> bool:
        ask(NAMESPACE, *[(f"{URL}/begin", header)] * 10)
        return len({each["pod"] for each in running.on("/begin")}) == 2

    until("requests are reported", seen, 20)


def test_each_request_is_reported_once(laptop: Laptop, there: str) -> None:
    with (
        laptop.connected(),
        local(laptop),
        intercepted(laptop, "mesh", TARGET, there, "-H", "a=1") as intercept,
        inspecting(laptop, TARGET, "-n", there, "--all", "--follow") as running,
    ):
        begun(running)
        with loading(CLIENT, there, PLAN) as load:
            load.until_asked(REQUESTS)
        asked = {f"/?{row.connection}": row for row in load.rows}
        until(
            "as many are reported",
            lambda: len({each["path"] for each in list(running.found)} & asked.keys()) == len(asked),
            10,
        )
    reported = [each for each in running.found if each["path"].startswith("/?")]
    assert load.failures == []
    assert Counter(each["path"] for each in reported) == Counter(asked.keys())
    for each in reported:
        row = asked[each["path"]]
        assert (each["method"], each["status"], each["protocol"]) == ("GET", 200, "HTTP/1.1")
        assert (each["namespace"], each["target"], each["source"]["workload"]) == (there, TARGET, f"pod/{CLIENT}")
        assert abs(each["time"] - row.start) < row.end - row.start + 0.1
        own = (intercept["id"], "laptop", None) if row.said == LOCAL else (None, "original", "no header a")
        assert (each["intercept"], each["served_by"], each["reason"]) == own
        assert (each["holder"] is not None) == (row.said == LOCAL)
        assert each["response_bytes"] >= len(row.said)
    assert {row.said == LOCAL for row in asked.values()} == {True, False}
    probes = {(each["served_by"], each["reason"]) for each in running.on("/healthz")}
    assert probes == {("original", "probe of the kubelet")}, "each second"


def test_why_a_request_did_not_come(laptop: Laptop, there: str) -> None:
    with laptop.connected(), intercepted(laptop, "mesh", TARGET, there, "-H", "a=1"):
        with inspecting(laptop, TARGET, "-n", there, "--all", "--follow") as running:
            begun(running)
            ask(there, (f"{URL}/other", {"a": "2"}), (f"{URL}/mine", {"a": "1"}))
            until("both are reported", lambda: running.on("/other") and running.on("/mine"), 10)
            (other,), (mine,) = running.on("/other"), running.on("/mine")
            assert (other["served_by"], other["reason"]) == ("original", "a=2, not a=1")
            assert mine["served_by"] == "fallback"
            assert mine["reason"] == "fell back: nothing listens on 8080"
        with inspecting(laptop, TARGET, "-n", there, "--follow") as running:
            begun(running, a="1")
            ask(there, (f"{URL}/other", {"a": "2"}), (f"{URL}/mine", {"a": "1"}))
            until("one is reported", lambda: running.on("/mine"), 10)
            assert running.on("/other") == []
        seen = laptop.meshdev("inspect", "-n", there)
        assert "/mine" in seen
        assert "fell back: nothing listens on 8080" in seen


def test_credentials_are_masked(laptop: Laptop, there: str) -> None:
    secret = secrets.token_urlsafe(16)
    path, masked = f"/login?token={secret}", "/login?token=***"
    with (
        laptop.connected(),
        local(laptop),
        intercepted(laptop, "mesh", TARGET, there, "-H", "a=1"),
        inspecting(laptop, TARGET, "-n", there, "--all", "--follow") as running,
        inspecting(laptop, TARGET, "-n", there, "--all", "--follow", "--show-secrets") as shown,
    ):
        begun(running)
        begun(shown)
        header = {"Authorization": f"Bearer {secret}", "Cookie": f"session={secret}"}
        ask(there, (f"{URL}{path}", header), (f"{URL}{path}", {**header, "a": "1"}))
        until("both are reported", lambda: len(running.on(masked)) == 2, 10)
        until("one's own is shown", lambda: shown.on(path), 10)
        assert [each["served_by"] for each in shown.on(path)] == ["laptop"]
    assert secret not in json.dumps(running.found)
    assert secret not in laptop.log()
