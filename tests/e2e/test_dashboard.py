"""``meshdev dashboard`` on a real cluster: what its page is sent, what it may do, and that nothing is left of it."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from tests.e2e import workloads
from tests.e2e.browsing import browsing
from tests.e2e.conftest import Laptop, until
from tests.e2e.intercepting import A1, ask, local, up
from tests.e2e.workloads import CLIENT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(60)]

NAMESPACE: Final = "dashboard"
TARGET: Final = "deployment/b"
URL: Final = f"http://b.{NAMESPACE}"
SOURCE: Final = f"pod/{CLIENT}"
#: Issue: how soon a request is on the page, in seconds.
SOON: Final = 1.0

Json = dict[str, Any]


class Dashboard:
    """A running ``meshdev dashboard``."""

    def __init__(self, laptop: Laptop, *flags: str) -> None:
        self.laptop = laptop
        self.process = laptop.start("meshdev", "dashboard", "--no-browser", *flags)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        parts = urlsplit(self.url)
        self.base, self.token = f"http://{parts.netloc}", parts.fragment.removeprefix("token=")

    def curl(self, path: str, *flags: str) -> subprocess.CompletedProcess[str]:
        """As the page asks."""
        return self.laptop.run(*self.command(path, *flags))

    def command(self, path: str, *flags: str) -> tuple[str, ...]:
        given = ("-H", f"Authorization: Bearer {self.token}")
        return ("curl", "-sS", "--max-time", "50", *given, *flags, f"{self.base}{path}")

    def post(self, body: Json) -> Json:
        given = ("-H", "Content-Type: application/json", "-d", json.dumps(body))
        found: Json = json.loads(self.curl("/leave", *given).stdout)
        return found

    def is_refused(self) -> bool:
        return self.curl("/").returncode == 7  # curl's "failed to connect"

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(10)


class Page:
    """Reads the event stream."""

    def __init__(self, dashboard: Dashboard) -> None:
        self.newest: dict[str, Json] = {}
        self.requests: list[tuple[float, Json]] = []
        """With when they came."""
        self._process = dashboard.laptop.start(*dashboard.command("/events", "-N"))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        name = ""
        for line in self._process.stdout:
            if line.startswith("event: "):
                name = line.removeprefix("event: ").strip()
            elif line.startswith("data: "):
                self._take(name, json.loads(line.removeprefix("data: ")))

    def _take(self, name: str, data: Json) -> None:
        self.newest[name] = data
        if name == "requests":
            self.requests += [(time.time(), each) for each in data["requests"]]

    def on(self, path: str) -> list[tuple[float, Json]]:
        """What came of that path."""
        return [(when, each) for when, each in list(self.requests) if each["path"] == path]

    def state(self, key: str) -> Any:
        return self.newest.get("state", {}).get(key, [])

    def edge(self, source: str, target: str) -> Json:
        return next((each for each in self.state("edges") if (each["from"], each["to"]) == (source, target)), {})

    def node(self, id_: str) -> Json:
        return next((each for each in self.state("nodes") if each["id"] == id_), {})

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._reader.join(10)


@pytest.fixture(scope="module")
def laptop() -> Iterator[Laptop]:
    """Connected to the namespace for all tests here."""
    there = Laptop(1)
    there.clean()
    made = workloads.of(workloads.http("b", replicas=2), NAMESPACE)
    with workloads.namespace(NAMESPACE, *made), there.connected("-n", NAMESPACE), local(there):
        yield there
    there.clean()


@pytest.fixture
def intercept(laptop: Laptop) -> Iterator[Json]:
    yield up(laptop, "mesh", TARGET, NAMESPACE, "-H", "a=1")
    laptop.meshdev("leave", TARGET, "-n", NAMESPACE)


@pytest.fixture
def dashboard(laptop: Laptop) -> Iterator[Dashboard]:
    made = Dashboard(laptop)
    yield made
    assert made.process.poll() is not None or made.stop() == 0


@contextmanager
def opened(dashboard: Dashboard) -> Iterator[Page]:
    page = Page(dashboard)
    try:
        until("there is a state", lambda: page.state("nodes"), 10)
        yield page
    finally:
        page.close()


def begun(page: Page) -> None:
    """Requests are recorded in both pods: asked until that is so."""

    def seen() -> bool:
        ask(NAMESPACE, *[(f"{URL}/begin", {})] * 10)
        return len({each["pod"] for _, each in page.on("/begin")}) == 2

    until("requests are reported", seen, 20)


def test_what_the_page_is_sent(laptop: Laptop, intercept: Json, dashboard: Dashboard) -> None:
    assert "<!doctype html>" in dashboard.curl("/", "-H", "Authorization:").stdout
    assert "token" in dashboard.curl("/events", "-H", "Authorization: Bearer x").stdout
    holder = f"laptop/{holder_of(laptop)}"
    with opened(dashboard) as page:
        begun(page)
        ask(NAMESPACE, (f"{URL}/mine?token=x", A1), (f"{URL}/other", {}))
        until("both are reported", lambda: page.on("/mine?token=***") and page.on("/other"), 10)
        ((came, mine),), ((_, other),) = page.on("/mine?token=***"), page.on("/other")
        assert came - (mine["time"] + mine["duration_ms"] / 1000) < SOON
        assert (mine["source"]["workload"], mine["served_by"], mine["intercept"]) == (SOURCE, "laptop", intercept["id"])
        assert (other["served_by"], other["reason"]) == ("original", "no header a")
        until("there is an edge to the laptop", lambda: page.edge(TARGET, holder), 5)
        edge = page.edge(SOURCE, TARGET)
        assert edge["rate"] > 0
        assert edge["errors"] == 0
        assert 0.05 < edge["p50_ms"] < 1000
        assert page.edge(TARGET, holder)["rate"] < edge["rate"]
        assert (page.node(TARGET)["ready"], page.node(TARGET)["total"]) == (2, 2)
        assert page.node(TARGET)["intercepts"] == [intercept["id"]]
        assert page.node(holder)["kind"] == "laptop"
        assert page.node(SOURCE)["kind"] == "pod"
        (found,) = page.state("intercepts")
        assert (found["id"], found["mine"], found["state"]) == (intercept["id"], True, "active")
        assert found["pods"] == {"acked": 2, "total": 2}
        assert {each["pod"] for each in found["reports"]} == {each["pod"] for _, each in page.on("/begin")}
        assert {(each["state"], each["detail"]) for each in found["reports"]} == {("acked", "")}
        until("the tunnel was measured", lambda: page.state("tunnel")["carriers"][0]["rtt_ms"], 5)
        assert {each["check"]: each["state"] for each in page.state("health")} == {
            **dict.fromkeys(("tunnel", "manager", "API server", "names", "routes", "helper"), "ok"),
            f"intercept of {TARGET}": "ok",
        }


def holder_of(laptop: Laptop) -> str:
    found: list[Json] = json.loads(laptop.meshdev("list", "-n", NAMESPACE, "-o", "json"))
    return str(next(each["holder"] for each in found))


def test_an_intercept_that_is_left_by_the_page_disappears(laptop: Laptop, dashboard: Dashboard) -> None:
    one = up(laptop, "mesh", TARGET, NAMESPACE, "-H", "a=1")
    with opened(dashboard) as page:
        until("it is there", lambda: page.state("intercepts"), 5)
        assert dashboard.post({"id": "0" * 32})["error"]["code"] == "intercept"
        assert dashboard.post({"id": one["id"]}) == {}
        until("it is gone", lambda: page.state("intercepts") == [], 5)
        assert page.node(TARGET)["intercepts"] == []
    assert laptop.status()["intercepts"] == []


def test_the_page_in_a_browser(laptop: Laptop, dashboard: Dashboard) -> None:
    up(laptop, "mesh", TARGET, NAMESPACE, "-H", "a=1")
    with browsing(laptop, dashboard.url) as browser:
        until("it is connected", lambda: browser.shows("Connected", "#state-text"), 10)
        until("the target is drawn", lambda: browser.shows(TARGET, "#intercepts .name"), 5)

        def begun() -> bool:
            ask(NAMESPACE, *[(f"{URL}/begin", {})] * 10)
            return browser.shows("/begin", "#rows tr")

        until("requests are reported", begun, 20)
        ask(NAMESPACE, (f"{URL}/seen", A1))
        until("the request is shown", lambda: browser.shows("/seen", "#rows tr"), SOON)
        browser.click(".leave")
        browser.click("#leave-confirm")
        until("the intercept is gone", lambda: not browser.shows(TARGET, "#intercepts .name"), 10)
        assert browser.complaints == []
    assert laptop.status()["intercepts"] == []


def test_nobody_looking_means_that_nothing_is_recorded(laptop: Laptop, intercept: Json, dashboard: Dashboard) -> None:
    assert intercept["state"] == "active"
    with opened(dashboard) as page:
        begun(page)
    asked: list[str] = []

    def unseen() -> bool:
        asked.append(f"/{len(asked)}")
        ask(NAMESPACE, *[(f"{URL}{asked[-1]}", {})] * 4)
        return asked[-1] not in laptop.meshdev("inspect", TARGET, "-n", NAMESPACE, "--all")

    until("the last page's watch has ended", unseen, 20)


def test_a_command_that_is_killed_leaves_nothing(dashboard: Dashboard) -> None:
    with opened(dashboard):
        dashboard.process.kill()
        dashboard.process.wait(10)
        until("the server is closed", dashboard.is_refused, 5)


def test_it_ends_with_the_connection(laptop: Laptop) -> None:
    """The last test here: the fixture disconnects once more, which is no error."""
    made = Dashboard(laptop)
    laptop.meshdev("disconnect")
    assert made.process.wait(10) == 0
    assert made.process.stdout is not None
    assert "the session has ended" in made.process.stdout.read()
