"""The session's side of the cluster while it lasts: other networks, credentials that run out."""

import asyncio
from collections.abc import AsyncGenerator
from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from meshdev.errors import CredentialError, PeerClosed, PortForwardError, RefusedError, TunnelError, VersionError
from meshdev.kube import manager
from meshdev.kube.client import KubeApi
from meshdev.kube.endpoint import Endpoint
from meshdev.kube.podstate import ManagerPod
from meshdev.kube.portforward import SwallowedError
from meshdev.session import cluster as module
from meshdev.session.cluster import Cluster
from meshdev.session.progress import Progress
from meshdev.wire.session_api import ConnectOptions

SERVICE = frozenset({IPv4Address("10.96.0.7")})


class FakeApi:
    namespace = "default"


class FakeRouting:
    def __init__(self) -> None:
        self.hosts: list[frozenset[IPv4Address]] = []

    async def set_objects(self, hosts: frozenset[IPv4Address]) -> None:
        self.hosts.append(hosts)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(cast("KubeApi", FakeApi()), ConnectOptions(), cast("Progress", None))


async def test_every_carrier_is_tried_in_each_network(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    passing, tried = "websocket", list[str]()

    async def dial(_api: object, _namespace: str, _pod: str, _port: int, kind: str, _seconds: float) -> str:
        tried.append(kind)
        if kind != passing:
            raise PortForwardError("a proxy says no")
        return kind

    async def find_pod(*_: object) -> ManagerPod:
        return ManagerPod("default", "m", "1", "", "", 1, "", "")

    monkeypatch.setattr(module, "dial", dial)
    monkeypatch.setattr(manager, "find_pod", find_pod)
    dialled: list[Any] = []
    for _ in range(2):
        dialled.append(await cluster.dial())
        cluster.greeted(dialled[-1], None)
    passing = "spdy"
    dialled.append(await cluster.dial())
    assert dialled == ["websocket", "websocket", "spdy"]
    assert tried == ["spdy", "websocket", "websocket", "websocket", "spdy"]


@pytest.mark.parametrize("swallowed", ["upgrade", "afterwards"])
async def test_a_carrier_that_is_swallowed_is_tried_last(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, swallowed: str
) -> None:
    """Each try of it would cost seconds; one that the manager itself refuses keeps its place."""
    tried = list[str]()

    async def dial(_api: object, _namespace: str, _pod: str, _port: int, kind: str, _seconds: float) -> str:
        tried.append(kind)
        if (kind, swallowed) == ("spdy", "upgrade"):
            raise SwallowedError("reset")
        return kind

    async def find_pod(*_: object) -> ManagerPod:
        return ManagerPod("default", "m", "1", "", "", 1, "", "")

    monkeypatch.setattr(module, "dial", dial)
    monkeypatch.setattr(manager, "find_pod", find_pod)
    dialled = cast("str", await cluster.dial())
    cluster.greeted(dialled, TunnelError("no answer") if dialled == "spdy" else None)
    dialled = cast("str", await cluster.dial())
    assert dialled == "websocket"
    for refusal in (None, RefusedError("full"), VersionError("old"), PortForwardError("nobody listens")):
        cluster.greeted(dialled, refusal)
        assert cast("str", await cluster.dial()) == "websocket"
    cluster.greeted(dialled, PeerClosed("cut"))
    assert cast("str", await cluster.dial()) == ("websocket" if swallowed == "upgrade" else "spdy")


@pytest.mark.parametrize(("verify", "notes"), [(True, 0), (False, 1)])
def test_a_server_that_is_not_verified_is_told(cluster: Cluster, verify: bool, notes: int) -> None:
    api = cast("Any", cluster.api)
    api.server, api.endpoint = "https://k", Endpoint("https://k", verify=verify)
    assert [("insecure-skip-tls-verify" in note) for note in cluster.notes] == [True] * notes


def _watching(*states: frozenset[IPv4Address] | CredentialError) -> Any:
    """One watch a state, which ends with it; the last one stays."""
    left = list(states)

    async def watch(*_: object) -> AsyncGenerator[frozenset[IPv4Address]]:
        state = left.pop(0)
        if isinstance(state, CredentialError):
            raise state
        yield state
        if left:
            raise CredentialError("log in again")
        await asyncio.Event().wait()

    return watch


async def test_credentials_that_run_out_later_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CREDENTIALS_SECONDS", 0)
    watch = _watching(SERVICE, CredentialError("still"), SERVICE)
    routing, first = FakeRouting(), asyncio.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await module.follow(watch, routing.set_objects, first)
    assert routing.hosts == [SERVICE, SERVICE]


async def test_credentials_that_never_counted_are_an_error() -> None:
    watch = _watching(CredentialError("log in first"))
    with pytest.raises(CredentialError):
        await module.follow(watch, FakeRouting().set_objects, asyncio.Event())


@pytest.mark.parametrize("cancelled", [False, True])
async def test_what_a_cancelled_connect_created_is_taken_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    """Ctrl-C may come while the last step ends: the connection stands by then, and nobody wants it."""
    undone: list[manager.Created] = []
    created = manager.Created("default", "meshdev-traffic-manager", "uid")

    async def undo(_api: KubeApi, what: manager.Created) -> None:
        undone.append(what)

    async def close() -> None:
        pass

    monkeypatch.setattr(manager, "undo", undo)
    monkeypatch.setattr(cluster.api, "close", close, raising=False)
    cluster._created.append(created)
    cluster.connected = True
    if cancelled:
        cluster.forget_connection()
    await cluster.close()
    assert undone == ([created] if cancelled else [])
