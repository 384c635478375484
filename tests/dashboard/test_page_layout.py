"""Where workloads stand: layout.js, in the browser."""

from typing import Any

import pytest

from tests.dashboard.page import Page

#: Takes steps of [node ids, [[from, to], …]]; gives the rows of nodes after each, and of all the places after the last.
LAYOUT = """
const { Layout, WIDTH, HEIGHT } = await import("/layout.js");
const layout = new Layout();
const rows = [];
const start = performance.now();
for (const [nodes, calls] of given[0]) {
  layout.update(nodes.map((id) => ({ id })), calls.map(([from, to], rank) => ({ from, to, rate: 1000 - rank })));
  rows.push(layout.rows.map((row) => row.filter((id) => nodes.includes(id))));
}
const took = performance.now() - start;
const drawn = [[false, 2], [true, 2], [true, 1]].map(([down, across]) => {
  const { places, width, height } = layout.place(down, across);
  return { places: given[0].at(-1)[0].map((id) => [places.get(id).x, places.get(id).y]), width, height };
});
return { rows, drawn, took, idle: layout.idle, calls: layout.calls.size, size: [WIDTH, HEIGHT] };
"""

Step = tuple[list[str], list[tuple[str, str]]]


@pytest.fixture
def lay(page: Page) -> Any:
    page.open()
    return lambda *steps: page.wait_for_script(LAYOUT, steps)


def of(calls: str) -> Step:
    """``"a>b b>c"``"""
    pairs = [(each[0], each[-1]) for each in calls.split()]
    return sorted({name for pair in pairs for name in pair}), [pair for pair in pairs if pair[0] != pair[1]]


def test_callers_stand_before_those_whom_they_call(lay: Any) -> None:
    assert lay(of("a>b b>c a>c c>d"))["rows"] == [[["a"], ["b"], ["c"], ["d"]]]


def test_a_circle_is_opened_where_it_is_least_busy(lay: Any) -> None:
    assert lay(of("a>b b>c c>a"))["rows"] == [[["a"], ["b"], ["c"]]]


def test_who_calls_nobody_stands_apart(lay: Any) -> None:
    found = lay(of("a>b z>z"))
    assert (found["rows"], found["idle"]) == ([[["a"], ["b"]]], ["z"])


def test_lines_do_not_cross_where_they_need_not(lay: Any) -> None:
    assert lay(of("a>y b>x a>p b>q"))["rows"] == [[["a", "b"], ["p", "y", "q", "x"]]]


def test_the_others_keep_their_order_when_one_comes(lay: Any) -> None:
    first, second = lay(of("a>y b>x c>z"), of("a>y b>x c>z b>n"))["rows"]
    assert [each for each in second[1] if each != "n"] == first[1]
    assert abs(second[1].index("n") - second[1].index("x")) == 1


def test_a_better_order_is_no_reason_to_move(lay: Any) -> None:
    first, second = lay(of("a>y b>x c>z"), of("a>y b>x c>z b>y c>y b>z"))["rows"]
    (alone,) = lay(of("a>y b>x c>z b>y c>y b>z"))["rows"]
    assert first == second != alone


def test_nothing_moves_while_there_are_no_calls(lay: Any) -> None:
    nodes, calls = of("a>y b>x c>z")
    first, second, third = lay((nodes, calls), (nodes, []), (nodes, calls))["rows"]
    assert first == second == third


def test_one_that_is_gone_leaves_its_calls_behind(lay: Any) -> None:
    assert lay(of("a>b b>c"), of("b>c"))["rows"][-1] == [["b"], ["c"]]


def test_a_large_circle_of_all(lay: Any) -> None:
    """200 nodes, 1,000 calls in all directions; at once, without one above another."""
    names = [f"n{each}" for each in range(200)]
    calls = [(names[each], names[(each * step + 1) % 200]) for each in range(200) for step in (1, 3, 7, 11, 17)]
    found = lay((names, calls))
    assert found["took"] < 500
    assert len(found["rows"][0]) <= 9
    width, height = found["size"]
    for drawn in found["drawn"]:
        assert len({(x, y) for x, y in drawn["places"]}) == 200
        assert all(0 <= x <= drawn["width"] - width and 0 <= y <= drawn["height"] - height for x, y in drawn["places"])


def test_calls_that_come_and_go_without_end_are_forgotten(lay: Any) -> None:
    """Somebody makes up other clients all the time: what is not there any more does not slow the page down."""
    names = [f"n{each:03d}" for each in range(100)]
    pairs = [(a, b) for a in names for b in names if a < b]
    steps = [(names, pairs[start : start + 900]) for start in range(0, 4500, 900)]
    found = lay(*steps, (names, [("n098", "n099")]))
    assert found["took"] < 3000
    assert found["calls"] == 2000
