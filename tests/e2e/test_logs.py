"""``meshdev logs`` on a real cluster: each part's log, what comes while one follows, and pods that replace others."""

import json
import signal
import threading
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.e2e import workloads
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.intercepting import A1, ask, intercepted, local

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

NAMESPACE: Final = "logs"
TARGET: Final = "deployment/b"

Json = dict[str, Any]


@pytest.fixture(scope="module")
def there(cluster: None) -> Iterator[Laptop]:  # noqa: ARG001 -- for its effect
    """The developer, with one connection and one intercept."""
    laptop = Laptop(1, "dev")
    laptop.clean()
    with (
        workloads.namespace(NAMESPACE, *workloads.of(workloads.http("b"), NAMESPACE)),
        laptop.connected("-n", NAMESPACE),
        local(laptop),
        intercepted(laptop, "mesh", TARGET, NAMESPACE, "--header", "a=1"),
    ):
        yield laptop


class Followed:
    """``meshdev logs --follow -o json``."""

    def __init__(self, laptop: Laptop, *flags: str) -> None:
        self.found: list[Json] = []
        self._process = laptop.start("meshdev", "logs", "--follow", "-o", "json", *flags)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.startswith("note: "):  # of a container that does not run yet
                self.found.append(json.loads(line))

    def has(self, source: str, text: str = "") -> bool:
        return any(source in each["source"] and text in each["line"] for each in list(self.found))

    def stop(self) -> int:
        """Ctrl-C; the exit code."""
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(10)
        self._reader.join(5)
        return code


def shown(laptop: Laptop, *words: str) -> list[Json]:
    return [json.loads(line) for line in laptop.meshdev("logs", "-o", "json", *words).splitlines()]


def test_each_part_has_its_log(there: Laptop) -> None:
    found = shown(there)
    containers = {each["source"].partition("/")[2] for each in found}
    assert containers == {"", "tunnel", "control", "relay"}
    assert "session" in {each["source"] for each in found}
    times = [each["time"] for each in found if each["time"]]
    assert len(times) > 10
    assert all(line["line"].isprintable() for line in found)
    sidecar = shown(there, TARGET)
    assert {each["source"].partition("/")[2] for each in sidecar} == {"meshdev-1"}
    assert shown(there, "--component", "sidecar") == sidecar
    assert len(shown(there, TARGET, "--tail", "1")) == 1


def test_what_comes_is_followed_and_shown_once(there: Laptop) -> None:
    every = ("--component", "session", "--component", "manager", "--component", "sidecar")
    followed = Followed(there, *every, "--tail", "1")
    until("the last lines are shown", lambda: followed.has("session") and followed.has("/tunnel"))
    former = {each["source"] for each in followed.found}
    kubectl("-n", NAMESPACE, "rollout", "restart", TARGET)
    kubectl("-n", NAMESPACE, "rollout", "status", TARGET, "--timeout=60s")
    new = until(
        "the new pod's sidecar is followed",
        lambda: {each["source"] for each in list(followed.found) if each["source"].endswith("/meshdev-1")} - former,
        60,
    )
    assert len(new) == 1
    until("it serves", lambda: ask(NAMESPACE, (f"http://b.{NAMESPACE}", A1))[0][1].startswith("local-b"), 60)
    assert followed.stop() == 0
    lines = [tuple(each.values()) for each in followed.found if each["time"] and "/" in each["source"]]
    assert len(set(lines)) == len(lines), "nothing is shown twice"
    (source,) = new
    whole = [each for each in shown(there, TARGET) if each["source"] == source]
    seen = [each for each in followed.found if each["source"] == source]
    assert seen == whole[: len(seen)], "from its beginning, and nothing is left out"
