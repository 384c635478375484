"""Quantities, and resourceFieldRef with divisors, defaults and rounding."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshdev.environment.resources import needs_node, quantity, resource_value
from meshdev.environment.sources import UnreadableError
from tests.environment.making import FORBIDDEN, pod

ALLOCATABLE = {"cpu": "3920m", "memory": "8052452Ki", "ephemeral-storage": "90e9"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1", 1),
        ("1.", 1),
        (".5", Fraction(1, 2)),
        ("+1", 1),
        ("-1", -1),
        ("100m", Fraction(1, 10)),
        ("1500m", Fraction(3, 2)),
        ("1u", Fraction(1, 10**6)),
        ("1n", Fraction(1, 10**9)),
        ("0.1n", Fraction(1, 10**9)),
        ("-0.1n", -Fraction(1, 10**9)),
        ("2k", 2000),
        ("1M", 10**6),
        ("1E", 10**18),
        ("1Ki", 1024),
        ("1.5Gi", 3 * 2**29),
        ("1Ei", 2**60),
        ("1e3", 1000),
        ("1E3", 1000),
        ("12e-1", Fraction(6, 5)),
    ],
)
def test_quantities(text: str, value: Fraction) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize(
    "text", ["", "m", "1 Gi", "1Gib", "1K", "1ki", "١", "0x1", "1e", "--1", ".", "1e9999", "9" * 99]
)
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        quantity(text)


@settings(deadline=None)
@given(st.integers(0, 10**15), st.sampled_from(["", "k", "M", "Ki", "Mi", "Gi"]))
def test_whole_quantities_are_exact(number: int, suffix: str) -> None:
    factor = {"": 1, "k": 10**3, "M": 10**6, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[suffix]
    assert quantity(f"{number}{suffix}") == number * factor


def ask(resource: str, container: dict[str, Any] | None = None, *, divisor: str = "0", **more: Any) -> str:
    view = pod({"resources": container or {}}, **{key: more.pop(key) for key in ("live", "resources") if key in more})
    allocatable = more.pop("allocatable", ALLOCATABLE)
    return resource_value({"resource": resource, "divisor": divisor, **more}, view, allocatable)


LIMITS = {"limits": {"cpu": "250m", "memory": "1.5Gi"}, "requests": {"cpu": "100m", "memory": "100M"}}


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", "0", "1"),
        ("limits.cpu", "1", "1"),
        ("limits.cpu", "1m", "250"),
        ("requests.cpu", "1m", "100"),
        ("limits.memory", "0", "1610612736"),
        ("limits.memory", "1Mi", "1536"),
        ("limits.memory", "1Gi", "2"),
        ("requests.memory", "1Mi", "96"),  # 95.37
        ("limits.ephemeral-storage", "1G", "90"),  # the node's
        ("requests.ephemeral-storage", "0", "0"),
    ],
)
def test_values_are_rounded_up_to_the_divisor(resource: str, divisor: str, value: str) -> None:
    assert ask(resource, LIMITS, divisor=divisor) == value


def test_without_a_limit_it_is_the_nodes() -> None:
    assert ask("limits.cpu") == "4"
    assert ask("limits.cpu", divisor="1m") == "3920"
    assert ask("limits.memory", divisor="1Mi") == "7864"
    assert ask("limits.cpu", {"limits": {"cpu": "0"}}) == "4"
    assert ask("limits.hugepages-2Mi") == "0"
    with pytest.raises(UnreadableError, match="you may not get") as raised:
        ask("limits.cpu", allocatable=FORBIDDEN)
    assert raised.value.forbidden
    with pytest.raises(UnreadableError, match="no pod runs"):
        ask("limits.cpu", live=False)


def test_the_limit_of_the_pod_as_a_whole_comes_before_the_nodes_but_not_in_volumes() -> None:
    whole = {"limits": {"cpu": "2", "ephemeral-storage": "1"}}
    view = pod({}, resources=whole)
    assert resource_value({"resource": "limits.cpu"}, view, FORBIDDEN) == "2"
    assert resource_value({"resource": "limits.cpu"}, view, ALLOCATABLE, volume=True) == "4"
    assert resource_value({"resource": "limits.ephemeral-storage"}, view, ALLOCATABLE) == "90000000000"


def test_a_template_has_no_defaults_yet() -> None:
    assert ask("requests.cpu", {"limits": {"cpu": "2"}}, live=False, divisor="1m") == "2000"


def test_another_container() -> None:
    init = {"name": "init", "resources": {"limits": {"cpu": "7"}}}
    view = pod({}, initContainers=[init])
    assert resource_value({"resource": "limits.cpu", "containerName": "init"}, view, ALLOCATABLE) == "7"
    with pytest.raises(UnreadableError, match="no container other"):
        resource_value({"resource": "limits.cpu", "containerName": "other"}, view, ALLOCATABLE)


@pytest.mark.parametrize("resource", ["limits.gpu", "limits", "cpu", "", "requests.example.com/x"])
def test_what_the_kubelet_does_not_know(resource: str) -> None:
    with pytest.raises(UnreadableError, match="knows no such resource"):
        ask(resource)


def test_a_quantity_that_is_none() -> None:
    with pytest.raises(UnreadableError, match="is no quantity"):
        ask("limits.cpu", {"limits": {"cpu": "much"}})


def test_when_the_node_is_needed() -> None:
    assert needs_node({"resource": "limits.cpu"}, pod({}))
    assert not needs_node({"resource": "limits.cpu"}, pod({"resources": LIMITS}))
    assert not needs_node({"resource": "limits.cpu"}, pod({}, resources={"limits": {"cpu": "1"}}))
    assert needs_node({"resource": "limits.cpu"}, pod({}, resources={"limits": {"cpu": "1"}}), volume=True)
    assert not needs_node({"resource": "requests.cpu"}, pod({}))
    assert not needs_node({"resource": "limits.hugepages-2Mi"}, pod({}))
