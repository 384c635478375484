"""The address plan, the wiring and the laptops' files: what would be done, without doing it."""

import itertools
import pwd
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.cluster import addresses as plan
from tests.cluster import enter, laptops, mounts, network
from tests.cluster.kinds import DEFAULT, OTHER, ClusterKind

SESSIONS = IPv4Network("198.18.0.0/16")  # of meshdev's own plan: the testbed keeps clear of it


KINDS = pytest.mark.parametrize("kind", [DEFAULT, OTHER], ids=["default", "other"])


def test_networks_are_disjoint() -> None:
    uplinks = [node.uplink.network for node in plan.nodes(OTHER)]
    networks = [plan.NODE_NETWORK, plan.PODS, plan.SERVICES, plan.LAN, *uplinks, SESSIONS, IPv4Network(plan.VPC)]
    for one, other in itertools.combinations(networks, 2):
        assert not one.overlaps(other), f"{one} and {other}"


def test_every_address_is_private_or_reserved() -> None:
    """A packet that escaped by mistake must not reach anybody."""
    everything = [plan.NODE, plan.LAN_GATEWAY, plan.WAN_DNS, plan.WAN_WEB, plan.VPC, plan.CLUSTER_DNS]
    for node in plan.nodes(OTHER):
        everything += [node.address, node.uplink.ip, node.uplink_gateway, node.pods[1]]
    assert all(not address.is_global for address in everything)


def test_laptops_differ() -> None:
    pairs = [(plan.laptop(number).lan, plan.laptop(number).node_network) for number in plan.LAPTOPS]
    assert len({address for pair in pairs for address in pair}) == 2 * len(plan.LAPTOPS)
    with pytest.raises(KeyError):
        plan.laptop(9)


def test_nodes_differ() -> None:
    one, two = plan.nodes(OTHER)
    assert plan.nodes(DEFAULT) == (one,)
    assert (one.address, one.namespace, one.component("kubelet")) == (plan.NODE, plan.NODE_NAMESPACE, "kubelet")
    assert two.component("kubelet") == "kubelet2"
    assert not one.pods.overlaps(two.pods)
    assert one.pods.subnet_of(plan.PODS)
    assert two.pods.subnet_of(plan.PODS)
    taken = {laptop.node_network.ip for laptop in map(plan.laptop, plan.LAPTOPS)}
    assert {one.address, two.address}.isdisjoint(taken)


def test_nodes_share_no_file() -> None:
    one, two = (node.folders for node in plan.nodes(OTHER))
    names = [name for name, value in vars(type(one)).items() if isinstance(value, property)]
    assert len(names) > 5
    for name in names:
        mine, other = Path("/", getattr(one, name)), Path("/", getattr(two, name))
        assert mine != other
        assert name == "cgroup" or not other.is_relative_to(mine)


def test_pods_of_two_nodes_reach_each_other_by_their_own_addresses() -> None:
    lines = dict(network.wiring(OTHER))
    one, two = plan.nodes(OTHER)
    assert f"route add {two.pods} via {two.address}" in lines[one.namespace]
    assert f"route add {one.pods} via {one.address}" in lines[two.namespace]
    for node in (one, two):
        assert f"ip saddr {node.pods} ip daddr != {plan.PODS} masquerade" in network.rulesets(OTHER)[node.namespace]
    assert network.rulesets(DEFAULT) == {}


@KINDS
def test_wiring_leads_nowhere_but_wan(kind: ClusterKind) -> None:
    lines = dict(network.wiring(kind))
    assert f"route add default via {plan.LAN_GATEWAY}" in lines["meshdev-laptop1"]
    for node in plan.nodes(kind):
        assert f"route add default via {node.uplink_gateway}" in lines[node.namespace]
    assert "route add unreachable default" in lines[plan.WAN_NAMESPACE]
    assert not any("default" in line for line in lines[""])


