"""A connection's life: who may run what, twice at once, beside another one, and its end amid traffic."""

import json
import os
import pwd
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from meshdev.errors import AlreadyConnectedError
from tests.cluster import machine
from tests.e2e.conftest import Laptop, kubectl, until

pytestmark = [pytest.mark.cluster, pytest.mark.every_cluster]

TEAM: Final = "team-1"


def parent(pid: int) -> int:
    """The process that made it: of the helper, the keeper that undoes everything should the helper be killed."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("anyone", [(1, "dev"), (2, "dev")], ids=["laptop1", "laptop2"], indirect=True)
def test_only_the_helper_is_root(anyone: Laptop) -> None:
    anyone.meshdev("connect")
    pids = anyone.status()["pids"]
    account = pwd.getpwnam(machine.account().pw_name)
    assert Path(f"/proc/{pids['session']}").stat().st_uid == account.pw_uid
    assert Path(f"/proc/{pids['helper']}").stat().st_uid == 0
    keeper = parent(pids["helper"])
    until("sudo has gone", lambda: set(anyone.processes()) == {*pids.values(), keeper}, 2)
    assert parent(keeper) == 1, "the keeper has left sudo behind"
    state = f"/run/user/{account.pw_uid}/meshdev"
    assert anyone.ok("find", state, "(", "-not", "-user", "dev", "-o", "-perm", "/077", "-not", "-type", "s", ")") == ""


def test_the_caller_is_not_held(dev: Laptop) -> None:
    with dev.start("meshdev", "connect") as connect:
        assert connect.wait(30) == 0
        ended = time.monotonic()
        assert connect.stdout is not None
        assert "Connected" in connect.stdout.read()
        assert time.monotonic() - ended < 0.5
        ours = os.fstat(connect.stdout.fileno()).st_ino
        for pid in dev.processes():
            files = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
            assert f"pipe:[{ours}]" not in files
            assert not [file for file in files if file.startswith(("/dev/pts", "/dev/tty"))]


def test_two_connects_at_once_are_one_connection(dev: Laptop) -> None:
    both = [dev.start("meshdev", "connect") for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted("Already connected" in text for text in said) == [False, True]
    pids = dev.status()["pids"]
    assert set(dev.processes()) == {*pids.values(), parent(pids["helper"])}


def test_again_is_no_error_and_elsewhere_is_one(dev: Laptop) -> None:
    dev.meshdev("connect")
    pids = dev.status()["pids"]
    assert "Already connected" in dev.meshdev("connect")
    other = dev.run("meshdev", "connect", "-n", TEAM, "-o", "json")
    assert other.returncode == AlreadyConnectedError.exit_code
    error = json.loads(other.stdout)["error"]
    assert "namespace default" in error["message"]
    assert "meshdev disconnect" in error["hint"]
    assert dev.status()["pids"] == pids


def test_disconnect_and_restore_with_nothing_to_do(dev: Laptop) -> None:
    assert dev.meshdev("disconnect") == "Not connected\n"
    assert dev.meshdev("restore") == "Nothing to restore\n"


@pytest.fixture
def sudo_alarm(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A folder for the front of PATH with a sudo that leaves a trace, and the trace."""
    folder = tmp_path_factory.mktemp("sudo", numbered=True)
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # pytest's own folders are private; the developer is somebody else
    trace = folder / "trace"
    trace.touch()
    trace.chmod(0o666)
    sudo = folder / "sudo"
    sudo.write_text(f"#!/bin/sh\necho called >>{trace}\nexit 1\n")
    sudo.chmod(0o755)
    return str(folder), trace


def test_status_never_asks_for_root(dev: Laptop, sudo_alarm: tuple[str, Path]) -> None:
    folder, trace = sudo_alarm

    def state() -> str:
        said = dev.ok("sh", "-c", f"PATH={folder}:$PATH exec meshdev status -o json")
        return str(json.loads(said)["state"])

    assert state() == "disconnected"
    dev.meshdev("connect")
    assert state() == "connected"
    pids = dev.status()["pids"]
    for victim in ("helper", "session"):
        os.kill(pids[victim], signal.SIGKILL)
    assert state() == "disconnected"
    assert trace.read_text() == ""
    assert dev.run("sh", "-c", f"PATH={folder}:$PATH exec meshdev connect").returncode == 52
    assert trace.read_text() == "called\n"


def test_disconnect_amid_traffic(dev: Laptop) -> None:
    before = dev.snapshot()
    dev.meshdev("connect")
    transfers = [dev.start("python", "-m", "tests.e2e.traffic", way, "bulk", str(10**10)) for way in ("up", "down")]
    device = dev.status()
    assert device["state"] == "connected"
    counter = "/sys/class/net/meshdev0/statistics/rx_bytes"
    until("traffic", lambda: int(dev.ok("cat", counter)) > 20_000_000, 20)
    start = time.monotonic()
    dev.meshdev("disconnect")
    print(f"disconnected in {time.monotonic() - start:.1f} s")
    assert time.monotonic() - start < 5
    assert dev.processes() == {}
    assert dev.snapshot() == before
    for transfer in transfers:
        transfer.kill()
        transfer.communicate()


@pytest.fixture
def team_service() -> Iterator[str]:
    """A Service of the team that has the name of one in namespace default; its ClusterIP."""
    kubectl("create", "service", "clusterip", "b", "-n", TEAM, "--tcp=80:8080")
    try:
        yield kubectl("get", "service", "b", "-n", TEAM, "-o", "jsonpath={.spec.clusterIP}")
    finally:
        kubectl("delete", "service", "b", "-n", TEAM)


@pytest.mark.parametrize("anyone", [(1, "root"), (2, "dev")], ids=["root@laptop1", "dev@laptop2"], indirect=True)
def test_names_of_the_namespace_come_first(anyone: Laptop, team_service: str) -> None:
    before = anyone.snapshot()
    anyone.meshdev("connect", "-n", TEAM)
    try:
        assert anyone.ok("getent", "ahostsv4", "b").split()[0] == team_service
        elsewhere = kubectl("get", "service", "b", "-o", "jsonpath={.spec.clusterIP}")
        assert anyone.ok("getent", "ahostsv4", "b.default").split()[0] == elsewhere
        assert anyone.ok("curl", "-sS", "--max-time", "5", "http://a.default/") == "service-a>service-b>service-c"
        status = anyone.status()
        assert (status["namespace"], status["manager"]["namespace"]) == (TEAM, TEAM)
    finally:
        anyone.meshdev("disconnect")
        assert anyone.snapshot() == before
        anyone.meshdev("uninstall", "-n", TEAM)
    assert kubectl("get", "deployments", "-n", TEAM, "-o", "name") == ""


def test_laptop_2_resolves_by_systemd_resolved(laptop2: Laptop) -> None:
    with laptop2.connected():
        status = laptop2.status()
        assert status["dns"]["way"] == "resolved"
        for name in ("b", "b.default", "b.default.svc", "b.default.svc.cluster.local"):
            assert laptop2.ok("resolvectl", "query", "-4", name)
            assert laptop2.ok("curl", "-sS", "--max-time", "5", f"http://{name}/") == "service-b>service-c"
        assert laptop2.ok("curl", "-sS", "--max-time", "5", "http://www.example.test/").startswith("wan:")
