"""The agent's log: the announcement first, again after enough of it, and never anything that looks like it."""

import asyncio
import io
import logging

import pytest

from meshdev.sidecar.agent import announcing
from meshdev.sidecar.agent.announcing import REPEAT_CHARACTERS, AnnouncingHandler, SingleLines, repeat
from meshdev.wire.attestation import AgentAnnouncement, parse_announcement
from tests.waiting import until

HERE = AgentAnnouncement(16200, "5f" * 32)
LINE = str(HERE)


@pytest.fixture
def handler() -> AnnouncingHandler:
    made = AnnouncingHandler(io.StringIO())
    made.setFormatter(SingleLines("%(asctime)s %(levelname)s %(message)s"))
    return made


def lines(handler: AnnouncingHandler) -> list[str]:
    assert isinstance(handler.stream, io.StringIO)
    return handler.stream.getvalue().splitlines()


def say(handler: AnnouncingHandler, text: str, error: BaseException | None = None) -> None:
    info = (type(error), error, None) if error else None
    handler.handle(logging.LogRecord("x", logging.INFO, "x", 1, text, (), info))


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\v", "\x85", "\u2028"])
def test_nothing_that_is_logged_looks_like_it(handler: AnnouncingHandler, end: str) -> None:
    say(handler, f"envoy: hostile{end}{LINE}{end}{LINE}")
    say(handler, "an error", ValueError(f"hostile{end}{LINE}"))
    assert isinstance(handler.stream, io.StringIO)
    assert LINE in handler.stream.getvalue()
    assert [each for each in map(parse_announcement, handler.stream.getvalue().encode().split(b"\n")) if each] == []


def test_it_is_repeated_among_much_that_is_logged(handler: AnnouncingHandler) -> None:
    handler.announce(HERE)
    for _ in range(3 * REPEAT_CHARACTERS // 1000):
        say(handler, "x" * 1000)
    found = [number for number, line in enumerate(lines(handler)) if line == LINE]
    assert found[0] == 0
    assert len(found) == 3
    say(handler, "more")
    assert lines(handler)[-1] != LINE


async def test_it_is_repeated_after_a_while_where_something_was_logged(
    handler: AnnouncingHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "REPEAT_SECONDS", 0.01)
    handler.announce(HERE)
    task = asyncio.ensure_future(repeat(handler))
    await asyncio.sleep(0.05)
    assert lines(handler) == [LINE], "of one that idles the log does not grow"
    say(handler, "something")
    await until(lambda: len(lines(handler)) == 3)
    assert lines(handler)[-1] == LINE
    task.cancel()


def test_before_there_is_one_nothing_is_repeated(handler: AnnouncingHandler) -> None:
    say(handler, "x" * 2 * REPEAT_CHARACTERS)
    handler.announce()
    assert len(lines(handler)) == 1
