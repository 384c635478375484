"""Control messages: literal JSON both ways, growth without a new version, and what a peer may not send."""

import contextlib
import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.manager.tunnel.server import MAX_SESSIONS
from meshdev.wire import frames
from meshdev.wire.control import (
    MAX_HOLDER,
    Close,
    Hello,
    Message,
    SessionInfo,
    Sessions,
    Welcome,
    decode,
    encode,
)
from meshdev.wire.objects import MAX_TEXT

HELLO = Hello(
    oldest=1,
    newest=2,
    session="0" * 32,
    secret="f" * 32,
    holder="ann@laptop",
    offload=103,
    pools=(IPv4Network("198.18.0.0/16"),),
    wanted=IPv4Address("198.18.0.2"),
    carrier=1,
    carriers=2,
)
WELCOME = Welcome(
    version=1,
    address=IPv4Address("198.18.0.2"),
    mtu=1450,
    offload=7,
    nameservers=(IPv4Address("10.96.0.10"),),
    search=("default.svc.cluster.local", "svc.cluster.local"),
    pod="manager-1",
    namespace="default",
    pod_address=IPv4Address("10.244.0.9"),
)
CLOSE = Close("full", "no room", 60)
SESSIONS = Sessions((SessionInfo("ann@laptop", IPv4Address("198.18.0.2"), 7),))

LITERAL: list[tuple[Message, int, str]] = [
    (
        HELLO,
        frames.HELLO,
        (
            '{"oldest":1,"newest":2,"session":"00000000000000000000000000000000",'
            '"secret":"ffffffffffffffffffffffffffffffff","holder":"ann@laptop","offload":103,"pools":["198.18.0.0/16"],'
            '"wanted":"198.18.0.2","carrier":1,"carriers":2,"observer":false}'
        ),
    ),
    (
        WELCOME,
        frames.WELCOME,
        (
            '{"version":1,"address":"198.18.0.2","mtu":1450,"offload":7,"nameservers":["10.96.0.10"],'
            '"search":["default.svc.cluster.local","svc.cluster.local"],"pod":"manager-1","namespace":"default",'
            '"pod_address":"10.244.0.9"}'
        ),
    ),
    (CLOSE, frames.CLOSE, '{"code":"full","reason":"no room","sessions":60}'),
    (SESSIONS, frames.SESSIONS, '{"sessions":[{"holder":"ann@laptop","address":"198.18.0.2","age_s":7}]}'),
]

addresses = st.ip_addresses(v=4)
words = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=100)
identities = st.text("0123456789abcdef", min_size=32, max_size=32)
hellos = st.builds(
    Hello,
    oldest=st.integers(0, 9),
    newest=st.integers(0, 9),
    session=identities,
    secret=identities,
    holder=words,
    offload=st.integers(0, 255),
    pools=st.lists(addresses.map(lambda address: IPv4Network((address, 16), strict=False)), max_size=3).map(tuple),
    wanted=st.none() | addresses,
    carrier=st.integers(0, 3),
    carriers=st.integers(4, 8),
    observer=st.booleans(),
)
welcomes = st.builds(
    Welcome,
    version=st.integers(0, 9),
    address=addresses,
    mtu=st.integers(68, 65535),
    offload=st.integers(0, 255),
    nameservers=st.lists(addresses, max_size=3).map(tuple),
    search=st.lists(words, max_size=6).map(tuple),
    pod=words,
    namespace=words,
    pod_address=addresses,
)
infos = st.builds(SessionInfo, holder=words, address=addresses, age_s=st.integers(0, 1 << 40))
everything = (
    hellos
    | welcomes
    | st.builds(Close, code=words, reason=words, sessions=st.integers(0, 60))
    | st.builds(Sessions, st.lists(infos, max_size=4).map(tuple))
)


def travelled(message: Message) -> Message | None:
    ((kind, body),) = [(kind, bytes(body)) for kind, body in frames.FrameDecoder().feed(memoryview(encode(message)))]
    return decode(kind, body)


@pytest.mark.parametrize(("message", "kind", "text"), LITERAL)
def test_literal_json_in_both_directions(message: Message, kind: int, text: str) -> None:
    assert encode(message) == frames.frame(kind, text.encode())
    assert decode(kind, text.encode()) == message


def test_a_close_on_the_wire() -> None:
    text = b'{"code":"full","reason":"no room","sessions":60}'
    assert encode(CLOSE) == bytes.fromhex("06 000030") + text


@given(everything)
def test_every_message_travels(message: Message) -> None:
    assert travelled(message) == message


@pytest.mark.parametrize(("message", "kind", "text"), LITERAL)
def test_unknown_keys_are_skipped(message: Message, kind: int, text: str) -> None:
    grown = {**json.loads(text), "colour": ["red", {"new": 1}]}
    assert decode(kind, json.dumps(grown).encode()) == message


