"""Names and EndpointSlices lead no address into the tunnel that the cluster's ranges do not have."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cluster import addresses
from tests.e2e.accounts import HOME_NAMESPACE, account, apply, kubeconfig, remove, role
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.test_also import DEVICE, device_to
from tests.e2e.test_permissions import FORWARD, PODS, SERVICES, SLICES, reaches

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

PUBLIC: Final = "8.8.4.4"
NEIGHBOUR: Final = str(addresses.LAN[55])
both = pytest.mark.parametrize("anyone", [(1, "root"), (2, "dev")], ids=["root@laptop1", "dev@laptop2"], indirect=True)

#: Asks for so many names of pods, as a web page would make a browser do.
_FLOOD: Final = """
import sys
import dns.message, dns.query, dns.resolver
server = dns.resolver.Resolver().nameservers[0]
for number in range(int(sys.argv[1])):
    name = f"10-77-{number >> 8}-{number & 255}.default.pod.cluster.local"
    answer = dns.query.udp(dns.message.make_query(name, "A"), server, timeout=5)
    assert answer.answer, name
"""


#: As a kube-proxy writes it that serves another cluster on the laptop.
_KUBE_PROXY: Final = """
table ip kube-proxy {
  map service-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.1 . tcp . 443 : goto service-kubernetes }
  }
  chain nat-output { type nat hook output priority -100; ip daddr . meta l4proto . th dport vmap @service-ips; }
  chain service-kubernetes { meta l4proto tcp dnat to 192.0.2.7:6443; }
}
"""


def pod_name(address: str) -> str:
    """By CoreDNS's `pods insecure` the name of any address."""
    return f"{address.replace('.', '-')}.default.pod.cluster.local"


def refused(laptop: Laptop, address: str) -> list[str]:
    """The notes of status that tell that *address* is not routed, and the way out."""
    said = re.compile(rf"\b{re.escape(address)}\b.* (is|are) not routed")
    return [note for note in laptop.status()["notes"] if said.search(note) and "--also" in note]


def log_of(laptop: Laptop) -> str:
    """The session's log."""
    session = laptop.status()["pids"]["session"]
    return Path(f"/proc/{session}/fd/2").read_text()


def untouched(laptop: Laptop, *targets: str) -> None:
    """*targets* are not routed, which is told."""
    for address in targets:
        assert device_to(laptop, address) != DEVICE
        assert f"{address}/32" not in laptop.status()["routes"]
        assert refused(laptop, address)
        assert any(address in line and "not routed" in line for line in log_of(laptop).splitlines())


@both
def test_a_name_of_a_pod_chooses_no_route(anyone: Laptop) -> None:
    with anyone.connected():
        before = anyone.status()["routes"]
        for address in (PUBLIC, NEIGHBOUR):
            assert anyone.ok("getent", "ahostsv4", pod_name(address)).split()[0] == address
        untouched(anyone, PUBLIC, NEIGHBOUR)
        assert anyone.status()["routes"] == before
        pod = kubectl("get", "pods", "-l", "app=b", "-o", "jsonpath={.items[0].status.podIP}")
        reaches(anyone, f"http://{pod_name(pod)}:8080/", "http://b/", "http://db-0.db:5432/")


@both
def test_also_overrides(anyone: Laptop) -> None:
    with anyone.connected("--also", f"{PUBLIC}/32", "--also", f"{NEIGHBOUR}/32"):
        for address in (PUBLIC, NEIGHBOUR):
            anyone.ok("getent", "ahostsv4", pod_name(address))
            assert device_to(anyone, address) == DEVICE
            assert not refused(anyone, address)


@contextmanager
def made_up(namespace: str) -> Iterator[None]:
    """A headless Service whose endpoints somebody wrote."""
    meta: dict[str, Any] = {"name": "made-up", "namespace": namespace}
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"clusterIP": "None", "ports": ports}}
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**meta, "labels": {"kubernetes.io/service-name": "made-up"}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in (PUBLIC, NEIGHBOUR)],
    }
    manifest = f"{json.dumps(service)}\n---\n{json.dumps(slice_)}\n"
    apply(manifest)
    try:
        yield
    finally:
        remove(manifest)


@both
def test_an_endpointslice_with_addresses_of_others_routes_nothing(anyone: Laptop) -> None:
    with anyone.connected():
        before = anyone.status()["routes"]
        with made_up("default"):
            until("the endpoints are refused", lambda: refused(anyone, PUBLIC) and refused(anyone, NEIGHBOUR))
            found = until(
                "its name resolves",
                lambda: anyone.run("getent", "ahostsv4", "made-up.default.svc.cluster.local").stdout,
            )
            assert {line.split()[0] for line in found.splitlines()} == {PUBLIC, NEIGHBOUR}
            untouched(anyone, PUBLIC, NEIGHBOUR)
            assert anyone.status()["routes"] == before
        reaches(anyone, "http://b/", "http://db-0.db:5432/")


def test_an_account_of_one_namespace(laptop: Laptop, tmp_path: Path) -> None:
    """It sees no ranges: Services and pods of other namespaces come by DNS alone, and names of pods route nothing."""
    with laptop.connected("-n", HOME_NAMESPACE):
        pass
    granted = role("narrow", HOME_NAMESPACE, [PODS, FORWARD, SERVICES, SLICES])
    with account("narrow", granted), made_up("default"):
        config = kubeconfig(tmp_path, "narrow", HOME_NAMESPACE)
        with laptop.connected("--kubeconfig", config):
            urls = ("http://b.default/", "http://c.default.svc/", "http://db-0.db.default:5432/")
            reaches(laptop, *urls)
            before = laptop.status()["routes"]
            for name in (pod_name(PUBLIC), pod_name(NEIGHBOUR), "made-up.default.svc.cluster.local"):
                laptop.ok("getent", "ahostsv4", name)
            untouched(laptop, PUBLIC, NEIGHBOUR)
            laptop.ok(".venv/bin/python", "-c", _FLOOD, "2100")
            assert laptop.status()["routes"] == before
            assert len(laptop.status()["notes"]) < 20
            reaches(laptop, *urls)


def test_a_node_that_joins_later(laptop: Laptop) -> None:
    span = "10.244.77.0/24"
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "joins-later"},
        "spec": {"podCIDR": span, "podCIDRs": [span], "unschedulable": True},
    }
    with laptop.connected():
        assert span not in laptop.status()["routes"]
        apply(json.dumps(node) + "\n")
        try:
            until("its pods are routed", lambda: span in laptop.status()["routes"])
            assert device_to(laptop, "10.244.77.5") == DEVICE
        finally:
            remove(json.dumps(node) + "\n")
        until("its pods are routed no more", lambda: span not in laptop.status()["routes"])
        assert device_to(laptop, "10.244.77.5") != DEVICE


@both
def test_a_kube_proxy_on_the_laptop_is_named(anyone: Laptop) -> None:
    root = Laptop(anyone.number)
    root.ok("nft", _KUBE_PROXY)
    try:
        with anyone.connected():
            said = "packets to 10.96.0.1 get another destination before they reach the tunnel: table ip kube-proxy"
            assert [note for note in anyone.status()["notes"] if said in note]
            assert said in log_of(anyone)
    finally:
        root.ok("nft", "delete", "table", "ip", "kube-proxy")
