"""docs/schemas: what the code declares, for every command with ``-o json``, and open to later versions."""

import json
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshdev.errors import ConfigError, MeshdevError
from meshdev.wire.access import AccessRecord
from meshdev.wire.answers import FailureAnswer, InspectLine
from meshdev.wire.message import SCHEMAS, dump
from meshdev.wire.session_inspect import InspectedRequest
from tests.schemas.answers import DECLARED
from tests.schemas.validating import answers, validate, validator
from tests.wire.strategies import messages

every = pytest.mark.parametrize("name", DECLARED)


@every
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_whatever_is_sent_is_valid(name: str, data: st.DataObject) -> None:
    kind, many = DECLARED[name]
    made = dump(data.draw(messages(SCHEMAS[kind])))
    sent = json.loads(json.dumps([made] if many else made))
    validator(name).validate(sent)
    if not many:
        validator(name).validate({**sent, "added_later": 1})


def test_what_is_made_without_its_declaration_is_the_same() -> None:
    """Requests are many, and errors stand below all declarations: both are made as plain objects."""
    record = AccessRecord(
        time=1, source=IPv4Address("10.0.0.1"), port=80, protocol="HTTP/1.1", served_by="laptop", duration=2
    )
    request = InspectedRequest("default", "deployment/b", "b-1", record).as_json()
    errors: list[MeshdevError] = [ConfigError("what"), ConfigError("what", hint="how")]
    for kind, made in [(InspectLine, request), *((FailureAnswer, {"error": each.as_json()}) for each in errors)]:
        left = json.loads(json.dumps(made))
        SCHEMAS[kind].load(left)
        assert _empty(left), "no key is missing in the declaration"


def _empty(left: object) -> bool:
    return isinstance(left, dict) and all(_empty(each) for each in left.values())


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (("status", "-o", "json"), '{"state": "asleep"}'),
        (("list", "-o", "json"), "[{}]"),
        (("logs", "-ojson"), '{"time": null, "source": "session"}\n'),
        (("connect", "-o", "json"), '{"error": {"code": "usage"}}'),
        (("connect", "-o", "json"), "connected\n"),
    ],
)
def test_what_is_not_valid_is_found(words: tuple[str, ...], printed: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        validate(words, printed)


def test_what_is_valid() -> None:
    line = '{"time": null, "source": "session", "line": "x"}'
    validate(("logs", "-o", "json"), f"{line}\n{line}\n")
    validate(("logs", "-o", "json"), "")
    validate(("status",), "Disconnected")
    validate(("run", "-o", "json", "--", "x"), "anything")
    validate(("leave", "-o", "json"), '{"error": {"code": "usage", "message": "m", "hint": null}}')
    assert list(answers('[]\n{"a": 1}\n\n2')) == [[], {"a": 1}, 2]
