"""Bytes shown to a follower in pieces, and what it made of them, told by place."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from meshdev.sidecar.passthrough.http1 import Body, Raw, RequestFollower, RequestHead, ResponseFollower, ResponseHead

Follower = RequestFollower | ResponseFollower


class Seen(NamedTuple):
    """What a follower said: *events* by the place where they begin, *bytes* as a caller would pass them on."""

    events: list[tuple[int, str]]
    bytes: bytes
    heads: list[RequestHead | ResponseHead]
    raw: Raw | None


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """Pieces of *data*."""
    last = 0
    for place in (*sorted(places), len(data)):
        if last < min(place, len(data)):
            yield data[last:place]
            last = place


def request(method: bytes = b"GET") -> RequestHead:
    """A request that is complete."""
    event, _ = RequestFollower().next(b"%b / HTTP/1.1\r\n\r\n" % method)
    assert isinstance(event, RequestHead)
    return event


def answering(*methods: bytes) -> ResponseFollower:
    """A follower of the answers to these requests."""
    follower = ResponseFollower()
    for method in methods:
        assert follower.expect(request(method))
    return follower


def follow(follower: Follower, pieces: Iterable[bytes]) -> Seen:
    """Show all of it. Bodies in several pieces count as one event."""
    seen = Seen([], b"", [], None)
    for piece in pieces:
        at = 0
        while at < len(piece):
            event, end = follower.next(piece, at)
            assert at <= end <= len(piece)
            assert end > at or isinstance(event, Raw), "no event takes nothing"
            if isinstance(event, RequestHead | ResponseHead):
                seen.events.append((len(seen.bytes), f"head {event.length}"))
                seen.heads.append(event)
                seen = seen._replace(bytes=seen.bytes + event.raw)
            elif isinstance(event, Body):
                if not seen.events or seen.events[-1][1] != "body":
                    seen.events.append((len(seen.bytes), "body"))
                seen = seen._replace(bytes=seen.bytes + piece[at:end])
                if event.last:
                    seen.events.append((len(seen.bytes), "end"))
            elif isinstance(event, Raw):
                assert seen.raw is None
                assert follower.raw == event.reason
                seen.events.append((len(seen.bytes), event.reason))
                seen = seen._replace(bytes=seen.bytes + event.held, raw=event)
            elif follower.raw is not None:
                seen = seen._replace(bytes=seen.bytes + piece[at:end])
            at = end
    return seen


def said(follower: Follower, *pieces: bytes) -> list[str]:
    """The events of *pieces*, without their places."""
    return [what for _, what in follow(follower, pieces).events]
