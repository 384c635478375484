"""The authority: what it issues, and for whom not."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.identity.authority import Authority
from meshdev.identity.keys import BACKDATED, BACKDATED_FOR_OTHERS, MAX_DER, KeyPair, key_id
from meshdev.identity.tls import pem
from tests.identity import forge
from tests.identity.test_keys import damaged

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
DOMAIN = "0f3c9a52-7d0e-4a52-9c6e-6f3d7f3a1b2c"
UID = "6b1f3c9a-7d0e-4a52-9c6e-6f3d7f3a1b2c"
WORKLOAD = f"ns/shop/deployment/cart/pod/{UID}"
PAIR = KeyPair.generate()
REQUEST = PAIR.request()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.open(tmp_path_factory.mktemp("authority") / "own", DOMAIN, NOW)


def issue(authority: Authority, request: bytes = REQUEST, path: str = WORKLOAD) -> x509.Certificate:
    return x509.load_der_x509_certificate(authority.issue_workload(request, path, now=NOW, lifetime=HOUR))


def critical(certificate: x509.Certificate) -> dict[type, x509.ExtensionType]:
    return {type(each.value): each.value for each in certificate.extensions if each.critical}


def others(certificate: x509.Certificate) -> dict[type, x509.ExtensionType]:
    return {type(each.value): each.value for each in certificate.extensions if not each.critical}


def usages(usage: x509.ExtensionType) -> set[str]:
    assert isinstance(usage, x509.KeyUsage)
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return {name for name in (*names, "key_cert_sign", "crl_sign") if getattr(usage, name)}


def test_the_authority_may_sign_leaves_and_nothing_else(authority: Authority) -> None:
    own = x509.load_der_x509_certificate(authority.certificate)
    marked = critical(own)
    assert marked[x509.BasicConstraints] == x509.BasicConstraints(ca=True, path_length=0)
    assert usages(marked[x509.KeyUsage]) == {"key_cert_sign", "crl_sign"}
    domain = x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}")
    assert others(own)[x509.SubjectAlternativeName] == x509.SubjectAlternativeName([domain])
    assert own.not_valid_before_utc == NOW - BACKDATED_FOR_OTHERS
    assert own.not_valid_after_utc > NOW + timedelta(days=3600)
    own.verify_directly_issued_by(own)


def test_a_workload_is_a_client_of_that_name(authority: Authority) -> None:
    made = issue(authority)
    marked = critical(made)
    assert marked.keys() == {x509.BasicConstraints, x509.KeyUsage, x509.SubjectAlternativeName}
    assert marked[x509.BasicConstraints] == x509.BasicConstraints(ca=False, path_length=None)
    assert usages(marked[x509.KeyUsage]) == {"digital_signature"}
    name = x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}/{WORKLOAD}")
    assert marked[x509.SubjectAlternativeName] == x509.SubjectAlternativeName([name])
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    assert others(made)[x509.ExtendedKeyUsage] == purpose
    assert list(made.subject) == []
    assert (made.not_valid_before_utc, made.not_valid_after_utc) == (NOW - BACKDATED, NOW + HOUR)
    made.verify_directly_issued_by(x509.load_der_x509_certificate(authority.certificate))


def test_a_server_has_the_name_of_its_service(authority: Authority) -> None:
    made = x509.load_der_x509_certificate(authority.issue_server(REQUEST, "relay.meshdev", now=NOW))
    name = x509.SubjectAlternativeName([x509.DNSName("relay.meshdev")])
    assert critical(made)[x509.SubjectAlternativeName] == name
    assert others(made)[x509.ExtendedKeyUsage] == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    assert made.not_valid_before_utc == NOW - BACKDATED_FOR_OTHERS
    assert made.not_valid_after_utc == x509.load_der_x509_certificate(authority.certificate).not_valid_after_utc


def test_what_is_issued_has_the_id_of_the_key_that_asked(authority: Authority) -> None:
    assert key_id(authority.issue_server(REQUEST, "relay.meshdev", now=NOW)) == PAIR.key_id
    assert key_id(authority.issue_workload(REQUEST, WORKLOAD, now=NOW, lifetime=HOUR)) == PAIR.key_id


def test_serial_numbers_are_random(authority: Authority) -> None:
    serials = {issue(authority).serial_number for _ in range(20)}
    assert len(serials) == 20
    assert all(64 < serial.bit_length() < 160 for serial in serials)


def test_nothing_outlives_the_authority(authority: Authority) -> None:
    end = x509.load_der_x509_certificate(authority.certificate).not_valid_after_utc
    made = authority.issue_workload(REQUEST, WORKLOAD, now=NOW, lifetime=timedelta(days=100_000))
    assert x509.load_der_x509_certificate(made).not_valid_after_utc == end
    with pytest.raises(ValueError, match="dates"):
        authority.issue_workload(REQUEST, WORKLOAD, now=end, lifetime=HOUR)


@pytest.mark.parametrize("lifetime", [timedelta(0), -HOUR], ids=str)
def test_a_lifetime_of_nothing_is_refused(authority: Authority, lifetime: timedelta) -> None:
    with pytest.raises(ValueError, match="dates"):
        authority.issue_workload(REQUEST, WORKLOAD, now=NOW, lifetime=lifetime)


def test_of_a_request_only_the_key_counts(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    wanted = forge.request(
        key,
        x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectAlternativeName([x509.DNSName("control.meshdev")]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
    )
    made, plain = issue(authority, wanted), issue(authority)
    assert critical(made) == critical(plain)
    assert others(made)[x509.ExtendedKeyUsage] == others(plain)[x509.ExtendedKeyUsage]
    assert others(made).keys() == others(plain).keys()
    assert list(made.subject) == []
    assert made.public_key() == key.public_key()


@pytest.mark.parametrize("kind", sorted(forge.OTHER_KEYS))
def test_only_keys_of_p256_get_a_certificate(authority: Authority, kind: str) -> None:
    with pytest.raises(ProtocolError, match="P-256"):
        issue(authority, forge.request(forge.OTHER_KEYS[kind]()))


def test_who_does_not_have_the_key_gets_no_certificate(authority: Authority) -> None:
    """A request with another's public key: the signature is of a key of one's own."""
    signature = x509.load_der_x509_csr(KeyPair.generate().request()).signature
    own = x509.load_der_x509_csr(REQUEST)
    with pytest.raises(ProtocolError, match=r"signed|read"):
        issue(authority, REQUEST.removesuffix(own.signature) + signature)
    flipped = bytes([REQUEST[-1] ^ 1])
    with pytest.raises(ProtocolError, match=r"signed|read"):
        issue(authority, REQUEST[:-1] + flipped)


def test_only_sha256_signs_a_request(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ProtocolError, match="signed"):
        issue(authority, forge.request(key, hashed=hashes.SHA384()))
    issue(authority, forge.request(key))


@given(data=st.binary(max_size=MAX_DER + 1))
def test_any_bytes_are_a_protocol_error(authority: Authority, data: bytes) -> None:
    with pytest.raises(ProtocolError):
        issue(authority, data)


@given(data=damaged(REQUEST))
def test_damaged_requests_are_a_protocol_error(authority: Authority, data: bytes) -> None:
    try:
        made = issue(authority, data)
    except ProtocolError:
        assert data != REQUEST
    else:
        assert data == REQUEST
        assert made.public_key() == x509.load_der_x509_csr(REQUEST).public_key()


def test_a_request_is_of_4_kib_at_most(authority: Authority) -> None:
    with pytest.raises(ProtocolError, match=str(MAX_DER)):
        issue(authority, REQUEST + bytes(MAX_DER))
    with pytest.raises(ProtocolError, match="read"):
        issue(authority, REQUEST + REQUEST)


@pytest.mark.parametrize(
    "path",
    [
        WORKLOAD,
        f"ns/a/service/b/pod/{UID}",
        "ns/kube-system/daemonset/kube-proxy.v1/pod/0123456789abcdef0123456789abcdef",
        f"ns/{'a' * 63}/replicaset/{'.'.join(['b' * 63, 'c' * 63, 'd' * 63, 'e' * 61])}/pod/{UID}",
        f"ns/a/pod/{'p' * 253}/pod/{UID}",
    ],
)
def test_names_of_kubernetes_are_taken(authority: Authority, path: str) -> None:
    made = issue(authority, path=path)
    name = x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}/{path}")
    assert critical(made)[x509.SubjectAlternativeName] == x509.SubjectAlternativeName([name])


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "ns", WORKLOAD.upper(), f"/{WORKLOAD}", f"{WORKLOAD}/", f"{WORKLOAD}/x", f"{WORKLOAD}\n"),
        *("ns/shop/deployment/cart/pod/", "ns/shop/deployment//pod/u", "ns//deployment/cart/pod/u"),
        *("ns/../deployment/cart/pod/u", "ns/shop/deployment/../pod/u", "ns/shop/deployment/./pod/u"),
        *("ns/shop/deployment/ca rt/pod/u", "ns/shop/deployment/c%61rt/pod/u", "ns/shop/deployment/cärt/pod/u"),
        *("ns/shop/deployment/cart/pod/u?x", "ns/shop/deployment/cart/pod/u#x", "ns/shop/deployment/cart/pod/u\0"),
        *("ns/a.b/deployment/cart/pod/u", "ns/-a/deployment/cart/pod/u", "ns/shop/deployment/cart-/pod/u"),
        *("ns/shop/De/cart/pod/u", "ns/shop/deployment/a..b/pod/u", "ns/shop/deployment/a\u0661/pod/u"),
        *(f"ns/{'a' * 64}/deployment/cart/pod/u", f"ns/shop/{'k' * 33}/cart/pod/u"),
        f"ns/shop/deployment/{'.'.join(['b' * 63, 'c' * 63, 'd' * 63, 'e' * 62])}/pod/u",
        f"ns/shop/pod/{'p' * 254}/pod/u",
    ],
)
def test_other_names_are_refused(authority: Authority, path: str) -> None:
    with pytest.raises(ProtocolError, match="identity"):
        issue(authority, path=path)


@given(path=st.text(max_size=300) | st.text("a-./ns", max_size=9000).map(lambda text: f"ns/a/deployment/{text}/pod/u"))
def test_a_name_is_refused_or_stands_in_the_certificate_as_it_is(authority: Authority, path: str) -> None:
    try:
        made = issue(authority, path=path)
    except ProtocolError as error:
        assert len(error.message) < 300  # noqa: PT017 -- most names are refused, some are not
    else:
        name = critical(made)[x509.SubjectAlternativeName]
        assert isinstance(name, x509.SubjectAlternativeName)
        found = name.get_values_for_type(x509.UniformResourceIdentifier)
        assert found == [f"spiffe://{DOMAIN}/{path}"]
        assert path.count("/") == 5


@pytest.mark.parametrize("name", ["", ".", "a b", "*.meshdev", "-a", "A", "a/b", "relay.meshdev\n", "a" * 64, "ä"])
def test_a_server_is_called_by_a_dns_name(authority: Authority, name: str) -> None:
    with pytest.raises(ValueError, match="DNS name"):
        authority.issue_server(REQUEST, name, now=NOW)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
@pytest.mark.parametrize("kind", ["sslclient", "sslserver"])
def test_openssl_finds_nothing_wrong_however_strict(authority: Authority, tmp_path: Path, kind: str) -> None:
    made = {
        "sslclient": authority.issue_workload(REQUEST, WORKLOAD, now=NOW, lifetime=HOUR),
        "sslserver": authority.issue_server(REQUEST, "control.meshdev", now=NOW),
    }
    (tmp_path / "ca").write_text(pem(authority.certificate))
    (tmp_path / "leaf").write_text(pem(made[kind]))
    command = ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-attime", str(int(NOW.timestamp()))]
    trust = ["-CAfile", str(tmp_path / "ca"), "-no-CApath", "-no-CAstore"]
    for purpose in ("sslclient", "sslserver"):
        ran = subprocess.run(
            [*command, *trust, "-purpose", purpose, tmp_path / "leaf"], check=False, capture_output=True, text=True
        )
        assert (ran.returncode == 0) == (purpose == kind), ran.stderr
