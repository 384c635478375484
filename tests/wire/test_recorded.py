"""Bytes of protocol 2 as they were recorded: what is said stays the same byte for byte, and is understood."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from meshdev.errors import MeshdevError, ProtocolError
from meshdev.wire import agent, control, frames, manager
from meshdev.wire import session_api as api
from meshdev.wire.helper import lines
from meshdev.wire.session_intercepts import LeaveRequest
from tests.wire import examples

RECORDED: Final = {
    name: text.encode()
    for file in sorted((Path(__file__).parent / "recorded").glob("*.txt"))
    for name, _, text in (line.partition(" ") for line in file.read_text().splitlines())
}


def _result(line: bytes, expected: object) -> object:
    kind: Any = type(expected)
    return lines.parse_answer(line, lambda _: kind).result


def _api_answer(line: bytes, expected: object) -> object:
    asked: dict[type, Any] = {api.Status: api.StatusRequest(), tuple: LeaveRequest()}
    try:
        return api.parse_answer(asked.get(type(expected), api.DisconnectRequest()), line)
    except MeshdevError as error:
        return api.Failed.of(error)


def _frame(frame: bytes) -> object:
    return control.decode(frame[0], frame[frames.HEADER_SIZE :])


Encode = Callable[[Any], bytes]
Decode = Callable[[bytes, Any], object]
#: By the group of examples.
CODECS: Final[dict[str, tuple[Encode, Decode]]] = {
    "HELPER_REQUESTS": (lambda it: lines.encode_request(7, it), lambda line, _: lines.parse_request(line)[1]),
    "HELPER_RESULTS": (
        lambda it: lines.encode_answer(lines.HelperAnswer(7, it, 2)),
        _result,
    ),
    "GREETINGS": (lines.encode_greeting, lambda line, _: lines.parse_greeting(line)),
    "OPTIONS": (lambda it: it.encode(), lambda line, _: api.ConnectOptions.parse(line)),
    "SESSION_REQUESTS": (api.encode_request, lambda line, _: api.parse_request(line)),
    "SESSION_ANSWERS": (api.encode_answer, _api_answer),
    "EVENTS": (api.encode_event, lambda line, _: api.parse_event(line)),
    "TUNNEL": (control.encode, lambda frame, _: _frame(frame)),
    "TO_CONTROL": (manager.encode, lambda data, _: manager.decode_to_control(data)),
    "TO_TUNNEL": (manager.encode, lambda data, _: manager.decode_to_tunnel(data)),
    "FROM_AGENT": (agent.encode, lambda data, _: agent.decode_from_agent(data)),
    "FROM_CONTROL": (agent.encode, lambda data, _: agent.decode_from_control(data)),
}
CASES: Final = [(group, name) for group in CODECS for name in getattr(examples, group)]


def said(group: str, name: str) -> bytes:
    """The bytes of an example now; those of a frame as hexadecimal digits and its body."""
    data = CODECS[group][0](getattr(examples, group)[name])
    if group != "TUNNEL":
        return data.removesuffix(b"\n")
    return data[: frames.HEADER_SIZE].hex().encode() + data[frames.HEADER_SIZE :]


def understood(group: str, name: str, data: bytes) -> object:
    """What is read in recorded bytes."""
    if group == "TUNNEL":
        digits = 2 * frames.HEADER_SIZE
        data = bytes.fromhex(data[:digits].decode()) + data[digits:]
    return CODECS[group][1](data, getattr(examples, group)[name])


@pytest.mark.parametrize(("group", "name"), CASES)
def test_what_is_said_is_what_was_recorded(group: str, name: str) -> None:
    assert said(group, name) == RECORDED[name]


@pytest.mark.parametrize(("group", "name"), CASES)
def test_what_was_recorded_is_understood(group: str, name: str) -> None:
    assert understood(group, name, RECORDED[name]) == getattr(examples, group)[name]


#: Requests: what is not known is not done by half. Everything else may grow.
STRICT: Final = frozenset({"HELPER_REQUESTS", "OPTIONS", "SESSION_REQUESTS"})


@pytest.mark.parametrize(("group", "name"), CASES)
def test_what_a_newer_peer_adds_is_skipped_but_in_requests(group: str, name: str) -> None:
    at = RECORDED[name].index(b"{") + 1
    more = b'"new":[{}]' + (b"" if RECORDED[name][at:] == b"}" else b",")
    grown = RECORDED[name][:at] + more + RECORDED[name][at:]
    if group in STRICT:
        with pytest.raises(ProtocolError, match="unknown keys: new"):
            understood(group, name, grown)
    else:
        assert understood(group, name, grown) == getattr(examples, group)[name]


def test_everything_recorded_is_tested() -> None:
    assert sorted(RECORDED) == sorted(name for _, name in CASES)
