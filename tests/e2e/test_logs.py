"""``meshdev logs`` and ``gather`` on a real cluster: each part's log, what comes while one follows, one archive."""

import json
import secrets
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
SECRET: Final = secrets.token_hex(16)
#: Credentials in the kubeconfig of whoever runs it.
_OWN: Final = """
import json, os, pathlib, yaml
config = yaml.safe_load(pathlib.Path(os.environ["KUBECONFIG"]).read_text())
print(json.dumps([value for each in config["users"] for value in each["user"].values() if isinstance(value, str)]))
"""

Json = dict[str, Any]


@pytest.fixture(scope="module")
def there(cluster: None) -> Iterator[Laptop]:  # noqa: ARG001 -- for its effect
    """The developer, with one connection and one intercept."""
    laptop = Laptop(1, "dev")
    laptop.clean()
    made = workloads.of(workloads.http("b"), NAMESPACE)
    container = workloads.container(made[0])
    container["env"] = [{"name": "PASSWORD", "value": SECRET}, {"name": "PATH_TO", "value": f"https://u:{SECRET}@x/"}]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": NAMESPACE}}
    with (
        workloads.namespace(NAMESPACE, *made, {**secret, "stringData": {"token": SECRET}}),
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


def test_a_bug_report_has_all_parts_and_no_credential(there: Laptop) -> None:
    report = there.ok("sh", "-c", "echo $HOME/report.tar.gz").strip()
    here = there.run("meshdev", "gather", "-o", "json", "--file", report, timeout=40)
    assert here.returncode == 0, here.stdout + here.stderr
    try:
        mode = there.ok("stat", "-c", "%a", report).strip()
        names = there.ok("tar", "tzf", report).splitlines()
        text = there.ok("tar", "xzOf", report)
    finally:
        there.ok("rm", report)
    assert mode == "600"
    kinds = {name.removeprefix("meshdev-gather/").partition("/")[0] for name in names}
    assert kinds == {
        *("README.txt", "versions.json", "status.json", "list.json", "kubeconfig.json", "doctor.json"),
        *("cluster", "logs", "network"),
    }
    for part in (
        "/tunnel.txt",
        "/control.txt",
        "/relay.txt",
        "/meshdev-1.txt",
        "logs/session.txt",
        "deployment-b.json",
    ):
        assert any(name.endswith(part) for name in names), (part, here.stderr)
    assert SECRET not in text
    own = [value for value in json.loads(there.ok("python", "-c", _OWN)) if len(value) > 20]
    assert own, "the developer has a credential"
    assert [value for value in own if value in text] == []
    missing = {each["part"] for each in json.loads(here.stdout)["missing"]}
    assert missing <= {"network", "logs"}, here.stdout
