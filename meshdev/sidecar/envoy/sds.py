"""The few messages of secret discovery (SDS) as protobuf's wire format has them.

The agent needs these alone: protobuf and the types of xds-protos would take it 3.6 MiB. Field numbers are those of
envoy.service.discovery.v3, envoy.extensions.transport_sockets.tls.v3 and envoy.config.core.v3; wire format:
https://protobuf.dev/programming-guides/encoding
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from meshdev.errors import ProtocolError

SERVICE: Final = "envoy.service.secret.v3.SecretDiscoveryService"
METHOD: Final = "StreamSecrets"
_TYPE: Final = b"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
#: Kinds of fields: a number of seven bits a byte, 8 bytes, what begins with its length, 4 bytes.
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_SIZES: Final = {_EIGHT: 8, _FOUR: 4}


@dataclass(frozen=True)
class SecretRequest:
    """A DiscoveryRequest: the secrets that Envoy wants on this stream, and whether it *refused* the last answer."""

    names: frozenset[str]
    refused: bool


def decode_request(data: bytes) -> SecretRequest:
    """What an Envoy asks. Raises ProtocolError."""
    names, refused = set(), False
    for number, value in _fields(data):
        if number == 3 and value is not None:  # resource_names
            names.add(value.decode("utf-8", "replace"))
        refused = refused or number == 6  # error_detail
    return SecretRequest(frozenset(names), refused)


def tls_certificate(name: str, chain: bytes, private_key: bytes) -> bytes:
    """A Secret of that name: certificates and their key, as PEM."""
    certificate = _field(1, _inline(chain)) + _field(2, _inline(private_key))
    return _field(1, name.encode()) + _field(2, certificate)


def validation_context(name: str, trusted: bytes) -> bytes:
    """A Secret of that name: the certificates that others' are checked against, as PEM."""
    return _field(1, name.encode()) + _field(4, _field(1, _inline(trusted)))


def encode_answer(version: str, secrets: list[bytes]) -> bytes:
    """A DiscoveryResponse with these; its nonce is the version."""
    resources = b"".join(_field(2, _field(1, _TYPE) + _field(2, secret)) for secret in secrets)
    return _field(1, version.encode()) + resources + _field(4, _TYPE) + _field(5, version.encode())


def _inline(data: bytes) -> bytes:
    """A DataSource: inline_bytes."""
    return _field(2, data)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))


def _fields(data: bytes) -> Iterator[tuple[int, bytes | None]]:
    """Number and value of each field; None for a value that is a number."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _read_varint(data, at)
            yield tag >> 3, None
            continue
        if kind == _BYTES:
            size, at = _read_varint(data, at)
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            raise ProtocolError(f"a message of Envoy has a field of kind {kind}")
        if at + size > len(data):
            raise ProtocolError("a message of Envoy is too short")
        yield tag >> 3, data[at : at + size] if kind == _BYTES else None
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for place, byte in enumerate(data[at : at + 10]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    raise ProtocolError("a message of Envoy has a number without an end")
