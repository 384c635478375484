"""Whose names are whose: the cluster's, the laptop's own, the public ones (both DNS integrations)."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cluster import addresses
from tests.e2e.accounts import HOME_NAMESPACE, account, apply, kubeconfig
from tests.e2e.conftest import Laptop, kubectl, until

pytestmark = pytest.mark.cluster

NAMESPACE: Final = "names-e2e"
#: Another one, of which DNS alone tells.
OTHER: Final = "names-e2e-other"
ZONE: Final = addresses.WAN_ZONE
WEB: Final = str(addresses.WAN_WEB)
DEVICE: Final = "meshdev0"

both = pytest.mark.parametrize("laptop", [1, 2], ids=["plain", "resolved"], indirect=True)


@pytest.fixture
def laptop(request: pytest.FixtureRequest) -> Iterator[Laptop]:
    """Laptop 1 (resolv.conf is a plain file) or 2 (systemd-resolved), disconnected before and after."""
    here = Laptop(getattr(request, "param", 1))
    here.clean()
    yield here
    here.clean()


def _service(name: str, namespace: str = NAMESPACE, **spec: Any) -> dict[str, Any]:
    ports = [{"port": 80}]
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": ports, **spec}}


def _hostname(pod: str, service: str) -> dict[str, Any]:
    """What a pod with that hostname behind a headless Service is to DNS."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": service,
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.0.222"], "hostname": pod, "conditions": {"ready": True}}],
        "ports": [{"port": 80, "protocol": "TCP"}],
    }


@pytest.fixture(scope="module", autouse=True)
def _namespaces(cluster: None) -> Iterator[None]:  # noqa: ARG001 -- the testbed first
    """Services without pods: names are all that is asked for."""
    spaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in (NAMESPACE, OTHER)]
    headless = _service(ZONE.split(".")[1], clusterIP="None")
    items = [*spaces, *map(_service, ("wpad", "www", "db")), _service("b", OTHER), headless]
    kubectl("delete", "namespace", NAMESPACE, OTHER, "--ignore-not-found")
    apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    apply(json.dumps(_hostname(ZONE.split(".")[0], ZONE.split(".")[1])))
    try:
        yield
    finally:
        kubectl("delete", "namespace", NAMESPACE, OTHER, "--wait=false")


def cluster_ip(name: str, namespace: str = NAMESPACE) -> str:
    return kubectl("-n", namespace, "get", "service", name, "-o", "jsonpath={.spec.clusterIP}")


def resolved(laptop: Laptop, name: str) -> str | None:
    """The address that programs get for *name*; None where there is no such name."""
    done = laptop.run("getent", "ahostsv4", name)
    return done.stdout.split()[0] if done.returncode == 0 else None


@both
def test_a_pod_answers_for_no_public_name(laptop: Laptop) -> None:
    with laptop.connected("-n", NAMESPACE):
        full = f"{ZONE}.{NAMESPACE}.svc.cluster.local"
        assert until("the cluster has the pod's name", lambda: resolved(laptop, full)) == "10.244.0.222"
        assert resolved(laptop, ZONE) == WEB


@both
def test_whoever_makes_a_service_is_not_the_laptops_proxy(laptop: Laptop) -> None:
    with laptop.connected("-n", NAMESPACE):
        assert resolved(laptop, "db") == cluster_ip("db")
        assert resolved(laptop, "wpad") is None
        assert resolved(laptop, f"wpad.{NAMESPACE}.svc") == cluster_ip("wpad")


@both
def test_a_service_of_a_namespace_that_exists(laptop: Laptop) -> None:
    with laptop.connected():
        assert resolved(laptop, f"b.{OTHER}") == cluster_ip("b", OTHER)


@both
def test_a_namespace_that_appears_later(laptop: Laptop) -> None:
    later = f"{OTHER}-later"
    kubectl("delete", "namespace", later, "--ignore-not-found")
    with laptop.connected():
        assert resolved(laptop, f"b.{later}") is None
        kubectl("create", "namespace", later)
        try:
            apply(json.dumps(_service("b", later)))
            until("its names are found", lambda: resolved(laptop, f"b.{later}") == cluster_ip("b", later), 10)
        finally:
            kubectl("delete", "namespace", later, "--wait=false")


@both
def test_without_the_right_to_list_namespaces(laptop: Laptop, tmp_path: Path) -> None:
    subject = ("--serviceaccount", f"{HOME_NAMESPACE}:namer")
    printed = laptop.meshdev("rbac", "-n", "default", "--preinstalled", *subject)
    with laptop.connected():
        pass
    with account("namer", printed), laptop.connected("--kubeconfig", kubeconfig(tmp_path, "namer")):
        assert resolved(laptop, f"b.{OTHER}") == cluster_ip("b", OTHER)
        assert resolved(laptop, f"b.{OTHER}.svc") == cluster_ip("b", OTHER)
        assert resolved(laptop, ZONE) == WEB


