"""What the manager's containers say to each other: literal JSON both ways, limits, hostile datagrams."""

import contextlib
import json
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.wire import control
from meshdev.wire.control import ManagerIdentity
from meshdev.wire.intercepts import (
    AGENT_PARTS,
    MAX_EXCLUDED,
    MAX_ISSUED,
    MAX_PART,
    MAX_POD,
    MAX_RELAYS,
    MAX_REQUEST,
    MAX_SPEC,
    Agents,
    AttestedAgent,
    Issued,
    Relay,
)
from meshdev.wire.manager import (
    MAX_ADDRESSES,
    MAX_BODY,
    MAX_DATAGRAM,
    Allow,
    CertificateIssued,
    Claimed,
    ListeningPort,
    ManagerAddress,
    PodReport,
    Seen,
    Synced,
    ToControl,
    ToTunnel,
    Withdrawn,
    decode_to_control,
    decode_to_tunnel,
    encode,
)
from meshdev.wire.message import SCHEMAS
from meshdev.wire.objects import MAX_CERTIFICATE
from tests.wire.strategies import messages
from tests.wire.test_control import json_values

ID, KEY = "1" * 32, "a" * 64
LAST = IPv4Address("198.18.255.254")
CLAIM = Claimed(
    ID,
    '{"x":1}',
    "ann@laptop",
    IPv4Address("198.18.0.2"),
    (Relay(8080, "tcp", 20001),),
    (ListeningPort(8080, "tcp"),),
    False,
    ("b-1",),
)

TO_CONTROL: list[tuple[ToControl, str]] = [
    (ManagerAddress(IPv4Address("10.244.0.9")), '{"pod":"10.244.0.9"}'),
    (
        CLAIM,
        (
            f'{{"claim":{{"id":"{ID}","spec":"{{\\"x\\":1}}","holder":"ann@laptop",'
            '"address":"198.18.0.2","relays":[{"remote":8080,"protocol":"tcp","relay":20001}],"up":[{"remote":8080,"protocol":"tcp"}],"reset_older":false,'
            '"excluded":["b-1"]}}'
        ),
    ),
    (
        Agents(ID, 3, (AttestedAgent(b"DER", KEY, "b-1", "u-1"),)),
        (
            f'{{"agents":{{"id":"{ID}","part":3,"agents":[{{"request":"REVS","proof":"{KEY}","pod":"b-1","uid":"u-1"}}],'
            '"order":0}}'
        ),
    ),
    (Withdrawn(ID), f'{{"withdrawn":"{ID}"}}'),
    (Synced(), '{"synced":true}'),
    (
        Seen("joined", "ann@laptop", IPv4Address("198.18.0.2")),
        '{"seen":{"event":"joined","holder":"ann@laptop","address":"198.18.0.2"}}',
    ),
]
TO_TUNNEL: list[tuple[ToTunnel, str]] = [
    (ManagerIdentity(b"DER"), '{"identity":{"certificate":"REVS"}}'),
    (
        CertificateIssued(ID, KEY, b'{"x":1}'),
        f'{{"issued":{{"id":"{ID}","request":"{KEY}","body":"{{\\"x\\":1}}"}}}}',
    ),
    (
        Allow(20001, (IPv4Address("10.244.0.7"),), False),
        '{"allow":{"relay":20001,"addresses":["10.244.0.7"],"keep":false}}',
    ),
    (
        PodReport(ID, "b-1", False, '{"text":"é"}'.encode()),
        f'{{"report":{{"id":"{ID}","pod":"b-1","gone":false,"body":"{{\\"text\\":\\"\\u00e9\\"}}"}}}}',
    ),
]


@pytest.mark.parametrize(("message", "text"), TO_CONTROL)
def test_literal_json_to_control(message: ToControl, text: str) -> None:
    assert encode(message) == text.encode()
    assert decode_to_control(text.encode()) == message
    with pytest.raises(ProtocolError):
        decode_to_tunnel(text.encode())


@pytest.mark.parametrize(("message", "text"), TO_TUNNEL)
def test_literal_json_to_tunnel(message: ToTunnel, text: str) -> None:
    assert encode(message) == text.encode()
    assert decode_to_tunnel(text.encode()) == message
    with pytest.raises(ProtocolError):
        decode_to_control(text.encode())


