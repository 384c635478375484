"""The kinds of cluster: what `up` is asked for, what is up, and which program belongs to which."""

import re
from pathlib import Path

import pytest

from tests.cluster import binaries, kinds, power
from tests.cluster.addresses import Node
from tests.cluster.kinds import DEFAULT, OTHER, ClusterKind
from tests.cluster.paths import SOURCES
from tests.cluster.run import TestbedError

MASQUERADING = ClusterKind(masquerade_all=True)


def test_nothing_asked_for_is_the_default_or_what_is_up() -> None:
    assert kinds.choose(None, {}) == ClusterKind("1.35", 1, "nftables")
    assert kinds.choose(OTHER, {}) == OTHER


@pytest.mark.parametrize("kind", [DEFAULT, OTHER, MASQUERADING])
def test_the_options_of_a_kind_ask_for_it(kind: ClusterKind) -> None:
    assert kinds.choose(None, kinds.parse(kind.options)) == kind
    assert kinds.choose(kind, kinds.parse(kind.options)) == kind


def test_one_option_leaves_the_others() -> None:
    assert kinds.choose(None, kinds.parse(["--nodes=2"])) == ClusterKind(nodes=2)
    assert kinds.choose(OTHER, kinds.parse(["--kube-proxy", "iptables"])) == OTHER


def test_another_kind_needs_down_first() -> None:
    with pytest.raises(
        TestbedError, match=r"down; then: .* up --kubernetes 1.35 --nodes 2 --kube-proxy nftables"
    ) as it:
        kinds.choose(DEFAULT, {"nodes": 2})
    assert "Kubernetes 1.35, 1 node, kube-proxy nftables" in str(it.value)
    with pytest.raises(TestbedError, match=r"down; then: .* up .* --kube-proxy nftables --masquerade-all$"):
        kinds.choose(DEFAULT, {"masquerade_all": True})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--kubernetes", "1.30"], "one of 1.35, 1.32, not '1.30'"),
        (["--nodes", "3"], "one of 1, 2, not '3'"),
        (["--nodes"], "one of 1, 2, not ''"),
        (["--kube-proxy=ipvs"], "one of nftables, iptables, not 'ipvs'"),
        (["--node", "2"], "no option --node;"),
        (["--masquerade-all=no"], "no option --masquerade-all; it has"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], expected: str) -> None:
    with pytest.raises(TestbedError, match=re.escape(expected)):
        kinds.parse(arguments)


def test_the_kind_that_is_up_is_a_fact() -> None:
    assert kinds.running({}) is None
    assert kinds.running({kinds.FACT: OTHER.as_fact(), "network": "x"}) == OTHER
    assert kinds.running({"network": "x"}) == DEFAULT
    assert kinds.running({kinds.FACT: MASQUERADING.as_fact()}) == MASQUERADING
    assert DEFAULT.as_fact() == '{"kubernetes": "1.35", "nodes": 1, "kube_proxy": "nftables"}'


def test_where_all_is_masqueraded_no_test_needs_the_pods_addresses() -> None:
    assert DEFAULT.selection == "every_cluster"
    assert MASQUERADING.selection == "every_cluster and not pod_addresses"


def test_only_a_node_beside_the_first_can_lose_its_power() -> None:
    assert power.find(OTHER, "node2") == Node(2)
    with pytest.raises(TestbedError, match="node1 cannot be stopped or started; what can: node2"):
        power.find(OTHER, "node1")
    with pytest.raises(TestbedError, match="node2 cannot be stopped or started; what can: nothing"):
        power.find(DEFAULT, "node2")


@pytest.mark.parametrize("version", kinds.RELEASES)
def test_each_version_reports_the_release_that_it_is(version: str) -> None:
    required = (SOURCES / "kubebox" / version / "go.mod").read_text()
    assert f"\tk8s.io/kubernetes {kinds.RELEASES[version]}\n" in required
    assert f"gitVersion={kinds.RELEASES[version]}" in binaries.kubebox(version).linker


def test_a_changed_version_does_not_build_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (*kinds.RELEASES, "box", "pause"):
        (tmp_path / module).mkdir()
    monkeypatch.setattr(binaries, "_MODULES", tmp_path)
    programs = [*(binaries.kubebox(version) for version in kinds.RELEASES), binaries.PAUSE]
    before = {program.name: program.path for program in programs}
    (tmp_path / "1.32" / "main.go").write_text("package main")
    changed = {program.name for program in programs if program.path != before[program.name]}
    assert changed == {"kubebox-1.32"}
    (tmp_path / "box" / "box.go").write_text("package box")
    changed = {program.name for program in programs if program.path != before[program.name]}
    assert changed == {"kubebox-1.32", "kubebox-1.35"}
