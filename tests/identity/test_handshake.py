"""Issued and self-signed certificates in real TLS, both ways, with both versions that we speak."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from meshdev.identity.authority import Authority
from meshdev.identity.keys import KeyPair, key_id
from tests.identity.handshake import End, client_context, handshake, identify, server_context

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
DOMAIN = "0f3c9a52-7d0e-4a52-9c6e-6f3d7f3a1b2c"
WORKLOAD = "ns/shop/deployment/cart/pod/6b1f3c9a-7d0e-4a52-9c6e-6f3d7f3a1b2c"
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)


class Parties:
    """An authority, a server of it and a client of it; each is replaced by a test."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.open(folder / "authority", DOMAIN, NOW)
        self.server_key, self.client_key = KeyPair.generate(), KeyPair.generate()
        self.server = self.authority.issue_server(self.server_key.request(), "control.meshdev", now=NOW)
        self.client = self.workload(NOW)

    def workload(self, now: datetime) -> bytes:
        return self.authority.issue_workload(self.client_key.request(), WORKLOAD, now=now, lifetime=HOUR)

    def connect(self, version: ssl.TLSVersion, name: str = "control.meshdev", *chain: bytes) -> tuple[End, End]:
        client = client_context(version, self.authority.certificate)
        server = server_context(version, self.authority.certificate)
        return handshake(
            identify(client, self.client_key.private_pem, self.client, *chain),
            identify(server, self.server_key.private_pem, self.server),
            name,
        )


@pytest.fixture
def parties(tmp_path: Path) -> Parties:
    return Parties(tmp_path)


@VERSIONS
def test_issued_certificates_are_accepted_by_both_ends(parties: Parties, version: ssl.TLSVersion) -> None:
    client, server = parties.connect(version)
    seen = server.tls.getpeercert(binary_form=True)
    assert seen == parties.client
    assert key_id(seen) == parties.client_key.key_id
    assert server.tls.getpeercert() is not None
    assert client.tls.getpeercert(binary_form=True) == parties.server


@VERSIONS
def test_a_self_signed_certificate_is_refused(parties: Parties, version: ssl.TLSVersion) -> None:
    parties.client = parties.client_key.self_signed(lifetime=HOUR, now=NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"self.signed"):
        parties.connect(version)


@VERSIONS
def test_certificates_of_another_authority_are_refused(
    parties: Parties, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    other = Authority.open(tmp_path / "other", DOMAIN, NOW)
    parties.client = other.issue_workload(parties.client_key.request(), WORKLOAD, now=NOW, lifetime=HOUR)
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        parties.connect(version)
    parties.client = parties.workload(NOW)
    parties.server = other.issue_server(parties.server_key.request(), "control.meshdev", now=NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        parties.connect(version)


@VERSIONS
@pytest.mark.parametrize(
    ("since", "reason"),
    [(-HOUR - timedelta(minutes=1), "expired"), (timedelta(minutes=6), "not yet valid")],
    ids=["expired", "not yet valid"],
)
def test_dates_are_kept(parties: Parties, version: ssl.TLSVersion, since: timedelta, reason: str) -> None:
    parties.client = parties.workload(datetime.now(UTC) + since)  # the suite may have run for long since NOW
    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        parties.connect(version)


@VERSIONS
def test_a_client_whose_clock_is_behind_is_accepted(parties: Parties, version: ssl.TLSVersion) -> None:
    parties.client = parties.workload(NOW + timedelta(minutes=4))
    parties.connect(version)


@VERSIONS
def test_a_workload_is_no_server_and_a_server_no_client(parties: Parties, version: ssl.TLSVersion) -> None:
    good = parties.client
    parties.client = parties.authority.issue_server(parties.client_key.request(), "control.meshdev", now=NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        parties.connect(version)
    parties.client = good
    parties.server = parties.authority.issue_workload(parties.server_key.request(), WORKLOAD, now=NOW, lifetime=HOUR)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"purpose|match"):
        parties.connect(version)


@VERSIONS
def test_a_server_has_the_name_it_was_issued_for(parties: Parties, version: ssl.TLSVersion) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="match"):
        parties.connect(version, "relay.meshdev")


@VERSIONS
def test_what_an_agent_signs_is_not_trusted(parties: Parties, version: ssl.TLSVersion) -> None:
    """What was issued for an agent speaks for itself only."""
    issued = parties.client
    impostor = Authority(parties.client_key._private, x509.load_der_x509_certificate(issued), DOMAIN)
    key = KeyPair.generate()
    parties.client = impostor.issue_workload(key.request(), WORKLOAD, now=NOW, lifetime=HOUR)
    parties.client_key = key
    with pytest.raises(ssl.SSLCertVerificationError, match="invalid CA"):
        parties.connect(version, "control.meshdev", issued)
