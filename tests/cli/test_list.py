"""list: everybody's Leases, read from an API server, as a table and as JSON."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshdev.cli.listing import Identities, Listed, row, table
from meshdev.intercept.lease import LeaseStatus, Record, lease
from meshdev.kube.client import KubeApi, leases_path
from meshdev.kube.kubeconfig import Options
from tests.cli.conftest import Commands, Ran
from tests.intercept.values import mesh, proxy
from tests.kube.conftest import write_kubeconfig
from tests.kube.fake_api import FakeApi, serving

ME = f"jane@{os.uname().nodename}"
NOW = 1_767_225_600.0


@pytest.fixture
async def fake() -> AsyncIterator[FakeApi]:
    async with serving(FakeApi()) as fake:
        yield fake


@pytest.fixture
async def cluster(meshdev: Commands, fake: FakeApi) -> AsyncIterator[KubeApi]:
    meshdev.env |= {"USER": "jane", "SUDO_USER": ""}
    path = write_kubeconfig(meshdev.home / "config", fake.url)
    async with await KubeApi.open(Options(kubeconfig=str(path), environment={})) as api:
        yield api


async def listed(meshdev: Commands, *words: str) -> Ran:
    return await asyncio.to_thread(meshdev, "list", *words)


async def test_nobody(meshdev: Commands, cluster: KubeApi) -> None:
    assert cluster.namespace == "default"
    assert await listed(meshdev, "-o", "json") == Ran(0, "[]\n", "")
    assert await listed(meshdev) == Ran(0, "No intercepts in namespace default\n", "")
    assert await listed(meshdev, "-A") == Ran(0, "No intercepts\n", "")


async def test_everybodys(meshdev: Commands, fake: FakeApi, cluster: KubeApi) -> None:
    now = time.time()
    path = leases_path("default")
    # Holders whose clocks are ten minutes off: what they wrote as their time is not looked at.
    await cluster.create(
        path, lease(mesh(number=1), ME, "default", now - 600, LeaseStatus("active", 1, 2, ("9999/tcp",)))
    )
    fake.clock = lambda: time.time() - 40
    await cluster.create(path, lease(proxy(2), "joe@pc", "default", now + 600))
    fake.clock = time.time
    broken = lease(mesh(number=3), "mal@lory", "default", now)
    broken["metadata"]["name"] = "meshdev-broken"
    await cluster.create(path, broken)
    ran = await listed(meshdev, "-o", "json")
    assert ran.code == 0
    assert "note: the Lease 'meshdev-broken' cannot be read" in ran.err
    assert "waiting: whether joe@pc still renews the Lease of deployment/b" in ran.err
    mine, theirs = sorted(ran.json(), key=lambda each: str(each["mode"]))
    assert mine.pop("age_s") >= 0
    assert mine == {
        "target": "deployment/b",
        "namespace": "default",
        "mode": "mesh",
        "match": "a=1",
        "ports": ["8080:8080/http"],
        "holder": ME,
        "state": "active",
        "mine": True,
        "pods": {"acked": 1, "total": 2},
        "pending_listeners": ["9999/tcp"],
        "identities": [],
    }
    assert (theirs["holder"], theirs["state"], theirs["mine"]) == ("joe@pc", "expired", False)
    for there in list(fake.objects["coordination.k8s.io", "leases"].values()):
        fake.put("leases", there, group="coordination.k8s.io")  # everybody renews
    ran = await listed(meshdev)
    head, *lines = ran.out.splitlines()
    assert head.split() == ["TARGET", "MODE", "MATCH", "PORTS", "STATE", "PODS", "AGE", "HOLDER"]
    assert "active (pending listener: 9999/tcp)" in ran.out
    assert sorted(line.split()[1] for line in lines) == ["mesh", "proxy"]
    assert (await listed(meshdev, "-A")).out.startswith("NAMESPACE   TARGET")


async def test_errors_are_the_api_servers(meshdev: Commands) -> None:
    ran = await listed(meshdev, "--context", "none", "-o", "json")
    assert ran.code == 10
    assert ran.json()["error"]["code"] == "kubeconfig"


def record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "spec": mesh(),
        "holder": ME,
        "manager_namespace": "default",
        "status": LeaseStatus("active", 2, 2),
        "created": NOW - 300,
        **dict.fromkeys(("name", "uid", "version"), "x"),
    }
    return Record(**{**values, **changes})


OWN: dict[str, Identities] = {mesh().id: (("b-1", "spiffe://uid-1/ns/default/deployment/b/pod/uid-b-1"),)}


@pytest.mark.parametrize(
    ("changes", "own", "mine"),
    [
        ({}, None, True),
        ({}, OWN, True),
        ({}, {}, False),
        ({"expired": True}, {}, True),
        ({"holder": "joe@pc"}, None, False),
        ({"holder": "joe@pc"}, OWN, False),
    ],
    ids=["no session", "its session's", "another's of that name", "dead session's", "another's", "pretended"],
)
def test_whose_it_is(changes: dict[str, Any], own: dict[str, Identities] | None, mine: bool) -> None:
    expired = changes.get("expired", False)
    found = record(**{name: value for name, value in changes.items() if name != "expired"})
    assert row(found, own, ME, NOW, expired=expired).mine is mine


def test_ones_own_has_the_identities_of_its_pods() -> None:
    assert row(record(), OWN, ME, NOW, expired=False).as_json()["identities"] == [
        {"pod": "b-1", "identity": "spiffe://uid-1/ns/default/deployment/b/pod/uid-b-1"}
    ]


def test_columns_are_as_wide_as_they_need_to_be() -> None:
    rows = (
        row(record(), None, ME, NOW, expired=False),
        row(record(holder="somebody@else", created=NOW - 200_000), None, ME, NOW, expired=True),
        row(record(created=NOW - 8000), None, "x", NOW, expired=False),
        row(record(created=NOW + 5), None, "x", NOW, expired=False),
    )
    text = table(Listed(rows, (), "default"), everywhere=True)
    assert text.splitlines()[:3] == [
        "NAMESPACE   TARGET         MODE   MATCH   PORTS            STATE     PODS   AGE    HOLDER",
        f"default     deployment/b   mesh   a=1     8080:8080/http   active    2/2    5m     {ME} (you)",
        "default     deployment/b   mesh   a=1     8080:8080/http   expired   2/2    2d7h   somebody@else",
    ]
    assert [line.split()[7] for line in text.splitlines()[3:]] == ["133m", "0s"]
