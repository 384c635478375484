"""Keys, their ids, and what is taken for a certificate."""

import contextlib
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.identity import keys
from meshdev.identity.keys import BACKDATED, MAX_DER, KeyPair, id_of, key_id, requested_key
from meshdev.identity.tls import pem
from tests.identity import forge

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
PAIR = KeyPair.generate()
OURS = PAIR.self_signed(lifetime=HOUR, now=NOW)


def private(pair: KeyPair) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pair.private_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def test_keys_are_new_and_of_p256() -> None:
    assert len({KeyPair.generate().key_id for _ in range(20)}) == 20
    assert isinstance(private(PAIR).curve, ec.SECP256R1)
    assert PAIR.private_pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")


def test_a_key_has_one_id_in_all_its_certificates() -> None:
    again = PAIR.self_signed(lifetime=2 * HOUR, now=NOW + HOUR)
    assert again != OURS
    assert key_id(OURS) == key_id(again) == id_of(requested_key(PAIR.request())) == PAIR.key_id
    assert key_id(KeyPair.generate().self_signed(lifetime=HOUR, now=NOW)) != PAIR.key_id


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_the_id_is_what_openssl_computes() -> None:
    public = ["openssl", "x509", "-noout", "-pubkey"]
    text = subprocess.run(public, input=pem(OURS).encode(), capture_output=True, check=True).stdout
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"], input=text, capture_output=True, check=True
    ).stdout
    assert hashlib.sha256(der).hexdigest() == PAIR.key_id


def test_a_self_signed_certificate_speaks_for_itself_only() -> None:
    found = x509.load_der_x509_certificate(OURS)
    assert found.subject == found.issuer == forge.name(PAIR.key_id[:32])
    assert found.not_valid_before_utc == NOW - BACKDATED
    assert found.not_valid_after_utc == NOW + HOUR
    assert {each.value for each in found.extensions if each.critical} == {x509.BasicConstraints(False, None)}
    assert len(OURS) < MAX_DER / 4


def test_serial_numbers_are_random() -> None:
    serials = {x509.load_der_x509_certificate(PAIR.self_signed(lifetime=HOUR, now=NOW)).serial_number for _ in "12345"}
    assert len(serials) == 5
    assert all(serial.bit_length() > 64 for serial in serials)


@pytest.mark.parametrize(
    ("lifetime", "now"), [(timedelta(0), NOW), (-HOUR, NOW), (HOUR, NOW.replace(tzinfo=None))], ids=str
)
def test_impossible_dates_are_refused(lifetime: timedelta, now: datetime) -> None:
    with pytest.raises(ValueError, match="dates"):
        PAIR.self_signed(lifetime=lifetime, now=now)


def test_a_request_asks_for_nothing() -> None:
    found = x509.load_der_x509_csr(PAIR.request())
    assert found.is_signature_valid
    assert list(found.subject) == []
    assert list(found.extensions) == []
    assert keys.id_of(keys.p256(found.public_key(), "request")) == PAIR.key_id


def requested_id(request: bytes) -> str:
    return id_of(requested_key(request))


REQUEST = PAIR.request()
READERS = pytest.mark.parametrize("read", [key_id, requested_id], ids=lambda read: read.__name__)


@READERS
@given(data=st.binary(max_size=MAX_DER + 1))
def test_any_bytes_are_a_protocol_error(read: object, data: bytes) -> None:
    assert callable(read)
    with pytest.raises(ProtocolError):
        read(data)


@st.composite
def damaged(draw: st.DrawFn, data: bytes = OURS) -> bytes:
    """*data* with a few bytes changed, cut off, or put in."""
    at = draw(st.integers(0, len(data) - 1))
    length = draw(st.integers(0, 8))
    return data[:at] + draw(st.binary(max_size=8)) + data[at + length :]


@given(damaged())
def test_damaged_certificates_have_an_id_or_are_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert len(key_id(data)) == 64


@given(damaged(REQUEST))
def test_a_damaged_request_is_nobodys(data: bytes) -> None:
    """Its key has signed all of it."""
    try:
        assert requested_id(data) == PAIR.key_id
        assert data == REQUEST
    except ProtocolError:
        assert data != REQUEST


@pytest.mark.parametrize("kind", sorted(forge.OTHER_KEYS))
def test_keys_of_other_kinds_are_refused(kind: str) -> None:
    key = forge.OTHER_KEYS[kind]()
    with pytest.raises(ProtocolError, match="P-256"):
        key_id(forge.certificate(key))
    with pytest.raises(ProtocolError, match="P-256"):
        requested_key(forge.request(key))


@pytest.mark.parametrize(("read", "one"), [(key_id, OURS), (requested_id, REQUEST)])
def test_more_than_one_is_none(read: Callable[[bytes], str], one: bytes) -> None:
    with pytest.raises(ProtocolError, match="read"):
        read(one + one)
    with pytest.raises(ProtocolError, match="read"):
        read(pem(one).encode())
    with pytest.raises(ProtocolError, match=str(MAX_DER)):
        read(one + bytes(MAX_DER))


def test_a_private_key_is_not_shown() -> None:
    assert "PRIVATE" not in f"{PAIR!r} {PAIR}"
    assert not hasattr(PAIR, "__dataclass_fields__"), "its repr would have every field"
