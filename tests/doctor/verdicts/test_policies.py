"""Service meshes and NetworkPolicies."""

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from meshdev.config import MANAGER_LABELS
from meshdev.doctor.verdicts import policies
from meshdev.doctor.verdicts.policies import PolicyFacts, PolicyPod

B = PolicyPod("n", {"app": "b"}, IPv4Address("10.244.0.9"))
MANAGER = PolicyPod("ops", MANAGER_LABELS, IPv4Address("10.244.0.5"))
PORTS = [{"port": 15010}, {"protocol": "TCP", "port": 15011}]
TO_MANAGER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ops"}}}


def policy(namespace: str = "n", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": namespace}, "spec": {"podSelector": {}, **spec}}


def egress(*rules: Any, **spec: Any) -> dict[str, Any]:
    return policy(policyTypes=["Egress"], egress=list(rules), **spec)


def ingress(*rules: Any) -> dict[str, Any]:
    return policy("ops", policyTypes=["Ingress"], ingress=list(rules))


@pytest.mark.parametrize(
    ("found", "allowed"),
    [
        ([], True),
        # Isolated, and nothing is allowed.
        ([egress()], False),
        ([policy(policyTypes=["Egress"])], False),
        # Policies of others.
        ([egress(podSelector={"matchLabels": {"app": "c"}})], True),
        ([egress(podSelector={"matchLabels": {"app": "b"}})], False),
        ([policy("else", policyTypes=["Egress"])], True),
        ([policy(policyTypes=["Ingress"])], True),
        # Without policyTypes it is for ingress, and for egress if it has rules of that.
        ([policy()], True),
        ([policy(egress=[{"to": [{"podSelector": {}}]}])], False),
        # Everything, or these ports.
        ([egress({})], True),
        ([egress({"ports": PORTS})], True),
        ([egress({"ports": PORTS[:1]})], False),
        ([egress({"ports": [{"port": 15000, "endPort": 15020}]})], True),
        ([egress({"ports": [{"port": 15000}]})], False),
        ([egress({"ports": [{"protocol": "UDP"}]})], False),
        ([egress({"ports": [{"protocol": "TCP"}]})], True),
        ([egress({"ports": [{"port": "http"}]})], False),
        # Several policies add up.
        ([egress(), egress({"ports": PORTS})], True),
        ([egress({"ports": PORTS[:1]}), egress({"ports": PORTS[1:]})], True),
        # To whom.
        ([egress({"to": [{"podSelector": {}}]})], False),
        ([egress({"to": [TO_MANAGER]})], True),
        ([egress({"to": [{"namespaceSelector": {}}]})], True),
        ([egress({"to": [{**TO_MANAGER, "podSelector": {"matchLabels": MANAGER_LABELS}}]})], True),
        ([egress({"to": [{**TO_MANAGER, "podSelector": {"matchLabels": {"app": "x"}}}]})], False),
        ([egress({"to": [{"ipBlock": {"cidr": "10.244.0.0/16"}}]})], True),
        ([egress({"to": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.0.0/24"]}}]})], False),
        ([egress({"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]})], False),
        ([egress({"to": [{"ipBlock": {"cidr": "fd00::/8"}}]})], False),
        # And whom the manager lets in.
        ([ingress()], False),
        ([ingress({"from": [{"podSelector": {}}], "ports": PORTS})], False),
        ([ingress({"from": [{"namespaceSelector": {}, "podSelector": {}}], "ports": PORTS})], True),
        ([ingress({"ports": PORTS})], True),
    ],
)
def test_what_keeps_sidecars_from_the_manager(found: list[dict[str, Any]], allowed: bool) -> None:
    made = policies.network_policies(PolicyFacts("deployment/b", B, MANAGER, found))
    assert made.state == ("ok" if allowed else "failed"), made


@pytest.mark.parametrize(
    ("expression", "selected"),
    [
        ({"key": "app", "operator": "In", "values": ["a", "b"]}, True),
        ({"key": "app", "operator": "NotIn", "values": ["a", "b"]}, False),
        ({"key": "tier", "operator": "NotIn", "values": ["a"]}, True),
        ({"key": "app", "operator": "Exists"}, True),
        ({"key": "app", "operator": "DoesNotExist"}, False),
        ({"key": "app", "operator": "Later"}, False),
    ],
)
def test_expressions(expression: dict[str, Any], selected: bool) -> None:
    found = egress(podSelector={"matchExpressions": [expression]})
    made = policies.network_policies(PolicyFacts("deployment/b", B, MANAGER, [found]))
    assert made.state == ("failed" if selected else "ok")


def test_the_policy_and_what_to_allow_are_named() -> None:
    made = policies.network_policies(PolicyFacts("deployment/b", B, MANAGER, [egress(), ingress()]))
    assert made.detail == (
        "sidecars in deployment/b would not reach the traffic-manager: networkpolicy/p in namespace n (egress), "
        "networkpolicy/p in namespace ops (ingress) allows no TCP 15010 and 15011"
    )
    assert "app.kubernetes.io/name=meshdev-traffic-manager" in (made.hint or "")


def test_what_may_not_be_read_is_told() -> None:
    made = policies.network_policies(PolicyFacts("deployment/b", B, MANAGER, unread=["ops"]))
    assert made.detail.endswith("(those of namespace ops may not be read)")
    here = replace(MANAGER, address=None)
    blocked = [egress({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]})]
    assert policies.network_policies(PolicyFacts("deployment/b", B, here, blocked)).state == "failed"


@pytest.mark.parametrize(
    ("found", "target", "state", "words"),
    [
        ({}, None, "ok", "none"),
        ({}, "deployment/b", "ok", "none"),
        (
            {"deployment/b": "Istio"},
            "deployment/b",
            "failed",
            "Istio redirects the traffic of the pods of deployment/b",
        ),
        ({"deployment/c": "Istio"}, "deployment/b", "warning", "deployment/c"),
        ({"deployment/c": "Istio", "deployment/d": "Linkerd"}, None, "warning", "Istio and Linkerd"),
    ],
)
def test_meshes(found: dict[str, str], target: str | None, state: str, words: str) -> None:
    made = policies.meshes(found, target)
    assert made.state == state
    assert words in made.detail
