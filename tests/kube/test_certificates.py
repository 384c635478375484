"""PEM as Go reads it."""

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from meshdev.kube.certificates import authorities, chain, private_key


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A certificate and its key, PEM."""
    folder: Path = tmp_path_factory.mktemp("pem")
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "crt")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=k", *files]
    subprocess.run(command, check=True, capture_output=True)
    return (folder / "crt").read_bytes(), (folder / "key").read_bytes()


@pytest.mark.parametrize(
    ("around", "certificates"),
    [
        (lambda pem: pem, 1),
        (lambda pem: b"\xff\xfe Z\xfcrich\n\n" + pem + b"\n  bye", 1),
        (lambda pem: b"\xef\xbb\xbf" + pem, 1),
        (lambda pem: b"  " + pem.replace(b"\n", b" \r\n  "), 1),
        (lambda pem: pem + pem.replace(b"MII", b"AAA", 1) + pem, 2),
        (lambda pem: pem.replace(b"BEGIN CERTIFICATE-----\n", b"BEGIN CERTIFICATE-----\nProc-Type: 4\n\n"), 0),
        (lambda pem: pem.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"), 0),
        (lambda pem: pem.replace(b"END", b"AND"), 0),
        (lambda _: b"", 0),
    ],
)
def test_authorities(made: tuple[bytes, bytes], around: Callable[[bytes], bytes], certificates: int) -> None:
    found = authorities(around(made[0]))
    assert found.count("BEGIN CERTIFICATE") == certificates
    assert "".join(found.split()) == "".join(made[0].decode().split()) * certificates


def test_a_clients_certificates_and_key(made: tuple[bytes, bytes]) -> None:
    certificate, key = made
    both = "Schlüssel\n".encode("latin-1") + key + b"Kette\n" + certificate * 2
    assert chain(both) == certificate * 2
    assert private_key(both) == key
    assert (chain(b"x"), private_key(b"y")) == (b"x", b"y")
    legacy = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n" + base64.b64encode(b"x" * 9) + b"\n"
    legacy += b"-----END RSA PRIVATE KEY-----\n"
    assert private_key(b"\n" + legacy) == legacy
