"""gather: an archive with everything that can be had and no credential, whatever is missing."""

import asyncio
import json
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Commands, Ran
from tests.gather import planted
from tests.kube.conftest import write_kubeconfig
from tests.kube.fake_api import FakeApi, serving
from tests.kube.objects import put_workload, workload
from tests.kube.test_logs import manager_pod
from tests.kube.test_manager import put_manager_pod

Object = dict[str, Any]


@pytest.fixture
async def fake(meshdev: Commands) -> AsyncIterator[FakeApi]:
    """A cluster, and files of this machine, with credentials everywhere."""
    async with serving(FakeApi()) as fake:
        path = write_kubeconfig(meshdev.home / "config", fake.url)
        config = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**config, "users": planted.users()}))
        log = "\n".join(planted.log_lines()).encode()
        put_manager_pod(fake, manager_pod("m"))
        put_workload(fake, workload())
        fake.put("pods", planted.careless_pod("b-1"))
        fake.put("events", planted.event("b-1", "spec.containers{b}"))
        fake.put("events", planted.event("b-1"))
        fake.put("secrets", {"metadata": {"name": "s"}, "data": {"token": planted.TOKEN}})
        fake.logs = dict.fromkeys([("m", "tunnel"), ("m", "control"), ("m", "relay"), ("b-1", "meshdev-1")], log)
        meshdev.paths.directory.mkdir(mode=0o700)
        meshdev.paths.log.write_bytes(log)
        meshdev.paths.helper_log.write_bytes(log)
        meshdev.paths.log.with_suffix(".old.log").write_bytes(log)
        yield fake


async def gathered(meshdev: Commands, *words: str) -> Ran:
    file = str(meshdev.home / "report.tar.gz")
    return await asyncio.to_thread(meshdev, "gather", *words, "--file", file, seconds=40)


def unpacked(path: Path) -> dict[str, str]:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = {}
    with tarfile.open(path) as archive:
        for entry in archive:
            data = archive.extractfile(entry)
            assert data is not None
            found[entry.name.removeprefix("meshdev-gather/")] = data.read().decode()
    return found


async def test_everything_is_there_and_no_credential(meshdev: Commands, fake: FakeApi) -> None:
    ran = await gathered(meshdev, "deployment/b", "-o", "json")
    assert ran.code == 0, ran.err
    found = unpacked(meshdev.home / "report.tar.gz")
    assert ran.json()["file"] == str(meshdev.home / "report.tar.gz")
    wanted = {
        *("README.txt", "versions.json", "status.json", "list.json", "kubeconfig.json", "doctor.json"),
        *("cluster/manager.json", "cluster/leases.json", "cluster/workloads/default/deployment-b.json"),
        *("logs/session.txt", "logs/session.old.txt", "logs/helper.txt", "logs/default/b-1/meshdev-1.txt"),
        *(f"logs/default/m/{name}.txt" for name in ("tunnel", "control", "relay")),
    }
    assert wanted - set(found) == set(), ran.err
    for name, text in found.items():
        assert planted.seen_in(text) == [], name
        assert text.replace("\n", "").isprintable(), name
    assert not any(asked.resource == "secrets" for asked in fake.asked)
    assert "Authorization:***" in found["logs/session.txt"]
    manager = json.loads(found["cluster/manager.json"])
    assert [each["metadata"]["name"] for each in manager["pods"]] == ["m"]
    b = json.loads(found["cluster/workloads/default/deployment-b.json"])
    assert b["pods"][0]["spec"]["containers"] == [{"name": "b"}]
    assert {each["reason"] for each in b["events"]} == {"Unhealthy", "Scheduled"}


async def test_what_may_not_be_read_is_named_and_the_rest_is_there(meshdev: Commands, fake: FakeApi) -> None:
    fake.allow = lambda asked: asked.resource not in {"pods/log", "events"}
    ran = await gathered(meshdev, "deployment/b")
    assert ran.code == 0
    found = unpacked(meshdev.home / "report.tar.gz")
    assert "cluster/manager.json" in found
    assert "    missing: you (dev) may not get pods/log in namespace default" in found["README.txt"]
    assert "note: manager logs, sidecar logs: you (dev) may not get pods/log in namespace default" in ran.err
    assert ran.out.startswith(f"Wrote {meshdev.home}/report.tar.gz\nLook through it")


def test_without_a_cluster(meshdev: Commands) -> None:
    file = meshdev.home / "report.tar.gz"
    ran = meshdev("gather", "--file", str(file))
    assert ran.code == 0
    assert "there is no kubeconfig" in ran.err
    found = unpacked(file)
    assert json.loads(found["status.json"])["state"] == "disconnected"
    assert json.loads(found["doctor.json"])
    again = meshdev("gather", "--file", str(file))
    assert (again.code, again.out) == (2, "")
    assert "report.tar.gz exists" in again.err
