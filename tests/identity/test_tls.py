"""Keys in memory for ``ssl``: nothing on a file system, nothing left open."""

import errno
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from meshdev.identity.keys import KeyPair
from meshdev.identity.tls import load_identity, pem

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


def _open_memory() -> list[str]:
    """Descriptors of anonymous memory that this process has."""
    # The folder itself is open while it is read.
    links = {each.name: str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()}
    return [number for number, name in links.items() if name.startswith("/memfd:")]


def _load(pair: KeyPair, *certificates: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_identity(context, pair.private_pem, certificates)
    return context


def test_pem_is_what_ssl_reads_again() -> None:
    der = KeyPair.generate().self_signed(lifetime=HOUR, now=NOW)
    assert ssl.PEM_cert_to_DER_cert(pem(der)) == der
    assert pem(der).endswith("-----END CERTIFICATE-----\n")


def test_a_key_is_loaded_without_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pair = KeyPair.generate()
    certificate = pair.self_signed(lifetime=HOUR, now=NOW)
    monkeypatch.chdir(tmp_path)
    before = _open_memory()
    _load(pair, certificate)
    assert _open_memory() == before
    assert list(tmp_path.iterdir()) == []


def test_a_key_without_final_newline_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = KeyPair.generate()
    monkeypatch.setattr(pair, "private_pem", pair.private_pem.rstrip())
    _load(pair, pair.self_signed(lifetime=HOUR, now=NOW))


def test_a_key_of_another_certificate_is_refused_and_nothing_stays_open() -> None:
    another = KeyPair.generate().self_signed(lifetime=HOUR, now=NOW)
    before = _open_memory()
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        _load(KeyPair.generate(), another)
    with pytest.raises(ssl.SSLError):
        _load(KeyPair.generate())
    assert _open_memory() == before


def test_the_memory_is_not_inherited_and_not_executable(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    create = os.memfd_create

    def remember(name: str, flags: int) -> int:
        made.append(flags)
        return create(name, flags)

    monkeypatch.setattr(os, "memfd_create", remember)
    pair = KeyPair.generate()
    _load(pair, pair.self_signed(lifetime=HOUR, now=NOW))
    assert made
    assert all(flags & os.MFD_CLOEXEC for flags in made)
    assert made[0] & 0x8, "MFD_NOEXEC_SEAL of linux/memfd.h is asked for first"


def test_an_older_kernel_makes_memory_without_the_new_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.3, and gVisor: a flag that is not known is EINVAL (memfd_create(2))."""
    create = os.memfd_create

    def old(name: str, flags: int) -> int:
        if flags & ~(os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | os.MFD_HUGETLB):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return create(name, flags)

    monkeypatch.setattr(os, "memfd_create", old)
    pair = KeyPair.generate()
    _load(pair, pair.self_signed(lifetime=HOUR, now=NOW))


def test_a_kernel_that_refuses_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str, _flags: int) -> int:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "memfd_create", refuse)
    pair = KeyPair.generate()
    with pytest.raises(PermissionError):
        _load(pair, pair.self_signed(lifetime=HOUR, now=NOW))
