"""What the session knows of names, from cluster and laptop."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import cast

import dns.name
import pytest

from meshdev.dns.known import Standing
from meshdev.dns.policy import Zone
from meshdev.errors import CredentialError
from meshdev.kube.client import KubeApi
from meshdev.kube.namespaces import ClusterNames
from meshdev.session import cluster
from meshdev.session import known_names as module
from meshdev.session.known_names import MAX_CONFIRMED, KnownNames
from tests.waiting import until


@dataclass
class FakeJump:
    host: str


@dataclass
class FakeEndpoint:
    proxy: str | None = None
    jump: FakeJump | None = None


@dataclass
class FakeApi:
    server: str = "https://10.0.0.1:6443"
    endpoint: FakeEndpoint = field(default_factory=FakeEndpoint)


def known_names(api: FakeApi | None = None, search: tuple[str, ...] = ()) -> KnownNames:
    return KnownNames(cast("KubeApi", api or FakeApi()), Zone.of(namespace="ns"), ["mesh"], lambda: search)


def test_before_the_cluster_says_anything() -> None:
    made = known_names()
    assert made.known.namespace(b"ns") is Standing.OURS
    assert made.known.namespace(b"mesh") is Standing.OURS
    assert made.known.namespace(b"team-1") is Standing.POSSIBLE
    assert made.known.namespace(b"com") is Standing.NONE
    assert made.known.suffixes == ("mesh", "ns")


def test_the_tunnels_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("http_proxy", "http://user@other.example:3128")
    made = known_names(FakeApi("https://Api.example:6443", FakeEndpoint("socks5://gate:1080")))
    assert {name.to_text() for name in made.known.reserved} == {
        "api.example.",
        "gate.",
        "proxy.example.",
        "other.example.",
    }
    made = known_names(FakeApi("https://api.example:6443", FakeEndpoint(jump=FakeJump("bastion.example"))))
    assert "bastion.example." in {name.to_text() for name in made.known.reserved}


def test_a_list_of_hosts_without_proxy_is_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for listed in ("localhost,127.0.0.1,[::1],.svc", "team-1"):
        monkeypatch.setenv("NO_PROXY", listed)
        assert known_names().known.reserved == frozenset()


def test_a_proxy_that_is_no_url_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://user:p[ss@proxy.example:3128")
    assert known_names().known.reserved == frozenset()


def test_an_api_server_by_a_name_of_the_cluster_keeps_nothing_from_it() -> None:
    assert known_names(FakeApi("https://kubernetes.default.svc")).known.reserved == frozenset()


def test_the_laptops_own_domains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "laptop.corp.example")
    made = known_names(search=("home.example", "ns"))
    for name in ("ns.", "b.ns.", "www.home.example.", "www.corp.example."):
        assert made.known.is_foreign(dns.name.from_text(name))
    assert made.known.suffixes == ("mesh",)


def test_the_laptop_moves_to_another_network() -> None:
    search = ["home.example"]
    made = KnownNames(cast("KubeApi", FakeApi()), Zone.of(), [], lambda: tuple(search))
    search[:] = ["cafe.example"]
    made.look()
    assert made.known.is_foreign(dns.name.from_text("x.cafe.example."))
    assert not made.known.is_foreign(dns.name.from_text("x.home.example."))


def test_confirmed_namespaces_are_known_and_few() -> None:
    made = known_names()
    made.confirm(b"team-1")
    made.confirm(b"dev")  # a public suffix proves nothing
    assert made.known.suffixes == ("mesh", "ns", "team-1")
    for number in range(2 * MAX_CONFIRMED):
        made.confirm(b"n%d" % number)
    assert len(made.known.suffixes) == MAX_CONFIRMED + 2


async def test_the_cluster_is_followed_though_credentials_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [
        ClusterNames(frozenset({"ns", "dev"}), frozenset({"b"})),
        ClusterNames(frozenset({"ns", "team-1"}), None),
    ]

    async def watch(*_: object) -> AsyncGenerator[ClusterNames]:
        yield states.pop(0)
        if states:
            raise CredentialError("log in again")
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "watch_names", watch)
    monkeypatch.setattr(cluster, "CREDENTIALS_SECONDS", 0.05)
    made = known_names()
    task = asyncio.create_task(made.follow())
    await made.first.wait()
    assert made.known.namespace(b"dev") is Standing.SHARED
    assert made.known.namespace(b"team-1") is Standing.NONE
    assert (made.known.service(b"b"), made.known.service(b"c")) == (True, False)
    await until(lambda: made.known.namespace(b"team-1") is Standing.OURS)
    assert made.known.service(b"c"), "nobody says which Services there are"
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
