"""Two versions of meshdev and one manager: shared where they can talk, replaced only where nobody is hurt."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from meshdev.config import OLDEST_PROTOCOL, PROTOCOL, VERSION
from meshdev.errors import ManagerBusyError, VersionError
from meshdev.wire.control import INTERCEPT_PROTOCOL
from tests.e2e.accounts import uninstall
from tests.e2e.conftest import Laptop, until
from tests.e2e.intercepting import refused
from tests.e2e.versions import Version, manager, meshdev

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

NAMESPACE: Final = "team-2"
CONNECT: Final = ("connect", "-n", "default", "--manager-namespace", NAMESPACE)
#: The next version, which still speaks ours, and the one after, which does not.
NEXT: Final = Version(OLDEST_PROTOCOL, PROTOCOL + 1)
FAR: Final = Version(PROTOCOL + 1, PROTOCOL + 2, "0.9.0")


@pytest.fixture(autouse=True)
def _own_manager() -> Iterator[None]:
    uninstall(NAMESPACE)
    yield
    uninstall(NAMESPACE)


def reaches(laptop: Laptop) -> None:
    laptop.ok("curl", "-sS", "--fail", "-o", "/dev/null", "--max-time", "5", "http://a/")


@pytest.mark.parametrize("installed", ["ours", "next"])
def test_neighbours_share_a_manager_whoever_comes_first(
    laptop: Laptop, laptop2: Laptop, tmp_path: Path, installed: str
) -> None:
    newer = NEXT.client(tmp_path)
    assert json.loads(meshdev(laptop2, newer, "version", "-o", "json"))["protocol"]["newest"] == PROTOCOL + 1
    if installed == "next":
        NEXT.install(NAMESPACE)
    laptop.meshdev(*CONNECT)
    there = manager(NAMESPACE)
    meshdev(laptop2, newer, *CONNECT)
    for user in (laptop, laptop2):
        reaches(user)
    laptop.meshdev("disconnect")
    reaches(laptop2)
    laptop.meshdev(*CONNECT)
    for user in (laptop, laptop2):
        reaches(user)
    assert laptop.status()["address"] != laptop2.status()["address"]
    laptop.meshdev("disconnect")
    laptop2.meshdev("disconnect")
    assert manager(NAMESPACE) == there


def test_one_that_nobody_can_talk_to_is_replaced_when_nobody_is_on_it(laptop: Laptop) -> None:
    FAR.install(NAMESPACE)
    there = manager(NAMESPACE)
    assert "replaced" in laptop.run("meshdev", *CONNECT).stderr
    reaches(laptop)
    now = manager(NAMESPACE)
    assert now["uid"] == there["uid"]
    assert (there["version"], now["version"]) == (FAR.name, VERSION)
    assert set(now["pods"]).isdisjoint(there["pods"])


def test_one_with_others_on_it_is_replaced_on_request_only(laptop: Laptop, laptop2: Laptop, tmp_path: Path) -> None:
    FAR.install(NAMESPACE)
    theirs = FAR.client(tmp_path)
    meshdev(laptop2, theirs, *CONNECT)
    there, before = manager(NAMESPACE), laptop.snapshot()

    text = laptop.run("meshdev", *CONNECT)
    done = laptop.run("meshdev", *CONNECT, "-o", "json")
    assert (text.returncode, done.returncode) == (ManagerBusyError.exit_code, ManagerBusyError.exit_code)
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "manager-busy"
    assert "another session is on it" in error["message"]
    assert "connect --upgrade" in error["hint"]
    assert error["message"] in text.stderr
    assert laptop.snapshot() == before
    assert manager(NAMESPACE) == there
    reaches(laptop2)

    laptop.meshdev(*CONNECT, "--upgrade")
    reaches(laptop)
    assert manager(NAMESPACE)["version"] == VERSION
    until("the other one notices", lambda: laptop2.status()["state"] == "reconnecting", 10)
    until("and is told why", lambda: "protocol" in str(laptop2.status().get("notes", "")), 10)
    assert "protocol" in laptop2.meshdev("status")


def test_an_older_manager_is_used_and_takes_no_intercepts(laptop: Laptop) -> None:
    """Its sidecars and sessions know each other by tokens."""
    Version(OLDEST_PROTOCOL, INTERCEPT_PROTOCOL - 1, "0.0.8").install(NAMESPACE)
    laptop.meshdev(*CONNECT)
    reaches(laptop)
    code, error = refused(laptop, "mesh", "deployment/b", "-n", "default", "-H", "a=1", "--detach")
    assert (code, error["code"]) == (VersionError.exit_code, VersionError.code)
    assert "connect --upgrade" in error["hint"]
    laptop.meshdev("disconnect")


def test_upgrade_of_one_that_would_do(laptop: Laptop) -> None:
    Version(OLDEST_PROTOCOL, PROTOCOL, "0.0.9").install(NAMESPACE)
    old = manager(NAMESPACE)
    laptop.meshdev(*CONNECT)
    laptop.meshdev("disconnect")
    assert manager(NAMESPACE) == old
    laptop.meshdev(*CONNECT, "--upgrade")
    reaches(laptop)
    laptop.meshdev("disconnect")
    new = manager(NAMESPACE)
    assert new["version"] == VERSION
    laptop.meshdev(*CONNECT, "--upgrade")
    assert manager(NAMESPACE) == new