@KINDS
def test_cables_join_two_of_our_namespaces(kind: ClusterKind) -> None:
    cables = dict(network.wiring(kind))[""]
    known = set(plan.namespaces(kind))
    for cable in cables:
        words = cable.split()
        ends = {words[index + 1] for index, word in enumerate(words) if word == "netns"}
        assert len(ends) == 2
        assert ends <= known


def test_fingerprint_is_stable() -> None:
    assert network.fingerprint(DEFAULT) == network.fingerprint(ClusterKind())
    assert network.fingerprint(DEFAULT) != network.fingerprint(OTHER)


def test_laptop_script_touches_only_its_own_mount_namespace() -> None:
    account = pwd.struct_passwd(("dev", "x", 1234, 1234, "", "/home/dev", "/bin/bash"))
    script = laptops.setup_script(plan.laptop(1), account)
    before_overlay, _, after = script.partition("mount -t overlay")
    assert "/etc/" not in before_overlay.replace("lowerdir=/etc", "")
    assert "mount --bind /var/lib/meshdev-testbed/laptop1/resolv.conf /etc/resolv.conf" in after
    assert "ln -s" not in script


def test_second_laptop_has_a_symbolic_link() -> None:
    account = pwd.struct_passwd(("dev", "x", 1234, 1234, "", "/home/dev", "/bin/bash"))
    script = laptops.setup_script(plan.laptop(2), account)
    assert "ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf" in script


def test_grant_nothing_for_an_open_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laptops, "first_blocked", lambda _: None)
    assert laptops.grant_script(Path("/srv/code"), Path("/m"), [Path("/root")]) == ""


def test_grant_covers_the_first_closed_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laptops, "first_blocked", lambda _: Path("/srv/closed"))
    script = laptops.grant_script(Path("/srv/closed/in/code"), Path("/m"), [Path("/root")])
    assert "mount -t tmpfs -o mode=755 checkout /srv/closed" in script
    assert "mount --rbind /m/srv/closed/in/code /srv/closed/in/code" in script
    assert "chmod" not in script


def test_grant_below_a_home_needs_no_cover() -> None:
    script = laptops.grant_script(Path("/root/code"), Path("/m"), [Path("/root")])
    assert "tmpfs" not in script
    assert "mount --rbind /m/root/code /root/code" in script


def test_grant_of_a_closed_checkout_binds_its_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meshdev").mkdir()
    (tmp_path / "Makefile").touch()
    monkeypatch.setattr(laptops, "first_blocked", lambda checkout: checkout)
    script = laptops.grant_script(tmp_path, Path("/m"), [])
    assert f"mkdir -p {tmp_path}/meshdev" in script
    assert f"touch {tmp_path}/Makefile" in script
    assert f"mount --rbind /m{tmp_path}/Makefile {tmp_path}/Makefile" in script


def test_first_blocked_is_the_topmost(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    blocked = laptops.first_blocked(inner)
    assert blocked is not None
    assert blocked in {tmp_path / "closed", *(tmp_path / "closed").parents}


def test_environment_of_a_laptop() -> None:
    base = {"HTTPS_PROXY": "http://x", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C", "HOME": "/root", "CI": "1"}
    env = enter.laptop_environment(base, "dev", 1234, "/home/dev")
    assert env["HOME"] == "/home/dev"
    assert env["KUBECONFIG"] == "/home/dev/.kube/config"
    assert env["MESHDEV_IMAGE"] == "localhost/meshdev-traffic-manager:dev"
    assert (env["LANG"], env["CI"]) == ("C", "1")
    assert "HTTPS_PROXY" not in env
    assert "PYTHONDONTWRITEBYTECODE" not in env
    assert "/usr/sbin" in env["PATH"]


def test_mounts_below_are_unmounted_from_the_inside_out() -> None:
    info = "\n".join(
        f"{number} 1 0:1 / {point} rw - tmpfs tmpfs rw"
        for number, point in enumerate(["/", "/data/x", "/data/x/y", "/database", "/data/with\\040space"])
    )
    assert mounts.below(info, (Path("/data"),)) == ["/data/with space", "/data/x/y", "/data/x"]
