"""Who may intercept what, and who goes."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.intercept.conflict import conflict_error, exclude, in_the_way, losers
from meshdev.intercept.lease import LeaseStatus, Record, name_of
from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import Port, Spec, Workload
from meshdev.wire.modes import MESH
from tests.intercept.values import HTTP, SPECS, mesh, proxy

OTHER_PORT = (Port(9000, "http", 9000),)
OTHER_WORKLOAD = Workload("default", "deployment", "c", "uid-c")
A2 = HeaderMatch("a", "exact", "2")


def record(spec: Spec, created: float = 100.0, holder: str = "jane@laptop") -> Record:
    return Record(spec, holder, "default", LeaseStatus(), created, name_of(spec), "u", "1")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (mesh(), mesh(number=2), True),
        (mesh(), mesh(A2), False),
        (mesh(), mesh(ports=OTHER_PORT), False),
        (mesh(ports=(HTTP, *OTHER_PORT)), mesh(ports=OTHER_PORT), True),
        (mesh(), mesh(workload=OTHER_WORKLOAD), False),
        (proxy(), mesh(), True),
        (proxy(), mesh(ports=OTHER_PORT), True),
        (proxy(), proxy(2), True),
        (proxy(), proxy(2, ports=OTHER_PORT), True),
        (proxy(), proxy(workload=OTHER_WORKLOAD), False),
        (mesh(ports=(Port(53, "udp", 53),)), mesh(ports=(Port(53, "tcp", 53),)), False),
    ],
)
def test_what_cannot_be_together(one: Spec, other: Spec, expected: bool) -> None:
    assert exclude(one, other) == exclude(other, one) == expected


def test_in_the_way_are_others_the_oldest_first() -> None:
    mine = mesh(number=1)
    records = [record(mesh(number=2)), record(proxy(3), created=50), record(mesh(A2)), record(mine)]
    assert [each.spec.id for each in in_the_way(mine, records)] == [f"{3:032x}", f"{2:032x}"]


def test_the_oldest_stays() -> None:
    first, second, third = record(mesh(number=1), 1), record(proxy(2), 2), record(mesh(A2, number=3), 3)
    for order in permutations((first, second, third)):
        assert losers(order) == {second.name}  # and so nothing excludes the third
    assert losers([second, third]) == {third.name}


@given(st.lists(st.tuples(SPECS, st.integers(0, 3)), max_size=6))
def test_what_stays_can_be_together_and_what_goes_cannot(claims: list[tuple[Spec, int]]) -> None:
    found = {name_of(spec): record(spec, created) for spec, created in claims}
    lost = losers(found.values())
    kept = [each for name, each in found.items() if name not in lost]
    assert not any(exclude(one.spec, other.spec) for one in kept for other in kept if one is not other)
    for name in lost:
        assert any(exclude(found[name].spec, each.spec) for each in kept)
    assert losers(reversed(found.values())) == lost


def test_the_refusal_names_everybody_with_host_age_and_match() -> None:
    others = [record(mesh(number=2), created=880, holder="jane@big-box"), record(proxy(3), created=0, holder="ci")]
    error = conflict_error(mesh(), others, 1000)
    assert error.message == (
        "deployment/b in namespace default is taken: jane on big-box has a=1 (mesh, port 8080) for 2m; "
        "ci has all traffic (proxy, port 8080) for 16m"
    )
    assert error.hint == "--takeover replaces it"
    assert error.exit_code == 60


def test_the_refusal_says_that_a_holder_is_silent() -> None:
    error = conflict_error(mesh(), [record(mesh(number=2))], 1000, silent=60)
    assert error.hint == "not renewed for 60s, so most probably dead: --takeover replaces it"


def test_a_match_is_not_its_text() -> None:
    """``a`` with the value ``1, b`` looks like two conditions."""
    one = Spec("0" * 32, mesh().workload, MESH, Match((HeaderMatch("a", "exact", "1, b"),)), (HTTP,))
    assert not exclude(one, mesh(HeaderMatch("a", "exact", "1"), HeaderMatch("b", "present")))
