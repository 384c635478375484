"""What is kept of an intercept's reports: the newest of each pod, bounded by number and by bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.manager.tunnel import reports as reports_module
from meshdev.manager.tunnel.reports import MAX_BYTES, MAX_REPORTS, Reports
from meshdev.wire.manager import PodReport

ALIAS = "a" * 32


def report(pod: str, body: bytes = b"{}", *, gone: bool = False) -> PodReport:
    return PodReport(ALIAS, pod, gone, body)


def test_the_newest_of_each_pod_is_kept() -> None:
    reports = Reports()
    for each in (report("b-1", b"1"), report("b-2"), report("b-1", b"2")):
        reports.put(each)
    assert list(reports) == [report("b-2"), report("b-1", b"2")]


def test_pods_that_are_gone_make_room_first_then_the_oldest() -> None:
    reports = Reports()
    for number in range(MAX_REPORTS):
        reports.put(report(f"b-{number}", gone=number == 7))
    reports.put(report("new-1"))
    pods = [each.pod for each in reports]
    assert (len(pods), "b-7" in pods, "b-0" in pods) == (MAX_REPORTS, False, True)
    reports.put(report("new-2"))
    assert "b-0" not in [each.pod for each in reports]


def test_long_reports_are_fewer() -> None:
    reports = Reports()
    for number in range(MAX_REPORTS):
        reports.put(report(f"b-{number}", bytes(8192)))
    assert len(reports) == MAX_BYTES // 8192
    assert [each.pod for each in reports][-1] == f"b-{MAX_REPORTS - 1}"


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 60), st.booleans()), max_size=60))
def test_whatever_comes_it_stays_within_its_bounds(items: list[tuple[str, int, bool]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports_module, "MAX_REPORTS", 5)
        patch.setattr(reports_module, "MAX_BYTES", 100)
        reports = Reports()
        newest = {}
        for pod, size, gone in items:
            newest[pod] = report(pod, bytes(size), gone=gone)
            reports.put(newest[pod])
            kept = list(reports)
            assert len(kept) <= 5
            assert sum(len(each.body) for each in kept) <= 100
            assert kept[-1] == newest[pod], "the one that has just come is kept"
            assert all(each == newest[each.pod] for each in kept)
