"""What counts as an outage, and as a lie about it."""

import json

from tests.e2e.chaos import Story, outages
from tests.e2e.loops import Try


def tries(text: str) -> list[Try]:
    """A letter a second, from 0: "." went well, "x" failed."""
    return [Try(start, start + 0.5, "0" if letter == "." else "no") for start, letter in enumerate(text)]


def statuses(text: str) -> list[Try]:
    """A letter a second: c(onnected), d(egraded)."""
    names = {"c": "connected", "d": "degraded"}
    return [Try(start, start + 0.1, json.dumps({"state": names[letter]})) for start, letter in enumerate(text)]


def test_outages() -> None:
    assert outages(tries("")) == []
    assert outages(tries("..x..")) == []
    assert outages(tries("..xx..xxx")) == [(2, 3), (6, 8)]


def test_lies() -> None:
    broken = tries("..xxxxxxxx....")
    assert Story(probes={"name": broken}, statuses=statuses("ccccccdddddddd")).lies() == []
    assert len(Story(probes={"name": broken}, statuses=statuses("cccccccddddddd")).lies()) == 1
    assert len(Story(probes={"name": broken}, statuses=statuses("cccccccccccccc")).lies()) == 1
    assert Story(probes={"name": tries("." * 14)}, statuses=statuses("c" * 14)).lies() == []
