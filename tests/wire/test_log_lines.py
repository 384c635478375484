"""Lines of logs: their times, whatever the zone, and their order."""

from datetime import UTC, timedelta, timezone

import pytest

from meshdev.wire.log_lines import MAX_LOG_LINE, LogLine, LogSplitter, in_order, of_container, of_file, since

EAST = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("line", "time", "text"),
    [
        ("2026-11-29T19:15:34.5Z up", "2026-11-29T19:15:34.500000000Z", "up"),
        ("2026-11-29T21:15:34.123456789+02:00 up", "2026-11-29T19:15:34.123456789Z", "up"),
        ("2026-11-29T19:15:34Z", "2026-11-29T19:15:34.000000000Z", ""),
        ("2026-11-29T19:15:34Z   indented", "2026-11-29T19:15:34.000000000Z", "  indented"),
        ("2026-99-29T19:15:34Z up", None, "2026-99-29T19:15:34Z up"),
        ("unable to retrieve container logs", None, "unable to retrieve container logs"),
        ("", None, ""),
    ],
)
def test_the_kubelet_puts_the_time_before_a_line(line: str, time: str | None, text: str) -> None:
    assert of_container("b/meshdev-1", line) == LogLine(time, "b/meshdev-1", text)


@pytest.mark.parametrize(
    ("line", "time"),
    [
        ("2026-11-29 21:15:34,123 INFO meshdev.session: up", "2026-11-29T19:15:34.123000000Z"),
        ("2026-11-31 21:15:34,123 INFO no such day", None),
        ("sudo: a password is required", None),
        ("  File x, line 3", None),
    ],
)
def test_files_have_the_local_time(line: str, time: str | None) -> None:
    assert of_file("session", line, EAST) == LogLine(time, "session", line)


def test_without_a_zone_it_is_this_machines() -> None:
    assert of_file("session", "2026-11-29 12:00:00,000 x").time is not None
    assert of_file("session", "2026-11-29 12:00:00,000 x", UTC).time == "2026-11-29T12:00:00.000000000Z"


def at(second: int | None, text: str, source: str = "a") -> LogLine:
    return LogLine(None if second is None else f"2026-11-29T19:15:{second:02}.000000000Z", source, text)


def test_logs_are_merged_by_time_and_a_traceback_stays_together() -> None:
    ours = [at(1, "begins"), at(5, "fails"), at(None, "  Traceback"), at(None, "  ValueError"), at(9, "ends")]
    other = [at(2, "two", "b"), at(5, "five", "b"), at(7, "seven", "b")]
    merged = in_order([ours, other])
    assert [each.line for each in merged] == [
        *("begins", "two", "fails", "  Traceback", "  ValueError", "five", "seven", "ends"),
    ]


def test_a_clock_that_is_set_back_does_not_change_a_logs_own_order() -> None:
    log = [at(5, "first"), at(1, "second"), at(6, "third")]
    assert in_order([log]) == log


def test_since() -> None:
    log = [at(None, "before all"), at(1, "old"), at(None, "of the old one"), at(5, "new"), at(None, "of the new one")]
    earliest = at(5, "").time or ""
    assert [each.line for each in since(log, earliest)] == ["new", "of the new one"]


def test_lines_are_complete_whatever_the_pieces() -> None:
    data = "größe\r\n\nlast".encode()
    for cut in range(len(data)):
        splitter = LogSplitter()
        found = splitter.feed(data[:cut]) + splitter.feed(data[cut:])
        assert (found, splitter.last()) == (["größe", ""], ["last"])
        assert splitter.last() == []


def test_a_line_without_an_end_is_cut() -> None:
    splitter = LogSplitter()
    for _ in range(40):
        assert splitter.feed(b"x" * 4096) == []
    (line,) = splitter.feed(b"x\n")
    assert len(line) == MAX_LOG_LINE


def test_what_is_no_text_is_no_reason_to_fail() -> None:
    assert LogSplitter().feed(b"\xff\x00\x1b[31m\n") == ["�\\x00\x1b[31m"]
