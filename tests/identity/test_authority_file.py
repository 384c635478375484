"""The authority's file: it outlives a container, and nothing that is wrong with it stops control."""

import logging
import os
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshdev.errors import ManagerError
from meshdev.identity.authority import Authority
from meshdev.identity.keys import KeyPair, key_id
from meshdev.identity.tls import pem
from tests.identity import forge

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
DOMAIN = "0f3c9a52-7d0e-4a52-9c6e-6f3d7f3a1b2c"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "authority"


@pytest.fixture
def path(folder: Path) -> Path:
    """The file of an authority that exists."""
    Authority.open(folder, DOMAIN, NOW)
    return folder / "authority.pem"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The content of an authority's file."""
    folder = tmp_path_factory.mktemp("good") / "authority"
    Authority.open(folder, DOMAIN, NOW)
    return (folder / "authority.pem").read_bytes()


def opened(path: Path, *, domain: str = DOMAIN, now: datetime = NOW) -> bytes:
    """The certificate of the authority there, which works."""
    authority = Authority.open(path.parent, domain, now)
    pair = KeyPair.generate()
    made = authority.issue_workload(pair.request(), "ns/a/deployment/b/pod/u", now=now, lifetime=HOUR)
    own = x509.load_der_x509_certificate(authority.certificate)
    x509.load_der_x509_certificate(made).verify_directly_issued_by(own)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert path.is_file()
    assert not path.is_symlink()
    assert pem(authority.certificate) in path.read_text()
    return authority.certificate


def certificate(path: Path) -> bytes:
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)


def test_a_new_one_is_private_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        Authority.open(folder, DOMAIN, NOW)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [(each.name, stat.S_IMODE(each.stat().st_mode)) for each in folder.iterdir()] == [("authority.pem", 0o600)]


def test_it_is_loaded_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content, inode = path.read_bytes(), path.stat().st_ino
    assert opened(path) == opened(path, now=NOW + timedelta(days=3000)) == certificate(path)
    assert (path.read_bytes(), path.stat().st_ino) == (content, inode)
    assert caplog.messages == []


def test_a_first_one_is_made_without_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    Authority.open(folder, DOMAIN, NOW)
    assert caplog.messages == []


def test_two_authorities_have_distinct_names(folder: Path, tmp_path: Path) -> None:
    made = [Authority.open(place, DOMAIN, NOW).certificate for place in (folder, tmp_path / "other")]
    assert len({x509.load_der_x509_certificate(each).subject for each in made}) == 2
    assert len({key_id(each) for each in made}) == 2


def replaced(path: Path, caplog: pytest.LogCaptureFixture, reason: str, *, now: datetime = NOW) -> None:
    """Assert that what is there is replaced, and that the log says why; once."""
    before = path.read_bytes()
    made = opened(path, now=now)
    assert pem(made).encode() not in before
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert reason in caplog.text
    assert opened(path, now=now) == made
    assert len(caplog.records) == 1


