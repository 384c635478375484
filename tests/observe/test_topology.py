"""Edges against a model that remembers every request, and bounds that hold whatever comes."""

import statistics
import sys
import time
from collections import defaultdict
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshdev.observe import topology
from meshdev.observe.topology import (
    MAX_ADDRESSES,
    MAX_EDGES,
    MAX_LAPTOPS,
    MAX_WORKLOADS,
    SLOT_SECONDS,
    SLOTS,
    EdgeLoad,
    Hop,
    Topology,
    hop,
)
from meshdev.wire.access import AccessRecord

RECORD = AccessRecord(1, IPv4Address("10.244.1.1"), 80, "HTTP/1.1", "original", 2500, "GET", "b", "/", 200)


def of(edges: list[EdgeLoad]) -> dict[tuple[str, str], tuple[float, float, float]]:
    return {(each.source, each.target): (each.rate, each.errors, each.p50_ms) for each in edges}


@pytest.mark.parametrize(
    ("record", "laptop", "failed"),
    [
        (RECORD, None, False),
        (replace(RECORD, holder="ann@x"), None, False),
        (replace(RECORD, served_by="laptop", holder="ann@x"), "laptop/ann@x", False),
        (replace(RECORD, served_by="fallback", holder="ann@x"), None, False),
        (replace(RECORD, status=499), None, False),
        (replace(RECORD, status=500), None, True),
        (replace(RECORD, status=0), None, True),
        (replace(RECORD, status=0, protocol="tcp"), None, False),
        (replace(RECORD, status=503, served_by="meshdev"), None, True),
    ],
)
def test_what_a_record_says(record: AccessRecord, laptop: str | None, failed: bool) -> None:
    assert hop(record, "deployment/a", "deployment/b") == ("deployment/a", "deployment/b", laptop, failed, 2500)


def test_names_of_nodes() -> None:
    assert topology.workload_node("deployment/b", "team-1", "team-1") == "deployment/b"
    assert topology.workload_node("deployment/b", "team-2", "team-1") == "deployment/b@team-2"
    assert topology.address_node(IPv4Address("1.2.3.4")) == "address/1.2.3.4"
    assert [topology.kind_of(each) for each in ("laptop/ann@x", "cronjob/x@y", "address/others")] == [
        "laptop",
        "cronjob",
        "address",
    ]


def test_what_a_laptop_serves_goes_on_to_it() -> None:
    there = Topology(1000.0)
    there.add(1000.0, Hop("deployment/a", "deployment/b", "laptop/ann@x", False, 2000))
    there.add(1001.0, Hop("deployment/a", "deployment/b", None, True, 2000))
    edges = of(there.edges(1002.0))
    assert edges.keys() == {("deployment/a", "deployment/b"), ("deployment/b", "laptop/ann@x")}
    assert edges["deployment/a", "deployment/b"][:2] == (1.0, 0.5)
    assert edges["deployment/b", "laptop/ann@x"][:2] == (0.5, 0.0)
    assert set(there.nodes) == {"deployment/a", "deployment/b", "laptop/ann@x"}


def test_a_minute_later_nothing_is_left() -> None:
    there = Topology(5.0)
    there.add(5.0, Hop("deployment/a", "deployment/b", None, False, 1))
    assert there.edges(59.9)
    assert there.edges(60.0) == []
    assert list(there.nodes) == []
    assert there._groups.total() == 0


names = st.sampled_from(["deployment/a", "deployment/b", "statefulset/db", "address/1.1.1.1", "workload/others"])
hops = st.builds(
    Hop, names, names, st.sampled_from([None, None, "laptop/ann@x"]), st.booleans(), st.integers(0, 1 << 30)
)
steps = st.lists(st.tuples(st.floats(0, 25), hops), min_size=1, max_size=60)


