"""What control and relay say to each other: literal JSON both ways, limits, hostile datagrams; and the server names."""

import base64
import contextlib
import hashlib
import json
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.wire.objects import MAX_CERTIFICATE
from meshdev.wire.relay import (
    MAX_DATAGRAM,
    MAX_KEYS,
    RelayEndpoint,
    RelayIdentity,
    RelayRemoved,
    RelaySigningRequest,
    RelaysSynced,
    ToRelay,
    decode_from_relay,
    decode_to_relay,
    encode,
    relay_of,
    server_name,
)
from tests.wire.test_message import json_values

ADDRESS = IPv4Address("198.18.0.2")
TO_RELAY: list[tuple[ToRelay, str]] = [
    (RelayIdentity(b"mine", b"ca"), '{"identity":{"certificate":"bWluZQ==","authority":"Y2E="}}'),
    (
        RelayEndpoint(20001, ADDRESS, frozenset({"ff" * 32, "00" * 32})),
        (
            '{"endpoint":{"relay":20001,"address":"198.18.0.2","keys":"'
            'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAD//////////////////////////////////////////w=="}}'
        ),
    ),
    (RelayEndpoint(20001, ADDRESS, frozenset()), '{"endpoint":{"relay":20001,"address":"198.18.0.2","keys":""}}'),
    (RelayRemoved(20001), '{"removed":20001}'),
    (RelaysSynced(), '{"synced":true}'),
]


@pytest.mark.parametrize(("message", "text"), TO_RELAY)
def test_literal_json_to_the_relay(message: ToRelay, text: str) -> None:
    assert encode(message) == text.encode()
    assert decode_to_relay(text.encode()) == message
    with pytest.raises(ProtocolError):
        decode_from_relay(text.encode())


def test_literal_json_from_the_relay() -> None:
    assert encode(RelaySigningRequest(b"csr")) == b'{"request":{"csr":"Y3Ny"}}'
    assert decode_from_relay(b'{"request":{"csr":"Y3Ny"}}') == RelaySigningRequest(b"csr")


def test_all_keys_of_a_claim_fit_one_datagram() -> None:
    keys = frozenset(hashlib.sha256(bytes([number >> 8, number & 255])).hexdigest() for number in range(MAX_KEYS))
    endpoint = RelayEndpoint(29999, ADDRESS, keys)
    assert len(encode(endpoint)) <= MAX_DATAGRAM
    assert decode_to_relay(encode(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("inner", "key", "value"),
    [
        ("endpoint", "relay", 19999),
        ("endpoint", "relay", 30000),
        ("endpoint", "address", "::1"),
        ("endpoint", "keys", None),
        ("endpoint", "keys", "AAAA"),
        ("endpoint", "keys", "!" * 44),
        ("endpoint", "keys", base64.b64encode(bytes(31)).decode()),
        ("endpoint", "keys", base64.b64encode(bytes(32 * (MAX_KEYS + 1))).decode()),
        ("identity", "certificate", ""),
        ("identity", "certificate", "Y3Ny\n"),
        ("identity", "authority", base64.b64encode(bytes(MAX_CERTIFICATE + 1)).decode()),
    ],
)
def test_wrong_values_are_refused(inner: str, key: str, value: Any) -> None:
    text = next(text for _, text in TO_RELAY if text.startswith(f'{{"{inner}"'))
    whole = json.loads(text)
    whole[inner][key] = value
    with pytest.raises(ProtocolError):
        decode_to_relay(json.dumps(whole).encode())


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_hostile_datagrams_raise_protocol_errors_only(datagram: bytes) -> None:
    for decode in (decode_to_relay, decode_from_relay):
        with contextlib.suppress(ProtocolError):
            decode(datagram)


@given(st.integers(20000, 29999))
def test_a_server_name_names_its_relay(relay: int) -> None:
    assert relay_of(server_name(relay).encode()) == relay_of(server_name(relay).upper().encode()) == relay


@pytest.mark.parametrize(
    "name",
    [
        *(
            None,
            b"",
            b"relay.meshdev",
            b"20001",
            b"19999.relay.meshdev",
            b"30000.relay.meshdev",
            b"020001.relay.meshdev",
        ),
        *(b"20001.relay.meshdev.", b"20001.relay.meshdev\n", b"20001_relay.meshdev", b"x.20001.relay.meshdev"),
        "2000١.relay.meshdev".encode(),
    ],
)
def test_every_other_name_names_none(name: bytes | None) -> None:
    assert relay_of(name) is None
