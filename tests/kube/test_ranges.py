"""Which addresses are the cluster's."""

from contextlib import aclosing
from ipaddress import IPv4Address, IPv4Network

from meshdev.kube.client import KubeApi
from meshdev.kube.ranges import ClusterRanges, advertised_addresses, watch_addresses, watch_ranges
from tests.kube.fake_api import FakeApi, Object


def service(name: str, *addresses: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"clusterIPs": list(addresses)}}


def endpoints(name: str, *addresses: str) -> Object:
    return {"metadata": {"name": name}, "endpoints": [{"addresses": [address]} for address in addresses]}


def ips(*texts: str) -> frozenset[IPv4Address]:
    return frozenset(map(IPv4Address, texts))


def node(name: str, *ranges: str, address: str = "172.30.0.2") -> Object:
    places = [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]
    return {"metadata": {"name": name}, "spec": {"podCIDRs": list(ranges)}, "status": {"addresses": places}}


def nets(*texts: str) -> frozenset[IPv4Network]:
    return frozenset(map(IPv4Network, texts))


async def test_whole_ranges_for_who_may_ask_as_nodes_come_and_go(fake: FakeApi, api: KubeApi) -> None:
    cidrs = {"metadata": {"name": "k"}, "spec": {"cidrs": ["10.96.0.0/16", "fd00::/108"]}}
    fake.put("servicecidrs", cidrs, "", "networking.k8s.io")
    fake.put("nodes", node("n1", "10.244.0.0/24", "fd01::/64"), "")
    fake.put("nodes", {"metadata": {"name": "n2"}, "spec": {}}, "")
    notes: list[str] = []
    async with aclosing(watch_ranges(api, notes.append)) as changes:
        services = nets("10.96.0.0/16")
        assert await anext(changes) == ClusterRanges(services, nets("10.244.0.0/24"), ips("172.30.0.2"))
        fake.put("nodes", node("n3", "10.244.7.0/24", address="172.30.0.3"), "")
        both = nets("10.244.0.0/24", "10.244.7.0/24")
        assert await anext(changes) == ClusterRanges(services, both, ips("172.30.0.2", "172.30.0.3"))
        fake.remove("nodes", "n3", "")
        assert await anext(changes) == ClusterRanges(services, nets("10.244.0.0/24"), ips("172.30.0.2"))
        cidrs["spec"] = {"cidrs": ["10.96.0.0/16", "10.97.0.0/16"]}
        fake.put("servicecidrs", cidrs, "", "networking.k8s.io")
        assert (await anext(changes)).services == nets("10.96.0.0/16", "10.97.0.0/16")
    assert notes == []


async def test_nothing_and_a_note_for_who_may_not(fake: FakeApi, api: KubeApi) -> None:
    fake.allow = lambda asked: bool(asked.namespace)
    notes: list[str] = []
    assert [found async for found in watch_ranges(api, notes.append)] == [ClusterRanges()]
    assert sorted(notes) == [
        "you (dev) may not list nodes in the whole cluster",
        "you (dev) may not list servicecidrs.networking.k8s.io in the whole cluster",
    ]


async def test_who_may_list_and_not_watch_keeps_what_was_listed(fake: FakeApi, api: KubeApi) -> None:
    fake.allow = lambda asked: asked.verb != "watch"
    fake.put("nodes", node("n1", "10.244.0.0/24"), "")
    notes: list[str] = []
    found = [found async for found in watch_ranges(api, notes.append)]
    assert found == [ClusterRanges(frozenset(), nets("10.244.0.0/24"), ips("172.30.0.2"))]
    assert "you (dev) may not watch nodes in the whole cluster" in notes


async def test_the_api_servers_own_word(fake: FakeApi, api: KubeApi) -> None:
    assert await advertised_addresses(api) == frozenset()
    fake.advertised = [
        {"clientCIDR": "0.0.0.0/0", "serverAddress": "172.18.0.2:6443"},
        {"clientCIDR": "::/0", "serverAddress": "[fd00::2]:6443"},
        {"clientCIDR": "10.0.0.0/8", "serverAddress": "api.example.test:443"},
    ]
    assert await advertised_addresses(api) == ips("172.18.0.2")
    fake.allow = lambda _: False
    assert await advertised_addresses(api) == frozenset()


async def test_services_and_endpoints_as_they_come_and_go(fake: FakeApi, api: KubeApi) -> None:
    fake.put("services", service("a", "10.96.0.1", "fd00::1"))
    fake.put("services", service("headless", "None"))
    fake.put("services", service("elsewhere", "10.96.9.9"), "other")
    fake.put("endpointslices", endpoints("a-1", "10.244.0.5"), group="discovery.k8s.io")
    notes: list[str] = []
    async with aclosing(watch_addresses(api, "default", notes.append)) as changes:
        assert await anext(changes) == ips("10.96.0.1", "10.244.0.5")
        fake.put("endpointslices", endpoints("a-1", "10.244.0.5", "10.244.0.6"), group="discovery.k8s.io")
        assert await anext(changes) == ips("10.96.0.1", "10.244.0.5", "10.244.0.6")
        fake.put("services", service("a", "10.96.0.1"))  # the same in IPv4: no change
        fake.remove("services", "a")
        assert await anext(changes) == ips("10.244.0.5", "10.244.0.6")
    assert notes == []


async def test_half_is_forbidden(fake: FakeApi, api: KubeApi) -> None:
    fake.allow = lambda asked: asked.resource != "endpointslices"
    fake.put("services", service("a", "10.96.0.1"))
    notes: list[str] = []
    async with aclosing(watch_addresses(api, "default", notes.append)) as changes:
        assert await anext(changes) == ips("10.96.0.1")
        fake.remove("services", "a")
        assert await anext(changes) == ips()
    assert notes == ["you (dev) may not list endpointslices.discovery.k8s.io in namespace default"]


async def test_all_is_forbidden(fake: FakeApi, api: KubeApi) -> None:
    fake.allow = lambda _: False
    notes: list[str] = []
    assert [found async for found in watch_addresses(api, "default", notes.append)] == [ips()]
    assert len(notes) == 2
