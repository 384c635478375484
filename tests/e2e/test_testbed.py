"""The testbed keeps its own promises (contract: Testbed); when one of these fails, the others say nothing."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import addresses, kinds
from tests.cluster.state import State

pytestmark = [pytest.mark.cluster, pytest.mark.every_cluster]

CHECKOUT = Path(__file__).resolve().parents[2]
LAPTOPS = pytest.mark.parametrize("laptop", ["1", "2"])
USERS = pytest.mark.parametrize("user", ["root", "dev"])


def control(*words: str, stdin: str = "", cwd: Path = CHECKOUT) -> "subprocess.CompletedProcess[str]":
    """One command of the testbed's program."""
    command = [sys.executable, "-m", "tests.cluster", *words]
    environment = {
        "PYTHONPATH": str(CHECKOUT),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HTTPS_PROXY": "http://no.invalid",
    }
    return subprocess.run(
        command, input=stdin, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def on_laptop(laptop: str, user: str, *command: str) -> str:
    done = control("exec", "--laptop", laptop, "--user", user, "--", *command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def in_pod(script: str) -> str:
    done = control("kubectl", "exec", "deploy/a", "--", "python3", "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def kind() -> kinds.ClusterKind:
    """The kind of the cluster that is up."""
    found = kinds.running(State.load().facts)
    assert found is not None
    return found


def listed(*words: str) -> list[dict[str, Any]]:
    """Objects of the cluster."""
    done = control("kubectl", "get", *words, "-o", "json")
    assert done.returncode == 0, done.stderr
    items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return items


def test_the_cluster_is_of_the_kind_that_status_says() -> None:
    described = json.loads(control("status", "-o", "json").stdout)["kind"]
    assert kinds.ClusterKind(**described) == kind()
    release = kinds.RELEASES[kind().kubernetes]
    nodes = {item["metadata"]["name"]: item["status"]["nodeInfo"]["kubeletVersion"] for item in listed("nodes")}
    assert nodes == {node.name: release for node in addresses.nodes(kind())}
    assert json.loads(control("kubectl", "version", "-o", "json").stdout)["serverVersion"]["gitVersion"] == release
    for number in range(1, kind().nodes + 1):
        mode = control("node", "--node", str(number), "--", "curl", "-s", "http://127.0.0.1:10249/proxyMode")
        assert mode.stdout == kind().kube_proxy


def test_another_kind_needs_down_first() -> None:
    other = {1: "2", 2: "1"}[kind().nodes]
    done = control("up", "--nodes", other)
    assert done.returncode == 1
    assert "tests.cluster down" in done.stderr


def test_a_node_that_does_not_exist_is_named() -> None:
    done = control("node", "--node", str(kind().nodes + 1), "--", "true")
    assert done.returncode == 1
    assert f"there is no node {kind().nodes + 1}" in done.stderr


def test_pods_know_each_other_by_their_own_addresses() -> None:
    """On every node and between them; through a Service, unless kube-proxy masquerades all, too."""
    pods = [pod for pod in listed("pods", "-l", "app in (a,b,c)") if pod["status"]["phase"] == "Running"]
    on_node = {pod["spec"]["nodeName"]: pod for pod in pods}
    assert len(on_node) == kind().nodes, "the sample's pods are not on every node"
    hosts = [f"{pod['status']['podIP']}:8080" for pod in on_node.values()]
    for pod in on_node.values():
        # A pod that reaches itself through its Service is masqueraded, on every cluster.
        services = sorted({"b", "c"} - {pod["metadata"]["labels"]["app"]})
        seen = _clients_seen(pod["metadata"]["name"], *hosts, *services)
        assert seen[: len(hosts)] == [pod["status"]["podIP"]] * len(hosts)
        through_services = set(seen[len(hosts) :])
        if kind().masquerade_all:
            assert through_services.isdisjoint(each["status"]["podIP"] for each in pods)
        else:
            assert through_services == {pod["status"]["podIP"]}


def _clients_seen(pod: str, *hosts: str) -> list[str]:
    """The client's address as each of *hosts* sees it when *pod* asks."""
    script = "import json, sys, urllib.request as u; print(json.dumps([json.load(u.urlopen(f'http://{h}/request'))"
    script += "['client'] for h in sys.argv[1:]]))"
    done = control("kubectl", "exec", pod, "--", "python3", "-c", script, *hosts)
    assert done.returncode == 0, done.stderr
    seen: list[str] = json.loads(done.stdout)
    return seen


def test_exec_is_the_command() -> None:
    done = control("exec", "--", "sh", "-c", "cat; pwd; exit 7", stdin="given\n", cwd=CHECKOUT / "tests")
    assert (done.returncode, done.stdout) == (7, f"given\n{CHECKOUT}/tests\n")
    assert control("exec", "--", "/nonexistent").returncode == 127
    assert control("exec", "--", "/etc/hosts").returncode == 126
    killed = control("exec", "--", "sh", "-c", "kill -TERM $$")
    assert killed.returncode == -15
    assert control("exec", "--", "sh", "-c", "yes | head -1").stdout == "y\n"


@LAPTOPS
@USERS
def test_environment(laptop: str, user: str) -> None:
    script = 'echo $HOME $MESHDEV_IMAGE; stat -c "%a %U" $KUBECONFIG; env | grep -c -i _proxy; id -un; hostname'
    done = control("exec", "--laptop", laptop, "--user", user, "--", "sh", "-c", script)
    home = {"root": "/root", "dev": "/home/dev"}[user]
    assert done.stdout.split("\n")[:5] == [
        f"{home} localhost/meshdev-traffic-manager:dev",
        f"600 {user}",
        "0",
        user,
        f"laptop{laptop}",
    ]


@LAPTOPS
def test_dev_may_do_nothing_but_sudo(laptop: str) -> None:
    assert on_laptop(laptop, "dev", "sudo", "id", "-u") == "0"
    assert "0000000000000000" in on_laptop(laptop, "dev", "grep", "CapEff", "/proc/self/status")
    assert on_laptop(laptop, "dev", "kubectl", "auth", "can-i", "*", "*") == "yes"
    assert on_laptop(laptop, "dev", str(CHECKOUT / ".venv/bin/python"), "-c", "import meshdev; print(1)") == "1"


def test_the_two_kinds_of_resolv_conf() -> None:
    assert "203.0.113.53" in on_laptop("1", "dev", "cat", "/etc/resolv.conf")
    assert on_laptop("1", "root", "stat", "-c", "%F", "/etc/resolv.conf") == "regular file"
    assert "127.0.0.53" in on_laptop("2", "dev", "cat", "/etc/resolv.conf")
    assert on_laptop("2", "root", "readlink", "/etc/resolv.conf").endswith("stub-resolv.conf")


@LAPTOPS
def test_the_rest_of_the_network(laptop: str) -> None:
    lan = f"192.168.77.1{laptop}"
    assert on_laptop(laptop, "dev", "getent", "ahostsv4", "whoami.example.test").split()[0] == lan
    assert on_laptop(laptop, "dev", "curl", "-sf", "http://www.example.test/whoami") == lan


def test_nothing_leaves_the_machine() -> None:
    """The addresses that this machine has must not answer from inside, nor anything beyond it."""
    outside = {address[4][0] for address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in {"198.51.100.1", *outside} - {"127.0.0.1", "127.0.1.1"}:
        for enter in (["exec", "--"], ["node", "--"]):
            assert control(*enter, "ping", "-c1", "-W1", str(address)).returncode != 0


def test_the_cluster_is_not_reachable_without_meshdev() -> None:
    address = control("kubectl", "get", "svc", "a", "-o", "jsonpath={.spec.clusterIP}").stdout
    command = ("curl", "-s", "-o", "/dev/null", "--max-time", "3", f"http://{address}/")
    assert control("exec", "--laptop", "2", "--", *command).returncode != 0
    assert control("node", "--", *command).returncode == 0


def test_the_sample() -> None:
    get = "import urllib.request as u; print(u.urlopen('http://{}').read().decode())"
    assert in_pod(get.format("a/")) == "service-a>service-b>service-c"
    assert in_pod(get.format("named/")) == "named"
    assert in_pod(get.format("db-0.db:5432/")) == "db"
    uplinks = {str(node.uplink.ip) for node in addresses.nodes(kind())}
    assert in_pod(get.format("www.example.test/whoami")) in uplinks
    tcp = "import socket; print(socket.create_connection(('tcp-first', 7000)).recv(9))"
    assert in_pod(tcp) == "b'hello\\n'"
    udp = (
        "import os, socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)\n"
        "s.connect(('udp-echo', 9090)); d = os.urandom(60000); s.send(d); print(s.recv(65535) == d)"
    )
    assert in_pod(udp) == "True"
    grpc = (
        "import grpc; c = grpc.insecure_channel('grpc:50051')\n"
        "print(c.unary_unary('/sample.Echo/Unary')(b'hi', timeout=5))"
    )
    assert in_pod(grpc) == "b'hi'"


def test_pods_have_the_usual_kernel_settings() -> None:
    read = "print(open('{}').read().strip())"
    assert in_pod(read.format("/proc/sys/net/ipv4/tcp_congestion_control")) == "cubic"
    assert in_pod(read.format("/sys/class/net/eth0/mtu")) == "1450"
    assert on_laptop("1", "root", "cat", "/proc/sys/net/ipv4/tcp_congestion_control") == "cubic"


@pytest.mark.parametrize("namespace", ["psa-baseline", "psa-restricted"])
def test_pod_security_refuses_a_privileged_pod(namespace: str) -> None:
    overrides = '{"spec":{"containers":[{"name":"x","image":"x","securityContext":{"privileged":true}}]}}'
    command = ("run", "x", "--image=x", "--dry-run=server", f"--overrides={overrides}", "-n", namespace)
    done = control("kubectl", *command)
    assert done.returncode != 0
    assert "violates PodSecurity" in done.stderr


def test_the_image_is_known_by_digest() -> None:
    for node in listed("nodes"):
        names = [name for image in node["status"]["images"] for name in image["names"]]
        assert [name for name in names if name.startswith("localhost/meshdev-traffic-manager@sha256:")]
