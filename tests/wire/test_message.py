"""Every declared message: there and back, at its limits, with hostile values, and from peers of other versions."""

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.host import journal
from meshdev.intercept import lease, match, spec
from meshdev.wire import access, agent, control, manager, passthrough, relay, session_api
from meshdev.wire.agent import DecidedClaim
from meshdev.wire.codecs import (
    PORT,
    Codec,
    Flag,
    Integer,
    InvalidValueError,
    Many,
    Nullable,
    Number,
    Pairs,
    Parsed,
    Text,
)
from meshdev.wire.helper import lines
from meshdev.wire.message import SCHEMAS, Schema, Tagged, decode, dump, field, load, message, nested
from tests.wire import strategies

MODULES: Final = (access, agent, control, journal, lease, lines, manager, match, passthrough, relay, session_api, spec)
#: Without those of this file. Texts of a Spec have strategies of their own, in tests/intercept.
DECLARED: Final = {
    kind: schema
    for kind, schema in SCHEMAS.items()
    if kind.__module__.startswith("meshdev.") and kind.__module__ not in {match.__name__, spec.__name__}
}

#: There are many messages, and what reads them is the same.
few = settings(max_examples=12, deadline=None)
once = settings(max_examples=2, deadline=None)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def kinds(pick: Callable[[Schema[Any]], object] = lambda _: True) -> pytest.MarkDecorator:
    """A test for each message, or for those that *pick* takes."""
    found = [kind for kind, schema in DECLARED.items() if pick(schema)]
    return pytest.mark.parametrize("kind", found, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")


def sent(value: object) -> Any:
    """What arrives of a message."""
    return json.loads(json.dumps(dump(value)))


def test_there_are_messages_in_all_modules() -> None:
    assert {kind.__module__ for kind in SCHEMAS} >= {each.__name__ for each in MODULES}
    assert len(DECLARED) > 60


@kinds()
@few
@given(data=st.data())
def test_every_message_arrives_as_it_was(kind: type[Any], data: st.DataObject) -> None:
    value = data.draw(strategies.messages(DECLARED[kind]))
    assert load(kind, sent(value)) == value


def members(schema: Schema[Any]) -> Iterator[tuple[str, Codec[Any], bool]]:
    """Key, codec and whether it may be missing: all that stands in the object of a message."""
    for _, key, codec, optional, _ in schema.attributes.members:
        if key is None and isinstance(codec, Schema):
            yield from members(codec)
        else:
            yield str(key), codec, optional


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in *value*, with each of its keys or places."""
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]


@kinds()
@few
@given(data=st.data(), hostile=json_values)
def test_any_value_in_any_place_is_checked(kind: type[Any], data: st.DataObject, hostile: Any) -> None:
    value = sent(data.draw(strategies.messages(DECLARED[kind])))
    container, key = data.draw(st.sampled_from([*_places(value), (value, "new")]))
    container[key] = hostile
    if data.draw(st.integers(0, 3)) == 0:
        del container[key]
    with contextlib.suppress(ValueError):
        passed_on = load(kind, sent(load(kind, value)))  # seconds are rounded when they are sent
        assert load(kind, sent(passed_on)) == passed_on


@kinds()
@few
@given(value=json_values)
def test_whatever_is_no_such_message_is_refused(kind: type[Any], value: Any) -> None:
    with contextlib.suppress(ValueError):
        passed_on = load(kind, sent(load(kind, value)))  # seconds are rounded when they are sent
        assert load(kind, sent(passed_on)) == passed_on


@kinds(lambda schema: schema.attributes.members)
@once
@given(data=st.data())
def test_every_field_is_needed_unless_it_is_optional(kind: type[Any], data: st.DataObject) -> None:
    value = sent(data.draw(strategies.messages(DECLARED[kind])))
    for key, _, optional in members(DECLARED[kind]):
        less = copy.deepcopy({other: each for other, each in value.items() if other != key})
        if optional:
            load(kind, less)
        else:
            with pytest.raises(InvalidValueError, match=f"has no {key}"):
                load(kind, less)


@kinds(lambda schema: schema.attributes.members)
@once
@given(data=st.data())
def test_every_limit_holds(kind: type[Any], data: st.DataObject) -> None:
    value = sent(data.draw(strategies.messages(DECLARED[kind])))
    for key, codec, _ in members(DECLARED[kind]):
        for wrong in strategies.beyond(codec):
            with pytest.raises(ValueError, match=key):
                load(kind, copy.deepcopy(value) | {key: copy.deepcopy(wrong)})


@kinds()
@few
@given(data=st.data())
def test_what_a_newer_peer_adds_is_skipped_or_where_declared_refused(kind: type[Any], data: st.DataObject) -> None:
    value = data.draw(strategies.messages(DECLARED[kind]))
    more = sent(value) | {"colour": ["red", {"new": 1}]}
    if DECLARED[kind].attributes.strict:
        with pytest.raises(InvalidValueError, match="unknown keys: colour"):
            load(kind, more)
    else:
        assert load(kind, more) == load(kind, sent(value))


@kinds()
@few
@given(data=st.data(), version=st.integers() | json_values)
def test_a_newer_version_is_refused(kind: type[Any], data: st.DataObject, version: Any) -> None:
    value = data.draw(strategies.messages(DECLARED[kind]))
    assert "v" not in sent(value)  # as long as all are of version 1, the bytes are those of protocol 2
    if version == 1 and type(version) is int:
        assert load(kind, sent(value) | {"v": version}) == load(kind, sent(value))
    else:
        with pytest.raises(InvalidValueError, match="of version"):
            load(kind, sent(value) | {"v": version})


def test_a_sparse_field_is_left_out_where_it_is_the_default() -> None:
    assert [dump(DecidedClaim(())), dump(DecidedClaim((), whole=True))] == [{"ports": []}, {"ports": [], "whole": True}]
    assert load(DecidedClaim, {"ports": [], "match": "null"}) == DecidedClaim(())


def _size(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text!r} is no size")
    return int(text)


@message()
class Inner:
    """One object inside of another."""

    port: int = field(PORT)


@message(version=2)
class Grown:
    """A message that means something else since its second version."""

    name: str = field(Parsed(str.lower), key="about.name")
    size: float | None = field(Nullable(Number(0, 9, digits=1)), key="about.size")
    inners: tuple[Inner, ...] = field(Many(nested(Inner), 2, distinct=lambda each: each.port), default=())
    added: bool = field(Flag(), default=True, optional=True)
    sizes: tuple[tuple[int, bool], ...] = field(Pairs(_size, Flag()), default=(), optional=True)


GROWN: Final = Grown("a", 1.26, (Inner(80),), False)


def test_a_version_is_sent_from_the_second_on_and_older_ones_are_read() -> None:
    told = {"v": 2, "about": {"name": "a", "size": 1.3}, "inners": [{"port": 80}], "added": False, "sizes": {}}
    assert dump(GROWN) == told
    assert load(Grown, copy.deepcopy(told)) == replace(GROWN, size=1.3)
    older = {"about": {"name": "A", "size": None}, "inners": []}
    assert load(Grown, older) == Grown("a", None)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"about": 7}, "about of It is not an object"),
        ({"about": {"name": "a"}}, "about of It has no size"),
        ({"about": {"name": 7, "size": 1}}, "name of about of It has an invalid value"),
        ({"about": None}, "about of It is not an object"),
        ({"inners": [{"port": 0}]}, "port of inners of It has an invalid value"),
        ({"inners": [{"port": 1}, {"port": 1}]}, "inners of It repeats an entry"),
        ({"inners": [1, 2, 3]}, "inners of It has more than 2 entries"),
        ({"sizes": {"b": 1}}, "b of sizes of It: 'b' is no size"),
        ({"sizes": {"1": 7}}, "1 of sizes of It has an invalid value"),
        ({"v": 3}, "It is of version 3, and this meshdev reads up to 2"),
    ],
)
def test_errors_name_the_place(change: dict[str, object], sentence: str) -> None:
    data = json.dumps(dump(GROWN) | change).encode()
    with pytest.raises(ProtocolError) as caught:
        decode(data, "It", lambda found: load(Grown, found))
    assert caught.value.message == sentence


def test_parsers_say_what_is_wrong_and_long_values_do_not_make_long_errors() -> None:
    def parse(text: str) -> int:
        raise ValueError(f"{text!r} is no number")

    @message(strict=True)
    class Strict:
        number: int = field(Parsed(parse, limit=10_000))

    with pytest.raises(ProtocolError) as caught:
        decode(b'{"number":"x"}', "It", lambda found: load(Strict, found))
    assert caught.value.message == "number of It: 'x' is no number"
    for hostile in ({"number": "x" * 9_999}, {"number": "1", "k" * 99_999: 1}):
        with pytest.raises(ValueError, match=r"^.{1,500}$"):
            load(Strict, hostile)


@pytest.mark.parametrize("data", [b"[" * 100_000, b"9" * 5000, b"NaN", b"\xff", b"", b"[]", b"{", b'{"a":' * 20_000])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="It is not"):
        decode(data, "It", lambda found: found)


def test_a_tag_is_one_of_the_table() -> None:
    tagged = Tagged("kind", {"inner": Inner})
    assert tagged.dump(Inner(1)) == {"kind": "inner", "port": 1}
    assert tagged.load({"kind": "inner", "port": 1}) == Inner(1)
    for wrong in (7, {}, {"kind": "outer", "port": 1}, {"kind": ["inner"], "port": 1}, {"kind": "inner"}):
        with pytest.raises(InvalidValueError):
            tagged.load(wrong)


def test_texts_keep_what_a_command_line_had() -> None:
    odd = b"\xff".decode(errors="surrogateescape")
    assert Text().load(json.loads(json.dumps(Text().dump(odd)))) == odd
    assert Integer(1, 2).load(2) == 2


def test_schemas_are_of_messages_only() -> None:
    assert all(isinstance(schema, Schema) for schema in SCHEMAS.values())
    with pytest.raises(KeyError):
        nested(int)
