"""What followers cost: bytes looked at or copied, counted, are linear in the bytes shown, however small the pieces."""

import re
import sys
from collections.abc import Iterable
from typing import Any

import pytest

from meshdev.sidecar.passthrough import chunks, heads, http1
from meshdev.sidecar.passthrough.heads import HEAD_BYTES
from meshdev.sidecar.passthrough.http1 import RequestFollower, RequestHead
from tests.sidecar.passthrough.following import answering, cut, follow

#: Looks at each byte: for the head's end, its syntax, lines and framing, copies of it; 12 bytes of a first line anew.
MOST = 32


class Cost:
    """Counts."""

    def __init__(self) -> None:
        self.bytes = 0


class Pattern:
    """An expression that counts how far it looks; at the worst where it finds nothing."""

    def __init__(self, pattern: re.Pattern[bytes], cost: Cost) -> None:
        self._pattern = pattern
        self._cost = cost

    def _count(self, found: re.Match[bytes] | None, data: bytes, at: int, end: int) -> re.Match[bytes] | None:
        self._cost.bytes += (min(end, len(data)) if found is None else found.end()) - at + 1
        return found

    def match(self, data: bytes, at: int = 0, end: int = sys.maxsize) -> re.Match[bytes] | None:
        return self._count(self._pattern.match(data, at, end), data, at, end)

    def fullmatch(self, data: bytes, at: int = 0, end: int = sys.maxsize) -> re.Match[bytes] | None:
        return self._count(self._pattern.fullmatch(data, at, end), data, at, end)

    def search(self, data: bytes, at: int = 0, end: int = sys.maxsize) -> re.Match[bytes] | None:
        return self._count(self._pattern.search(data, at, end), data, at, end)

    def findall(self, data: bytes) -> list[Any]:
        self._cost.bytes += len(data)
        return self._pattern.findall(data)


def _finding(kind: type[Any], cost: Cost) -> type[Any]:
    """Bytes that count what is looked for in them, and what is added to them."""

    class Finding(kind):  # type: ignore[misc] # of bytes and of bytearray alike
        __slots__ = ()

        def find(self, what: bytes, start: int = 0, end: int = sys.maxsize) -> int:
            place: int = kind.find(self, what, start, end)
            cost.bytes += (place + len(what) if place >= 0 else min(end, len(self))) - start
            return place

        def __iadd__(self, more: bytes) -> Any:
            cost.bytes += len(more)
            return super().__iadd__(more)

    return Finding


def _counting(syntax: heads.Syntax, cost: Cost) -> heads.Syntax:
    def counted(pattern: re.Pattern[bytes]) -> Any:
        return Pattern(pattern, cost)

    steps = tuple(step._replace(pattern=counted(step.pattern)) for step in syntax.steps)
    return syntax._replace(whole=counted(syntax.whole), steps=steps)


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> Cost:
    cost = Cost()
    for module in (heads, chunks, http1):
        for name, value in vars(module).copy().items():
            if isinstance(value, re.Pattern):
                monkeypatch.setattr(module, name, Pattern(value, cost))
            elif isinstance(value, heads.Syntax):
                monkeypatch.setattr(http1, name, _counting(value, cost))
    monkeypatch.setattr(heads, "bytearray", _finding(bytearray, cost), raising=False)
    return cost


LONG = HEAD_BYTES - 100
POST = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
DEAR = {
    "target": b"GET /%b HTTP/1.1\r\n\r\n" % (b"x" * LONG),
    "method": b"%b / HTTP/1.1\r\n\r\n" % (b"x" * LONG),
    "one line": b"GET / HTTP/1.1\r\nA: %b\r\n\r\n" % (b"x" * LONG),
    "many lines": b"GET / HTTP/1.1\r\n%b\r\n" % (b"a:\r\n" * (LONG // 4)),
    "a name": b"GET / HTTP/1.1\r\n%b: \r\n\r\n" % (b"x" * LONG),
    "nearly an end": b"GET / HTTP/1.1\r\nA: %b" % (b"\r\nA:" * (LONG // 4)),
    "no end": b"x" * 3 * LONG,
    "framing": b"GET / HTTP/1.1\r\n%b\r\n" % (b"connection:,\r\n" * (LONG // 14)),
    "small requests": b"GET / HTTP/1.1\r\n\r\n" * 3000,
    "small chunks": POST + b"1\r\nx\r\n" * 10000 + b"0\r\n\r\n",
    "extensions": POST + b"1;%b\r\nx\r\n" % (b"e" * 4000) * 15 + b"0\r\n\r\n",
    "trailers": POST + b"0\r\n" + b"a:b\r\n" * 10000 + b"\r\n",
    "a long trailer": POST + b"0\r\na:%b\r\n\r\n" % (b"x" * LONG),
}


def pieces(data: bytes, size: int, cost: Cost) -> Iterable[bytes]:
    kind = _finding(bytes, cost)
    return (kind(piece) for piece in cut(data, range(0, len(data), size)))


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
@pytest.mark.parametrize("name", DEAR)
def test_requests_cost_what_they_are_long(cost: Cost, name: str, size: int) -> None:
    data = DEAR[name]
    seen = follow_quickly(RequestFollower(), pieces(data, size, cost))
    assert cost.bytes <= MOST * len(data)
    assert cost.bytes >= seen // 2, "nothing was counted"


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_responses_cost_what_they_are_long(cost: Cost, size: int) -> None:
    for data in (
        b"HTTP/1.1 200 %b\r\nContent-Length: 0\r\n\r\n" % (b"x" * LONG),
        b"HTTP/1.1 200\r\n%b\r\n" % (b"a:\r\n" * (LONG // 4)),
        b"HTTP/1.1 100\r\n\r\n" * 4000,
    ):
        cost.bytes = 0
        follow_quickly(answering(b"GET"), pieces(data, size, cost))
        assert len(data) <= cost.bytes <= MOST * len(data)


def follow_quickly(follower: Any, shown: Iterable[bytes]) -> int:
    """Show all of it. The bytes that were taken before it became raw."""
    taken = 0
    for piece in shown:
        at = 0
        while at < len(piece):
            _, at = follower.next(piece, at)
        taken += len(piece) if follower.raw is None else 0
    return taken


def test_what_is_kept_is_bounded() -> None:
    """Of bodies nothing, of heads no more than one of them may have."""
    follower = RequestFollower()
    for data in (*DEAR.values(), b"POST / HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n" + bytes(1 << 20)):
        follower = RequestFollower()
        follow(follower, cut(data, range(0, len(data), 50_000)))
        assert follower.held <= HEAD_BYTES


def test_a_head_alone_in_its_piece_is_not_copied() -> None:
    data = b"GET / HTTP/1.1\r\n\r\n"
    head, _ = RequestFollower().next(data)
    assert isinstance(head, RequestHead)
    assert head.raw is data
