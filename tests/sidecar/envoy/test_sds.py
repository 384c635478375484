"""The messages of secret discovery against those of xds-protos, and whatever else may come."""

import contextlib

import pytest
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.sidecar.envoy import sds


@given(st.text(max_size=300), st.binary(max_size=20_000), st.binary(max_size=300))
def test_a_certificate_with_its_key(name: str, chain: bytes, key: bytes) -> None:
    secret = secret_pb2.Secret.FromString(sds.tls_certificate(name, chain, key))
    assert (secret.name, secret.WhichOneof("type")) == (name, "tls_certificate")
    assert secret.tls_certificate.certificate_chain.inline_bytes == chain
    assert secret.tls_certificate.private_key.inline_bytes == key


@given(st.text(max_size=300), st.binary(max_size=20_000))
def test_a_trust_anchor(name: str, trusted: bytes) -> None:
    secret = secret_pb2.Secret.FromString(sds.validation_context(name, trusted))
    assert (secret.name, secret.WhichOneof("type")) == (name, "validation_context")
    assert secret.validation_context.trusted_ca.inline_bytes == trusted


@given(st.lists(st.binary(max_size=300), max_size=3))
def test_an_answer(names: list[bytes]) -> None:
    secrets = [sds.validation_context("authority", each) for each in names]
    answer = discovery_pb2.DiscoveryResponse.FromString(sds.encode_answer("7", secrets))
    assert (answer.version_info, answer.nonce) == ("7", "7")
    assert answer.type_url == "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    found = []
    for each in answer.resources:
        secret = secret_pb2.Secret()
        assert each.Unpack(secret)
        found.append(secret.validation_context.trusted_ca.inline_bytes)
    assert found == names


@given(st.sets(st.text(max_size=200), max_size=4), st.booleans(), st.text(max_size=200))
def test_a_request(names: set[str], refused: bool, other: str) -> None:
    request = discovery_pb2.DiscoveryRequest(
        version_info=other, response_nonce=other, type_url=other, resource_names=sorted(names)
    )
    request.node.id = other
    request.node.user_agent_build_version.version.major_number = 7
    if refused:
        request.error_detail.message = other
        request.error_detail.code = 13
    assert sds.decode_request(request.SerializeToString()) == sds.SecretRequest(frozenset(names), refused)


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_request_or_an_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        sds.decode_request(data)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x1a\x05abc", "too short"),
        (b"\x1a" + b"\xff" * 11, "a number without an end"),
        (b"\x1a", "a number without an end"),
        (b"\x0d\0\0", "too short"),
        (b"\x0b", "a field of kind 3"),
    ],
)
def test_what_is_no_message(data: bytes, what: str) -> None:
    with pytest.raises(ProtocolError, match=what):
        sds.decode_request(data)


def test_fields_of_all_kinds_are_passed_over() -> None:
    assert sds.decode_request(b"\x38\x96\x01" + b"\x41" + b"x" * 8 + b"\x4d" + b"x" * 4 + b"\x1a\x01a").names == {"a"}