@contextmanager
def searching(laptop: Laptop, domain: str) -> Iterator[None]:
    """The laptop's network has a search domain."""
    if laptop.number == 2:
        laptop.ok("resolvectl", "domain", "eth0", domain)
        undo = ["resolvectl", "domain", "eth0", ""]
    else:
        former = laptop.ok("cat", "/etc/resolv.conf")
        undo = ["sh", "-c", f"printf %s '{former}' > /etc/resolv.conf"]
        laptop.ok("sh", "-c", f"echo search {domain} >> /etc/resolv.conf")
    try:
        yield
    finally:
        laptop.ok(*undo)


@both
def test_a_short_name_is_the_clusters_and_a_long_one_is_not(laptop: Laptop) -> None:
    with searching(laptop, ZONE):
        assert resolved(laptop, "www") == WEB
        with laptop.connected("-n", NAMESPACE):
            expected = cluster_ip("www")
            for _ in range(20):  # on systemd-resolved the order was that of a hash table
                assert resolved(laptop, "www") == expected
            assert resolved(laptop, f"www.{ZONE}") == WEB
            assert resolved(laptop, "dual") == WEB, "a name of the laptop's own domain that is no Service"
            if laptop.number == 2:  # resolved writes the file anew with each change of a link
                laptop.ok("resolvectl", "domain", "eth0", ZONE, "office.example")
                until("the cluster's names come first again", lambda: resolved(laptop, "www") == expected, 5)
                laptop.ok("resolvectl", "domain", "eth0", ZONE)
        assert resolved(laptop, "www") == WEB


@contextmanager
def caching(laptop: Laptop) -> Iterator[None]:
    """dnsmasq as the first nameserver of the laptop, and its upstream as the second."""
    server = ["--listen-address=127.0.0.1", "--bind-interfaces", f"--server={addresses.WAN_DNS}"]
    plain = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file", "--user=root"]
    with nameservers(laptop, "127.0.0.1", str(addresses.WAN_DNS)):
        dnsmasq = laptop.start("dnsmasq", *plain, *server, "--log-queries", "--log-facility=-")
        try:
            until("dnsmasq answers", lambda: resolved(laptop, ZONE) == WEB, 5)
            yield
        finally:
            os.killpg(dnsmasq.pid, signal.SIGTERM)
            dnsmasq.communicate(timeout=5)


@contextmanager
def nameservers(laptop: Laptop, *servers: str) -> Iterator[None]:
    """Laptop 1 asks these."""
    former = laptop.ok("cat", "/etc/resolv.conf")
    text = "".join(f"nameserver {server}\\n" for server in servers)
    laptop.ok("sh", "-c", f"printf '{text}' > /etc/resolv.conf")
    try:
        yield
    finally:
        laptop.ok("sh", "-c", f"printf %s '{former}' > /etc/resolv.conf")


def test_a_cache_whose_upstream_stands_in_resolv_conf_makes_no_loop(laptop: Laptop) -> None:
    with caching(laptop), laptop.connected():
        assert resolved(laptop, "b") == cluster_ip("b", "default")
        assert resolved(laptop, f"www.{ZONE}") == WEB
        start = time.monotonic()
        for name in (f"nosuch.{ZONE}", "nosuch", f"b.{OTHER}x", "a.b.c.d.e"):
            assert resolved(laptop, name) is None
        assert time.monotonic() - start < 4


def link_of(laptop: Laptop, name: str) -> str:
    """The link whose servers answered systemd-resolved."""
    laptop.ok("resolvectl", "flush-caches")
    line = laptop.ok("resolvectl", "query", "--legend=no", name).splitlines()[0]
    return line.rpartition("-- link: ")[2].strip()


@pytest.mark.parametrize("laptop", [2], ids=["resolved"], indirect=True)
def test_other_names_go_where_they_went_as_they_went(laptop: Laptop) -> None:
    kinds = {"dnsovertls": "opportunistic", "dnssec": "allow-downgrade"}
    for kind, value in kinds.items():
        laptop.ok("resolvectl", kind, "eth0", value)
    try:
        with laptop.connected():
            assert link_of(laptop, f"www.{ZONE}") == "eth0"
            assert link_of(laptop, ZONE) == "eth0"
            for kind, value in kinds.items():
                assert laptop.ok("resolvectl", kind, "eth0").rpartition(": ")[2].strip() == value
            assert link_of(laptop, f"b.{OTHER}") == DEVICE
            assert link_of(laptop, "b.default.svc") == DEVICE
            assert link_of(laptop, "b") == DEVICE
            reverse = laptop.ok("resolvectl", "query", "--legend=no", cluster_ip("b", "default"))
            assert "b.default.svc.cluster.local" in reverse
            domains = laptop.ok("resolvectl", "domain", DEVICE).partition(": ")[2].split()
            assert "~." not in domains
            assert {"default.svc.cluster.local", "~svc", "~cluster.local", f"~{OTHER}"} <= set(domains)
    finally:
        for kind in kinds:
            laptop.ok("resolvectl", kind, "eth0", "no")