@pytest.mark.parametrize(("message", "kind", "text"), LITERAL)
def test_missing_keys_are_refused_and_only_wanted_may_be_missing(message: Message, kind: int, text: str) -> None:
    whole = json.loads(text)
    for key in whole:
        body = json.dumps({other: value for other, value in whole.items() if other != key}).encode()
        if key == "wanted":
            assert decode(kind, body) == replace(HELLO, wanted=None)
        else:
            with pytest.raises(ProtocolError, match=key):
                decode(kind, body)
    assert isinstance(message, Hello) == ("wanted" in whole)


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (frames.HELLO, "oldest", -1),
        (frames.HELLO, "oldest", True),
        (frames.HELLO, "oldest", 1.0),
        (frames.HELLO, "newest", 1 << 17),
        (frames.HELLO, "session", "0" * 31),
        (frames.HELLO, "session", "G" * 32),
        (frames.HELLO, "secret", 7),
        (frames.HELLO, "holder", "x" * (MAX_HOLDER + 1)),
        (frames.HELLO, "holder", "two\nlines"),
        (frames.HELLO, "holder", "\x1b[31m"),
        (frames.HELLO, "holder", "\ud800"),
        (frames.HELLO, "holder", None),
        (frames.HELLO, "offload", 256),
        (frames.HELLO, "pools", "198.18.0.0/16"),
        (frames.HELLO, "pools", ["198.18.0.1/16"]),
        (frames.HELLO, "pools", ["fd00::/64"]),
        (frames.HELLO, "pools", [7]),
        (frames.HELLO, "wanted", "198.18.0"),
        (frames.HELLO, "wanted", "\n"),
        (frames.HELLO, "wanted", 3323068418),
        (frames.HELLO, "carrier", 2),
        (frames.HELLO, "carriers", 0),
        (frames.HELLO, "carriers", 9),
        (frames.HELLO, "observer", 0),
        (frames.WELCOME, "address", "::1"),
        (frames.WELCOME, "mtu", 67),
        (frames.WELCOME, "mtu", 65536),
        (frames.WELCOME, "nameservers", ["a"]),
        (frames.WELCOME, "search", [["a"]]),
        (frames.WELCOME, "pod", "x" * (MAX_TEXT + 1)),
        (frames.CLOSE, "sessions", "1"),
        (frames.CLOSE, "reason", []),
        (frames.SESSIONS, "sessions", {}),
        (frames.SESSIONS, "sessions", [7]),
        (frames.SESSIONS, "sessions", [{"holder": "a"}]),
    ],
)
def test_wrong_values_are_refused(kind: int, key: str, value: Any) -> None:
    (text,) = [text for _, one, text in LITERAL if one == kind]
    with pytest.raises(ProtocolError):
        decode(kind, json.dumps({**json.loads(text), key: value}).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b"{",
        b'{"code":NaN}',
        b"\xff\xfe",
        '{"code":"x"}'.encode("utf-16"),
        b"[" * 65536,
        b'{"a":' * 13000,
        b'{"sessions":' + b"9" * 60000 + b"}",
    ],
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    for kind in (frames.HELLO, frames.WELCOME, frames.CLOSE, frames.SESSIONS):
        with pytest.raises(ProtocolError):
            decode(kind, body)


def test_unknown_kinds_are_skipped_when_flagged_so_and_refused_otherwise() -> None:
    assert decode(frames.OPTIONAL | 1, b"\0not even JSON") is None
    with pytest.raises(ProtocolError, match="unknown kind 99"):
        decode(99, b"{}")


@given(st.sampled_from([frames.HELLO, frames.WELCOME, frames.CLOSE, frames.SESSIONS]), st.binary(max_size=100))
def test_hostile_bodies_raise_protocol_errors_only(kind: int, body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode(kind, body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(LITERAL), st.data())
def test_a_message_with_one_hostile_value_raises_protocol_errors_only(
    literal: tuple[Message, int, str], data: st.DataObject
) -> None:
    _, kind, text = literal
    whole = json.loads(text)
    whole[data.draw(st.sampled_from(sorted(whole)))] = data.draw(json_values)
    with contextlib.suppress(ProtocolError):
        decode(kind, json.dumps(whole).encode())


def test_a_reason_from_another_program_arrives_as_one_printable_line() -> None:
    close = Close("address", "nft refused: Error: \x1b[1mBusy\ntable inet meshdev\n   ^^^^^\n" + "x" * 2000)
    arrived = travelled(close)
    assert isinstance(arrived, Close)
    assert arrived.reason.startswith("nft refused: Error: ?[1mBusy table inet meshdev ^^^^^ xxx")
    assert len(arrived.reason) == MAX_TEXT


def test_a_holder_is_cut_rather_than_refused() -> None:
    arrived = travelled(replace(HELLO, holder="ann\t" + "\U0001f600" * 200))
    assert isinstance(arrived, Hello)
    assert arrived.holder == "ann " + "\U0001f600" * (MAX_HOLDER - 4)


def test_the_answer_to_an_observer_fits_one_frame_however_long_the_holders_names_are() -> None:
    longest = SessionInfo("\U0001f600" * MAX_HOLDER, IPv4Address("198.18.255.254"), 1 << 40)
    everybody = Sessions((longest,) * MAX_SESSIONS)
    assert travelled(everybody) == everybody
