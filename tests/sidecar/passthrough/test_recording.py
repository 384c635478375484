"""What is recorded of requests, and that recording changes nothing of what is sent."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.sidecar.passthrough.heads import Reason
from meshdev.sidecar.passthrough.http1 import RequestFollower, RequestHead, ResponseFollower
from meshdev.sidecar.passthrough.recording import RecordingSwitch
from tests.sidecar.passthrough.asked import Vocabulary
from tests.sidecar.passthrough.switching import OK, World, get, post


@dataclass
class Record:
    """Of one request."""

    target: bytes
    status: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    ended: int = 0

    def end(self) -> None:
        self.ended += 1

    @property
    def seen(self) -> tuple[int, int, int, int]:
        return self.status, self.request_bytes, self.response_bytes, self.ended


@dataclass
class Recorded(World):
    """The world of a switch, with what is recorded."""

    records: list[Record] = field(default_factory=list)
    rest: list[Reason | None] = field(default_factory=list)
    skips: bytes = b"/skipped"

    def __post_init__(self) -> None:
        self.switch: RecordingSwitch = RecordingSwitch(self, self, whole=self.whole)

    def record(self, head: RequestHead) -> Record | None:
        if head.target == self.skips:
            return None
        self.records.append(Record(head.target))
        return self.records[-1]

    def record_rest(self, reason: Reason | None) -> None:
        self.rest.append(reason)

    @property
    def seen(self) -> list[tuple[int, int, int, int]]:
        return [record.seen for record in self.records]

    @property
    def plain(self) -> bool:
        """Whether both followers are plain ones."""
        switch = self.switch
        return (type(switch._requests), type(switch._responses)) == (RequestFollower, ResponseFollower)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"


def watched() -> Recorded:
    return Recorded(watched=True)


def test_nothing_is_recorded_while_nobody_watches() -> None:
    world = Recorded()
    world.switch.from_client(get() + post(b"abc"))
    world.switch.from_app(OK + OK)
    assert (world.records, world.rest, world.plain) == ([], [], True)


class Asked(Recorded):
    """How often the switch wants to know whether somebody watches."""

    asked = 0

    @property
    def watched(self) -> bool:
        self.asked += 1
        return False

    @watched.setter
    def watched(self, value: bool) -> None:
        """It is not."""


def test_whether_somebody_watches_is_asked_once_for_each_request_and_nothing_else_happens() -> None:
    world = Asked()
    for number in range(1, 11):
        for piece in (post(b"x" * 100)[:-60], b"x" * 30, b"x" * 30):
            world.comes("client", piece, unseen=True)
        for piece in (CHUNKED, CHUNKS):
            world.comes("app", piece, unseen=True)
        assert (world.asked, world.plain) == (number, True)
    world.switch.from_client(get(claimed=True))
    world.switch.from_envoy(OK)
    assert world.asked == 10
    world.switch.from_client(get() * 10)
    world.switch.from_app(OK * 10)
    assert world.asked == 20


@pytest.mark.parametrize(
    ("request_", "response", "seen"),
    [
        (get(), OK, (200, 0, 2, 1)),
        (post(b"abc"), OK, (200, 3, 2, 1)),
        (get(), b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", (404, 0, 0, 1)),
        (get(), b"HTTP/1.1 204 No\r\n\r\n", (204, 0, 0, 1)),
        (get(), b"HTTP/1.1 304 Not\r\nContent-Length: 20\r\n\r\n", (304, 0, 0, 1)),
        (get(), CHUNKED + CHUNKS, (200, 0, len(CHUNKS), 1)),
        (get(), b"HTTP/1.1 103 Hints\r\n\r\n" + OK, (200, 0, 2, 1)),
        (get().replace(b"GET", b"HEAD"), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", (200, 0, 0, 1)),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
            OK,
            (200, len(CHUNKS), 2, 1),
        ),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 9999])
@pytest.mark.parametrize("unseen", [False, True])
def test_one_request(
    request_: bytes, response: bytes, seen: tuple[int, int, int, int], size: int, unseen: bool
) -> None:
    world = watched()
    for _ in range(2):  # also the next one of the same connection
        world.records.clear()
        for at in range(0, len(request_), size):
            world.comes("client", request_[at : at + size], unseen=unseen)
        for at in range(0, len(response), size):
            assert [record.ended for record in world.records] == [0]
            world.comes("app", response[at : at + size], unseen=unseen)
        assert world.seen == [seen]
        assert world.plain, "it costs nothing any more"
    assert (world.sent["app"], world.sent["client"]) == (request_ * 2, response * 2)


def test_pipelined_requests_some_of_which_are_not_recorded() -> None:
    world = watched()
    skipped = get().replace(b"/ ", b"/skipped ")
    world.switch.from_client(get() + skipped + post(b"abcd") + skipped + get())
    world.switch.from_app(OK + CHUNKED + CHUNKS + b"HTTP/1.1 201 Made\r\nContent-Length: 1\r\n\r\n.")
    assert world.seen == [(200, 0, 2, 1), (201, 4, 1, 1), (0, 0, 0, 0)]
    world.switch.from_app(OK + b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    assert world.seen[2] == (500, 0, 0, 1)
    assert world.plain


def test_claimed_requests_are_not_recorded_unless_envoy_is_not_there() -> None:
    world = watched()
    world.switch.from_client(get(claimed=True))
    world.switch.from_envoy(OK)
    assert world.records == []
    world.switch.from_client(get() + get(claimed=True))
    world.switch.from_app(OK)
    world.switch.from_envoy(OK)
    assert world.seen == [(200, 0, 2, 1)]
    world = Recorded(watched=True, envoy_up=False)
    world.switch.from_client(post(b"abc", claimed=True))
    world.switch.from_app(OK)
    world.switch.from_client(get() + get(claimed=True))
    world.switch.from_app(OK)
    world.switch.from_app(OK)
    assert world.seen == [(200, 3, 2, 1), (200, 0, 2, 1), (200, 0, 2, 1)]


def test_what_is_not_followed_any_more_is_the_owner_s_to_finish() -> None:
    world = watched()
    world.switch.from_client(get())
    world.switch.from_app(b"HTTP/1.0 206 OK\r\n\r\nuntil the end")
    assert (world.seen, world.rest) == ([(206, 0, 13, 0)], ["until-close"])


def test_an_upgrade() -> None:
    world = watched()
    world.switch.from_client(get(more=b"Connection: Upgrade\r\nUpgrade: websocket\r\n"))
    world.switch.from_app(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\nfirst")
    assert (world.seen, world.rest) == ([(101, 0, 5, 0)], ["upgraded"])


def test_an_answer_before_the_body_has_come() -> None:
    world = watched()
    world.switch.from_client(post(b"x" * 100)[:-60])
    world.switch.from_app(b"HTTP/1.1 413 No\r\nContent-Length: 3\r\n\r\nno.")
    assert (world.seen, world.rest) == ([(413, 40, 3, 0)], ["early-response"])


@pytest.mark.parametrize(
    ("client", "reason"),
    [(b"X / HTTP/1.1\r\nX : 1\r\n\r\n", "blank-before-colon"), (b"\x16\x03\x01", "other"), (b"CONNECT b:1 ", None)],
)
def test_bytes(client: bytes, reason: Reason | None) -> None:
    world = watched()
    world.switch.from_client(client)
    assert (world.records, world.rest) == ([], [reason] if reason else [])


def test_ends_that_are_orderly_have_no_reason() -> None:
    world = watched()
    world.switch.from_client(get())
    world.switch.client_ended()
    assert (world.seen, world.rest) == ([(0, 0, 0, 0)], [None])


def test_a_watch_that_ends_leaves_plain_followers() -> None:
    world = watched()
    world.switch.from_client(post(b"x" * 100)[:-60])
    assert not world.plain
    world.watched = False
    world.switch.end_recording()
    assert world.plain
    world.switch.from_client(b"x" * 60 + get())
    world.switch.from_app(OK + OK)
    assert (world.seen, world.sent["client"]) == ([(0, 40, 0, 0)], OK + OK)


_RESPONSES = (
    *(OK, CHUNKED + CHUNKS, b"HTTP/1.1 204 No\r\n\r\n", b"HTTP/1.1 100 Go\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nend"),
    *(b"HTTP/1.1 101 S\r\n\r\n", b"garbage", b"HTTP/1.1 408 T\r\nContent-Length: 0\r\n\r\n"),
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
)


class Both:
    """A switch that nobody watches, and one that is watched now and then."""

    def __init__(self, stream: bytes) -> None:
        self.plain, self.recorded = World(), Recorded(skips=b"/a")
        self.worlds: tuple[World, World] = (self.plain, self.recorded)
        self.stream = stream

    def client(self, size: int) -> None:
        piece, self.stream = self.stream[:size], self.stream[size:]
        for world in self.worlds:
            if piece and world.switch.reading:
                world.comes("client", piece, unseen=True)

    def answer(self, response: bytes) -> None:
        for world in self.worlds:
            world.comes("envoy" if world.switch._at_envoy else "app", response, unseen=True)

    def watch(self) -> None:
        self.recorded.watched = not self.recorded.watched
        if not self.recorded.watched:
            self.recorded.switch.end_recording()

    def late(self) -> None:
        for world in self.worlds:
            world.switch.late()

    def end(self) -> None:
        for world in self.worlds:
            world.switch.client_ended()

    def compare(self) -> None:
        one, other = self.worlds
        assert (one.sent, one.log, one.reasons) == (other.sent, other.log, other.reasons)
        assert (one.switch.reading, one.switch.held) == (other.switch.reading, other.switch.held)
        assert all(record.ended <= 1 for record in self.recorded.records)


@given(st.integers(0, 1 << 32), st.data())
def test_what_is_sent_and_decided_is_the_same(seed: int, data: st.DataObject) -> None:
    """Whatever comes, in whatever pieces, with a watch that begins and ends at any time."""
    draw = Vocabulary(seed)
    both = Both(b"".join(draw.bodied(draw.one(("/a", "/b")))[0] if draw.rarely(2) else draw.head() for _ in range(4)))
    steps: list[Callable[[], None]] = [
        *[lambda: both.client(data.draw(st.integers(1, 400)))] * 3,
        *[lambda: both.answer(data.draw(st.sampled_from(_RESPONSES)))] * 3,
        both.watch,
        both.late,
    ]
    for _ in range(data.draw(st.integers(1, 15))):
        data.draw(st.sampled_from(steps))()
        both.compare()
    both.end()
    both.compare()