@settings(deadline=None)  # up to 60 looks at up to 60 requests: long where others work, too
@given(st.floats(0, 1e6), steps)
def test_it_counts_what_a_list_of_all_requests_has(begin: float, steps: list[tuple[float, Hop]]) -> None:
    there, now, everything = Topology(begin), begin, []
    for pause, seen in steps:
        now += pause
        there.add(now, seen)
        everything.append((now, seen))
        found = of(there.edges(now))
        oldest = (now // SLOT_SECONDS - SLOTS + 1) * SLOT_SECONDS
        wanted: dict[tuple[str, str], list[Hop]] = defaultdict(list)
        for at, each in everything:
            if at // SLOT_SECONDS * SLOT_SECONDS >= oldest:
                wanted[each.source, each.target].append(each)
                if each.laptop is not None:
                    wanted[each.target, each.laptop].append(each)
        assert found.keys() == wanted.keys()
        covered = max(1.0, now - max(begin, oldest))
        for ends, them in wanted.items():
            rate, errors, p50_ms = found[ends]
            assert rate == pytest.approx(len(them) / covered)
            assert errors == pytest.approx(sum(each.failed for each in them) / len(them))
            durations = sorted(min(max(each.duration, 16), 1 << 27) / 1000 for each in them)
            low, high = statistics.median_low(durations), statistics.median_high(durations)
            assert low / 1.2 <= p50_ms <= high * 1.2
        assert set(there.nodes) == {node for ends in wanted for node in ends}
    assert there.uncounted == 0


@given(st.integers(20, 100_000_000), st.integers(1, 200))
def test_the_median_of_equal_durations_is_that_duration(duration: int, count: int) -> None:
    there = Topology(0.0)
    for _ in range(count):
        there.add(0.0, Hop("deployment/a", "deployment/b", None, False, duration))
    assert there.edges(1.0)[0].p50_ms == pytest.approx(duration / 1000, rel=0.11)


numbers = st.integers(0, 2000)
many = st.builds(
    Hop,
    numbers.map("deployment/{}".format) | numbers.map("address/{}".format),
    numbers.map("deployment/{}".format),
    st.none() | numbers.map("laptop/{}".format),
    st.booleans(),
    st.integers(0, 1 << 40),
)


@settings(deadline=None)  # as above
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.0, 0.1, 30.0]), many), max_size=600))
def test_bounds_hold_and_all_is_released(steps: list[tuple[float, Hop]]) -> None:
    there, now = Topology(0.0), 0.0
    for pause, seen in steps:
        now += pause
        there.add(now, seen)
    edges = there.edges(now)
    nodes = set(there.nodes)
    assert len(edges) <= MAX_EDGES
    assert nodes == {node for each in edges for node in (each.source, each.target)}
    own = [each for each in nodes if not each.endswith("/others")]
    assert sum(each.startswith("deployment/") for each in own) <= MAX_WORKLOADS
    assert sum(each.startswith("address/") for each in own) <= MAX_ADDRESSES
    assert sum(each.startswith("laptop/") for each in own) <= MAX_LAPTOPS
    there.edges(now + 100)
    assert (there._edges, there._uses, there._groups.total()) == ({}, {}, 0)


def full() -> Topology:
    """As many edges as there may be, of 200 workloads."""
    there = Topology(0.0)
    for number in range(MAX_EDGES):
        there.add(
            0.0, Hop(f"deployment/{number // 5}", f"deployment/{(number * 7 + number // 5) % 200}", None, False, 9)
        )
    return there


def test_more_edges_are_counted_and_the_others_go_on() -> None:
    there = Topology(0.0)
    for number in range(MAX_EDGES + 10):
        there.add(0.0, Hop(f"deployment/{number % 100}", f"statefulset/{number // 100}", None, False, 9))
    assert (len(there.edges(1.0)), there.uncounted) == (MAX_EDGES, 10)
    there.add(1.0, Hop("deployment/0", "statefulset/0", None, False, 9))
    assert there.uncounted == 10
    assert of(there.edges(1.0))["deployment/0", "statefulset/0"][0] == 2


def test_the_201st_workload_is_among_the_others() -> None:
    there = Topology(0.0)
    for number in range(MAX_WORKLOADS + 20):
        there.add(0.0, Hop(f"deployment/{number}", "deployment/0", None, False, 9))
    assert of(there.edges(1.0))["workload/others", "deployment/0"][0] == 20
    assert len(set(there.nodes)) == MAX_WORKLOADS + 1


def size(value: Any, known: set[int]) -> int:
    """Bytes of it and what it refers to."""
    if id(value) in known:
        return 0
    known.add(id(value))
    found = sys.getsizeof(value)
    if isinstance(value, dict):
        found += sum(size(each, known) for pair in value.items() for each in pair)
    elif isinstance(value, list | tuple):
        found += sum(size(each, known) for each in value)
    elif hasattr(value, "__slots__"):
        found += sum(size(getattr(value, name), known) for name in value.__slots__)
    return found


def test_memory_depends_on_the_bounds_alone() -> None:
    there = Topology(0.0)
    for number in range(MAX_EDGES * SLOTS * 5):
        edge, slot = number % MAX_EDGES, number // (MAX_EDGES * 5)
        there.add(slot * SLOT_SECONDS, Hop(f"deployment/{edge % 100}", f"job/{edge // 100}", None, False, number))
    assert len(there.edges(SLOTS * SLOT_SECONDS - 1)) == MAX_EDGES
    assert size(there._edges, set()) < 5 << 20


def test_a_record_costs_the_same_however_many_there_were() -> None:
    """2,000 a second have to be next to nothing; here is room for a busy machine."""

    def cost(there: Topology, now: float) -> float:
        begin = time.process_time()
        for number in range(20_000):
            there.add(now, Hop(f"deployment/{number % 100}", f"deployment/{number % 7}", None, False, number))
        return (time.process_time() - begin) / 20_000

    fresh, loaded = Topology(0.0), full()
    cost(loaded, 1.0)
    assert min(cost(loaded, 1.0) for _ in range(3)) < 3 * min(cost(fresh, 1.0) for _ in range(3))
