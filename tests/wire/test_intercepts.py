"""Messages about intercepts: literal JSON both ways, limits, hostile values, words of other programs."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.intercept import spec as specs
from meshdev.wire import frames
from meshdev.wire.control import ManagerIdentity, Message, decode, encode
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.intercepts import (
    AGENT_PARTS,
    FORMER_PARTS,
    MAX_EXCLUDED,
    MAX_FORMER_PART,
    MAX_ISSUED,
    MAX_PART,
    MAX_POD,
    MAX_RELAYS,
    MAX_REQUEST,
    MAX_SPEC,
    RETURN_PATHS,
    STATES,
    AgentKeys,
    Agents,
    AttestedAgent,
    ClaimRefusal,
    Intercept,
    Issued,
    Local,
    Relay,
    Relays,
    Report,
    Withdraw,
)
from meshdev.wire.message import SCHEMAS
from meshdev.wire.objects import MAX_CERTIFICATE
from meshdev.wire.ports import TRANSPORTS
from tests.wire.strategies import PARSED, messages
from tests.wire.test_control import json_values, travelled

ID, KEY = "1" * 32, "a" * 64

LITERAL: list[tuple[Message, int, str]] = [
    (
        Intercept(ID, '{"mode":"proxy"}', True, 3, ("b-1",)),
        frames.INTERCEPT,
        (f'{{"id":"{ID}","spec":"{{\\"mode\\":\\"proxy\\"}}","reset_older":true,"order":3,"excluded":["b-1"]}}'),
    ),
    (AgentKeys(ID, 1, (KEY,), 4), frames.AGENTS, f'{{"id":"{ID}","part":1,"keys":["{KEY}"],"order":4}}'),
    (
        Agents(ID, 21, (AttestedAgent(b"DER", KEY, "b-1", "u-1"),), 4),
        frames.ATTESTED,
        (
            f'{{"id":"{ID}","part":21,"agents":[{{"request":"REVS","proof":"{KEY}","pod":"b-1","uid":"u-1"}}],'
            '"order":4}'
        ),
    ),
    (ManagerIdentity(b"DER"), frames.IDENTITY, '{"certificate":"REVS"}'),
    (
        Issued(ID, KEY, b"DER"),
        frames.ISSUED,
        f'{{"id":"{ID}","request":"{KEY}","certificate":"REVS"}}',
    ),
    (Withdraw(ID, 4), frames.WITHDRAW, f'{{"id":"{ID}","order":4}}'),
    (
        Local(ID, 8080, "tcp", True, 5),
        frames.LOCAL,
        f'{{"id":"{ID}","remote":8080,"protocol":"tcp","up":true,"order":5}}',
    ),
    (
        Relays(ID, (Relay(8080, "tcp", 20001), Relay(9090, "udp", 20002))),
        frames.RELAYS,
        (
            f'{{"id":"{ID}","relays":[{{"remote":8080,"protocol":"tcp","relay":20001}},'
            '{"remote":9090,"protocol":"udp","relay":20002}],"error":null}'
        ),
    ),
    (
        Relays(ID, (), ClaimRefusal("limit", "no more")),
        frames.RELAYS,
        f'{{"id":"{ID}","relays":[],"error":{{"code":"limit","reason":"no more"}}}}',
    ),
    (
        Report(ID, "b-1", "acked", "", InterceptCounts(7, 1, 2, 3), 4, "open", ("9999", "9090/udp"), "spiffe://m/b-1"),
        frames.REPORT,
        (
            f'{{"id":"{ID}","pod":"b-1","state":"acked","text":"","matched":7,"fell_back":1,"errors":2,"older":3,'
            '"up":4,"way":"open","pending":["9999","9090/udp"],"identity":"spiffe://m/b-1"}'
        ),
    ),
]
_AGENT = {"request": "REVS", "proof": KEY, "pod": "b-1", "uid": "u-1"}
#: What peers of the same version may not say yet.
YOUNGER = {"excluded", "pending", "identity"}
KINDS = [
    frames.INTERCEPT,
    frames.ATTESTED,
    frames.IDENTITY,
    frames.ISSUED,
    frames.WITHDRAW,
    frames.LOCAL,
    frames.RELAYS,
    frames.REPORT,
]

words = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=100)
identities = st.text("0123456789abcdef", min_size=32, max_size=32)
digests = st.integers(0, (1 << 256) - 1).map("{:064x}".format)
orders = st.integers(0, 1 << 53)
ports = st.integers(1, 65535)
counts = st.integers(0, 1 << 53)
relays = st.builds(Relay, ports, st.sampled_from(TRANSPORTS), st.integers(20000, 29999))
ups = st.integers(0, MAX_RELAYS)
ways = st.sampled_from(RETURN_PATHS)
reports = st.builds(
    Report,
    identities,
    words,
    st.sampled_from(STATES),
    words,
    st.builds(InterceptCounts, counts, counts, counts, counts),
    ups,
    ways,
    st.lists(st.sampled_from(["8080", "53/udp"]), max_size=2).map(tuple),
)
everything = (
    st.builds(
        Intercept,
        identities,
        st.text(st.characters(exclude_characters="\0", codec="utf-8")),
        st.booleans(),
        orders,
        st.lists(PARSED["intercepts._pod"], max_size=4).map(tuple),
    )
    | st.builds(
        AgentKeys,
        identities,
        st.integers(0, FORMER_PARTS - 1),
        st.lists(digests, unique=True, max_size=4).map(tuple),
        orders,
    )
    | messages(SCHEMAS[Agents])
    | messages(SCHEMAS[ManagerIdentity])
    | messages(SCHEMAS[Issued])
    | st.builds(Withdraw, identities, orders)
    | st.builds(Local, identities, ports, st.sampled_from(TRANSPORTS), st.booleans(), orders)
    | st.builds(
        Relays,
        identities,
        st.lists(relays, max_size=4).map(tuple),
        st.none() | st.builds(ClaimRefusal, words, words),
    )
    | reports
)


@pytest.mark.parametrize(("message", "kind", "text"), LITERAL)
def test_literal_json_in_both_directions(message: Message, kind: int, text: str) -> None:
    assert encode(message) == frames.frame(kind, text.encode())
    assert decode(kind, text.encode()) == message


@given(everything)
def test_every_message_travels(message: Message) -> None:
    assert travelled(message) == message


@pytest.mark.parametrize(("message", "kind", "text"), LITERAL)
def test_keys_may_come_but_not_go(message: Message, kind: int, text: str) -> None:
    whole = json.loads(text)
    assert decode(kind, json.dumps({**whole, "colour": [1]}).encode()) == message
    for key in whole.keys() - YOUNGER:
        with pytest.raises(ProtocolError, match=key):
            decode(kind, json.dumps({other: value for other, value in whole.items() if other != key}).encode())


def test_an_older_manager_says_nothing_of_listeners() -> None:
    whole = json.loads(next(text for message, _, text in LITERAL if isinstance(message, Report)))
    del whole["pending"]
    said = decode(frames.REPORT, json.dumps(whole).encode())
    assert isinstance(said, Report)
    assert said.pending == ()


def test_an_older_session_excludes_nobody() -> None:
    text = f'{{"id":"{ID}","spec":"{{}}","reset_older":true,"order":3}}'
    assert decode(frames.INTERCEPT, text.encode()) == Intercept(ID, "{}", True, 3)


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (frames.INTERCEPT, "id", "1" * 31),
        (frames.INTERCEPT, "spec", "x" * (MAX_SPEC + 1)),
        (frames.INTERCEPT, "spec", {"mode": "proxy"}),
        (frames.INTERCEPT, "spec", "\0"),
        (frames.AGENTS, "keys", ["a" * 63]),
        (frames.AGENTS, "keys", ["A" * 64]),
        (frames.AGENTS, "keys", [KEY, KEY]),
        (frames.AGENTS, "keys", [f"{number:064x}" for number in range(MAX_FORMER_PART + 1)]),
        (frames.AGENTS, "keys", KEY),
        (frames.AGENTS, "part", FORMER_PARTS),
        (frames.AGENTS, "part", -1),
        (frames.ATTESTED, "part", AGENT_PARTS),
        (frames.ATTESTED, "agents", KEY),
        (frames.ATTESTED, "agents", [KEY]),
        (frames.ATTESTED, "agents", [_AGENT, _AGENT]),
        (frames.ATTESTED, "agents", [{**_AGENT, "proof": f"{number:064x}"} for number in range(MAX_PART + 1)]),
        (frames.ATTESTED, "agents", [{**_AGENT, "proof": "A" * 64}]),
        (frames.ATTESTED, "agents", [{**_AGENT, "request": ""}]),
        (frames.ATTESTED, "agents", [{**_AGENT, "request": "A" * (4 * MAX_REQUEST // 3 + 4)}]),
        (frames.ATTESTED, "agents", [{**_AGENT, "request": "a b="}]),
        (frames.ATTESTED, "agents", [{**_AGENT, "pod": "é"}]),
        (frames.ATTESTED, "agents", [{**_AGENT, "pod": "p" * (MAX_POD + 1)}]),
        (frames.ATTESTED, "agents", [{**_AGENT, "pod": ""}]),
        (frames.ATTESTED, "agents", [{**_AGENT, "uid": "a/b"}]),
        (frames.ATTESTED, "agents", [{**_AGENT, "uid": "u" * 64}]),
        (frames.IDENTITY, "certificate", "A" * (4 * MAX_CERTIFICATE // 3 + 8)),
        (frames.ISSUED, "request", "1" * 63),
        (frames.ISSUED, "certificate", "A" * (4 * MAX_ISSUED // 3 + 8)),
        (frames.INTERCEPT, "order", -1),
        (frames.INTERCEPT, "order", (1 << 53) + 1),
        (frames.INTERCEPT, "excluded", ["b-1"] * (MAX_EXCLUDED + 1)),
        (frames.INTERCEPT, "excluded", ["b" * (MAX_POD + 1)]),
        (frames.INTERCEPT, "excluded", "b-1"),
        (frames.INTERCEPT, "excluded", ["b\U0001f600"]),
        (frames.WITHDRAW, "id", None),
        (frames.LOCAL, "remote", 0),
        (frames.LOCAL, "remote", 65536),
        (frames.LOCAL, "protocol", "http"),
        (frames.LOCAL, "up", 1),
        (frames.RELAYS, "relays", [{"remote": 1, "protocol": "tcp", "relay": 22}]),
        (frames.RELAYS, "relays", [{"remote": 1, "protocol": "tcp", "relay": 20000}] * (MAX_RELAYS + 1)),
        (frames.RELAYS, "error", "limit"),
        (frames.RELAYS, "error", {"code": "x"}),
        (frames.REPORT, "pending", ["0"]),
        (frames.REPORT, "pending", ["9999/tcp"]),
        (frames.REPORT, "pending", ["1"] * (MAX_RELAYS + 1)),
        (frames.REPORT, "pending", "9999"),
        (frames.REPORT, "pod", "x" * 254),
        (frames.REPORT, "pod", "two\nlines"),
        (frames.REPORT, "state", "fine"),
        (frames.REPORT, "text", "\x1b[31m"),
        (frames.REPORT, "matched", -1),
        (frames.REPORT, "matched", 1.0),
        (frames.REPORT, "older", True),
        (frames.REPORT, "up", -1),
        (frames.REPORT, "up", MAX_RELAYS + 1),
        (frames.REPORT, "up", True),
        (frames.REPORT, "way", "long"),
        (frames.REPORT, "way", None),
    ],
)
def test_wrong_values_are_refused(kind: int, key: str, value: Any) -> None:
    text = next(text for _, one, text in LITERAL if one == kind)
    with pytest.raises(ProtocolError):
        decode(kind, json.dumps({**json.loads(text), key: value}).encode())


@given(st.sampled_from(KINDS), st.binary(max_size=100))
def test_hostile_bodies_raise_protocol_errors_only(kind: int, body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode(kind, body)


@given(st.sampled_from(LITERAL), st.data())
def test_a_message_with_one_hostile_value_raises_protocol_errors_only(
    literal: tuple[Message, int, str], data: st.DataObject
) -> None:
    _, kind, text = literal
    whole = json.loads(text)
    whole[data.draw(st.sampled_from(sorted(whole)))] = data.draw(json_values)
    with contextlib.suppress(ProtocolError):
        decode(kind, json.dumps(whole).encode())


def test_what_envoy_and_agents_say_arrives_as_one_printable_line() -> None:
    arrived = travelled(Report(ID, "pod\n1", "nacked", "Proto constraint\n\tvalidation \x1b[31mfailed" + "x" * 2000))
    assert isinstance(arrived, Report)
    assert arrived.pod == "pod 1"
    assert arrived.text.startswith("Proto constraint validation ?[31mfailedxxx")
    refused = travelled(Relays(ID, (), ClaimRefusal("firewall", "nft:\n^^^")))
    assert isinstance(refused, Relays)
    assert refused.error == ClaimRefusal("firewall", "nft: ^^^")


def test_the_limits_are_those_of_a_spec() -> None:
    assert (MAX_SPEC, MAX_RELAYS) == (specs.MAX_SPEC, specs.MAX_PORTS)


def test_the_largest_messages_fit_a_frame() -> None:
    for message in (
        Intercept(ID, '"' * MAX_SPEC, False, 1 << 53),
        AgentKeys(ID, FORMER_PARTS - 1, tuple(f"{number:064x}" for number in range(MAX_FORMER_PART)), 1 << 53),
        Relays(ID, (Relay(65535, "tcp", 29999),) * MAX_RELAYS, ClaimRefusal("\U0001f600" * 10, "\U0001f600" * 1024)),
        Report(ID, "p" * 253, "nacked", "\U0001f600" * 1024, InterceptCounts(*[1 << 53] * 4), MAX_RELAYS, "untried"),
    ):
        assert travelled(message) == message