@pytest.mark.parametrize(
    ("inner", "key", "value"),
    [
        ("identity", "certificate", "DER"),
        ("identity", "certificate", ""),
        ("allow", "relay", 19999),
        ("allow", "relay", 30000),
        ("allow", "addresses", ["10.0.0.1", "10.0.0.1"]),
        ("allow", "addresses", ["::1"]),
        ("allow", "addresses", [str(IPv4Address(number)) for number in range(MAX_ADDRESSES + 1)]),
        ("allow", "addresses", "10.0.0.1"),
        ("allow", "keep", None),
        ("report", "id", "x"),
        ("report", "gone", "no"),
        ("report", "body", {}),
        ("report", "body", "x" * (MAX_BODY + 1)),
        ("report", "body", "é" * (MAX_BODY // 2 + 1)),
        ("report", "body", "\ud800"),
    ],
)
def test_wrong_values_are_refused(inner: str, key: str, value: Any) -> None:
    (text,) = [text for _, text in TO_TUNNEL if text.startswith(f'{{"{inner}"')]
    whole = json.loads(text)
    whole[inner][key] = value
    with pytest.raises(ProtocolError):
        decode_to_tunnel(json.dumps(whole).encode())


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_hostile_datagrams_raise_protocol_errors_only(datagram: bytes) -> None:
    for decode in (decode_to_control, decode_to_tunnel):
        with contextlib.suppress(ProtocolError):
            decode(datagram)


@given(st.sampled_from([*TO_CONTROL, *TO_TUNNEL]), json_values)
def test_hostile_values_raise_protocol_errors_only(literal: tuple[ToControl | ToTunnel, str], value: Any) -> None:
    (kind,) = json.loads(literal[1])
    for decode in (decode_to_control, decode_to_tunnel):
        with contextlib.suppress(ProtocolError):
            decode(json.dumps({kind: value}).encode())


def largest_agents() -> Agents:
    """A part whose fields are all as long as they may be."""
    request, pod, uid = b"\xff" * MAX_REQUEST, "p" * MAX_POD, "u" * 63
    agents = tuple(AttestedAgent(request, f"{number:064x}", pod, uid) for number in range(MAX_PART))
    return Agents(ID, AGENT_PARTS - 1, agents, 1 << 53)


def test_what_is_longer_than_a_datagram_is_not_sent() -> None:
    """Whoever reads it would get a part of it, begin anew, and get it again."""
    message = Claimed(ID, "\U0001f600" * MAX_SPEC, "ann", LAST, (), ())
    with pytest.raises(ProtocolError, match=r"147,\d+ bytes is longer than 65,536"):
        encode(message)


def test_the_largest_fit_a_datagram() -> None:
    relays = tuple(Relay(65535, "tcp", 29999) for _ in range(MAX_RELAYS))
    ups = tuple(ListeningPort(65535, "tcp") for _ in range(MAX_RELAYS))
    excluded = ("p" * MAX_POD,) * MAX_EXCLUDED
    largest: list[ToControl | ToTunnel] = [
        # What specs.decode takes has no more bytes than MAX_SPEC, of which two become six.
        Claimed(ID, "\xe9" * (MAX_SPEC // 2), "\U0001f600" * 128, LAST, relays, ups, False, excluded),
        largest_agents(),
        ManagerIdentity(b"\xff" * MAX_CERTIFICATE),
        Allow(20000, tuple(IPv4Address("255.255.240.0") + number for number in range(MAX_ADDRESSES)), True),
        PodReport(ID, "\U0001f600" * 253, True, b"\x01" * MAX_BODY),
    ]
    assert max(len(encode(message)) for message in largest) <= MAX_DATAGRAM
    assert len(control.encode_body(Issued(ID, KEY, b"\xff" * MAX_ISSUED))) <= MAX_BODY


@given(messages(SCHEMAS[Agents]))
@settings(max_examples=200)
def test_whatever_agents_are_sent_fits_a_frame_and_a_datagram(message: Agents) -> None:
    """With as many as a part may have, and names as long as they may be, which ASCII alone makes."""
    padded = tuple(
        AttestedAgent(
            each.request.ljust(MAX_REQUEST, b"\xfb"),
            f"{number:064x}",
            each.pod.ljust(MAX_POD, "p"),
            each.uid.ljust(63, "u"),
        )
        for number, each in enumerate((message.agents * MAX_PART)[:MAX_PART])
    )
    whole = Agents(message.id, message.part, padded, message.order)
    assert len(control.encode(whole)) < 64 << 10
    datagram = encode(whole)
    assert len(datagram) < MAX_DATAGRAM
    assert decode_to_control(datagram) == whole