@pytest.mark.parametrize("kept", [0, 1, 100, 241, 300, -30], ids=str)
def test_a_truncated_file_is_replaced(path: Path, caplog: pytest.LogCaptureFixture, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    replaced(path, caplog, "cannot be used")


@given(content=st.binary(max_size=2000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_any_content_is_replaced(path: Path, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    caplog.clear()
    path.write_bytes(content)
    replaced(path, caplog, "cannot be used")


@given(at=st.integers(0, 2000), removed=st.integers(0, 8), inserted=st.binary(max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_damage_is_replaced_or_harmless(
    path: Path, caplog: pytest.LogCaptureFixture, good: bytes, at: int, removed: int, inserted: bytes
) -> None:
    caplog.clear()
    at %= len(good)
    path.write_bytes(good[:at] + inserted + good[at + removed :])
    made = Authority.open(path.parent, DOMAIN, NOW).certificate
    assert (pem(made).encode() in good) == (caplog.messages == [])
    assert Authority.open(path.parent, DOMAIN, NOW).certificate == made


def test_a_huge_file_is_not_read(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # sparse
    made = opened(path)
    assert "more than 16384 bytes" in caplog.text
    assert opened(path) == made


def test_a_key_of_another_certificate_is_replaced(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(KeyPair.generate().private_pem + pem(certificate(path)).encode())
    replaced(path, caplog, "do not belong together")


def test_another_pods_authority_is_replaced(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = certificate(path)
    assert opened(path, domain="other") != before
    assert "another pod" in caplog.text


@pytest.mark.parametrize("now", [NOW - timedelta(hours=25), NOW + timedelta(days=3651)], ids=["before", "after"])
def test_one_that_is_not_valid_now_is_replaced(path: Path, caplog: pytest.LogCaptureFixture, now: datetime) -> None:
    replaced(path, caplog, "not valid", now=now)


def test_a_certificate_that_may_issue_nothing_is_replaced(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = KeyPair.generate()
    path.write_bytes(pair.private_pem + pem(pair.self_signed(lifetime=HOUR, now=NOW)).encode())
    replaced(path, caplog, "not an authority")


def test_an_authority_that_another_signed_is_replaced(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    made = forge.certificate(key, x509.BasicConstraints(ca=True, path_length=0), signer=other)
    path.write_bytes(KeyPair(key).private_pem + pem(made).encode())
    replaced(path, caplog, "InvalidSignature")


@pytest.mark.parametrize("kind", sorted(forge.OTHER_KEYS))
def test_a_key_of_another_kind_is_replaced(path: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    key = forge.OTHER_KEYS[kind]()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + pem(forge.certificate(key)).encode())
    replaced(path, caplog, "P-256")


def test_an_encrypted_key_is_replaced_and_no_password_asked_for(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = path.read_bytes()
    key = load_pem_private_key(content, None)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    path.write_bytes(secret + pem(certificate(path)).encode())
    replaced(path, caplog, "cannot be used")


def test_a_file_that_others_may_read_is_replaced(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.chmod(0o640)
    replaced(path, caplog, "only this user")


def test_a_symbolic_link_is_not_followed(path: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    content = elsewhere.read_bytes()
    path.symlink_to(elsewhere)
    replaced(path, caplog, "cannot be used")
    assert elsewhere.read_bytes() == content


def test_a_fifo_is_not_waited_for(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)
    opened(path)
    assert "only this user" in caplog.text


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o701, 0o1777], ids=oct)
def test_a_folder_that_others_may_enter_is_refused(folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ManagerError, match="other users") as caught:
        Authority.open(folder, DOMAIN, NOW)
    assert "0700" in (caught.value.hint or "")
    assert list(folder.iterdir()) == []


def test_a_link_to_a_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "real")
    with pytest.raises(ManagerError, match="other users"):
        Authority.open(folder, DOMAIN, NOW)


def test_a_folder_that_cannot_be_is_an_error_with_its_cause(tmp_path: Path) -> None:
    with pytest.raises(ManagerError, match="No such file or directory"):
        Authority.open(tmp_path / "missing" / "authority", DOMAIN, NOW)
    (tmp_path / "file").touch()
    with pytest.raises(ManagerError, match="File exists"):
        Authority.open(tmp_path / "file", DOMAIN, NOW)


@pytest.mark.parametrize("domain", ["", "a b", "a/b", "A", "spiffe://a", "a" * 64, "a\n", "ä"])
def test_a_trust_domain_is_a_dns_name(folder: Path, domain: str) -> None:
    with pytest.raises(ValueError, match="trust domain"):
        Authority.open(folder, domain, NOW)
    assert not folder.exists()


CRASH = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from meshdev.identity.authority import Authority

real = getattr(os, sys.argv[2])
def crash(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, sys.argv[2], crash)
Authority.open(Path(sys.argv[1]), sys.argv[3], datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC))
"""


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("domain", [DOMAIN, "other"], ids=["first", "replaced"])
def test_a_crash_leaves_the_old_one_or_nothing(folder: Path, call: str, domain: str) -> None:
    """Killed between the first byte and the last step, of a first authority and of one that replaces another."""
    path = folder / "authority.pem"
    if domain != DOMAIN:
        Authority.open(folder, DOMAIN, NOW)
    before = path.read_bytes() if path.exists() else None
    ran = subprocess.run([sys.executable, "-c", CRASH, folder, call, domain], check=False, capture_output=True)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert (path.read_bytes() if path.exists() else None) == before
    assert (folder / "authority.new").exists(), "it was killed while it wrote"
    opened(path)
    assert [each.name for each in folder.iterdir()] == ["authority.pem"]
