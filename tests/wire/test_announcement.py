"""The announcement in an agent's log, and what is exchanged on its port: literal, in pieces, among noise, hostile."""

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.wire.announcement import (
    REPLY_SIZE,
    REQUEST,
    Announcement,
    AnnouncementReader,
    assigned_port,
    parse_line,
    parse_reply,
    reply,
)

TOKEN = "5f" * 32
LINE = b"meshdev-agent/1 token-port=16200"
NOISE = st.lists(st.binary(max_size=300).map(lambda line: line.replace(b"\n", b"").replace(b"meshdev-agent/", b"")))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def test_literal() -> None:
    assert str(Announcement(16200)).encode() == LINE
    assert parse_line(LINE) == Announcement(16200)
    assert parse_line(LINE + b" color=blue") == Announcement(16200), "it may grow"
    assert REQUEST == b"meshdev-agent/1 token\n"
    assert reply(TOKEN) == b"meshdev-agent/1 token " + TOKEN.encode() + b"\n"
    assert len(reply(TOKEN)) == REPLY_SIZE


@given(NOISE, NOISE, st.integers(1, 65535), st.lists(st.integers(0, 1 << 16)))
def test_it_is_found_among_noise_however_it_arrives(
    before: list[bytes], after: list[bytes], port: int, cuts: list[int]
) -> None:
    log = b"\n".join([*before, str(Announcement(port)).encode(), *after]) + b"\n"
    reader = AnnouncementReader()
    assert [found for piece in pieces(log, cuts) if (found := reader.feed(piece))] == [Announcement(port)]


def test_the_newest_of_those_that_arrive_together_counts() -> None:
    other = str(Announcement(16201)).encode()
    assert AnnouncementReader().feed(LINE + b"\n" + other + b"\n") == Announcement(16201)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" " + LINE,
        b"2026-11-28 20:00:00,000 INFO " + LINE,
        b"\r" + LINE,
        LINE + b"\r",
        LINE + b"\0",
        LINE.replace(b"16200", b"0"),
        LINE.replace(b"16200", b"016200"),
        LINE.replace(b"16200", b"65536"),
        LINE.replace(b"16200", b"99999999999999999999"),
        LINE.replace(b"16200", "١٦٢".encode()),
        LINE + b"x",
        LINE.upper(),
        b"meshdev-agent/1 token-port=",
        b"meshdev-agent/1 port=16200",
        b"meshdev-agent/ token-port=16200",
    ],
)
def test_what_is_no_announcement(line: bytes) -> None:
    assert parse_line(line) is None


def test_another_version_is_told() -> None:
    with pytest.raises(ProtocolError, match="announces itself in version 2, this meshdev knows 1"):
        parse_line(b"meshdev-agent/2 quic-port=1")


def test_a_line_without_end_takes_no_memory_and_hides_nothing() -> None:
    reader = AnnouncementReader()
    for _ in range(1000):
        assert reader.feed(b"x" * 10_000) is None
        assert len(reader._line) <= 256
    assert reader.feed(LINE + b"\n") is None, "the end of that line"
    assert reader.feed(LINE + b"\n") == Announcement(16200)


@given(st.lists(st.binary(max_size=400)))
def test_hostile_logs_raise_nothing_but_a_protocol_error(data: list[bytes]) -> None:
    reader = AnnouncementReader()
    with contextlib.suppress(ProtocolError):
        for piece in data:
            reader.feed(piece)
    assert len(reader._line) <= 256


def test_a_token_has_one_form() -> None:
    assert parse_reply(reply(TOKEN)) == TOKEN
    for wrong in ("", TOKEN[1:], TOKEN + "5", TOKEN.upper(), TOKEN[:-1] + "g"):
        with pytest.raises(ValueError, match="64 hexadecimal"):
            reply(wrong)


@given(st.binary(max_size=200) | st.integers(0, REPLY_SIZE).map(lambda size: reply(TOKEN)[:size] + b"x"))
def test_everything_else_is_no_reply(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="is not the agent"):
        parse_reply(data)


@pytest.mark.parametrize(
    ("text", "port"),
    [("16200", 16200), ("16299", 16299), ("16300", 0), ("16199", 0), ("", 0), ("-1", 0), ("016200", 0), ("१६२००", 0)],
)
def test_an_assigned_port_is_one_of_its_range(text: str, port: int) -> None:
    assert assigned_port(text) == port
