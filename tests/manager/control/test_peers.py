"""Whose certificate a peer has shown."""

import pytest

from meshdev.identity.tls import pem
from meshdev.manager.control.peers import peer_key
from tests.manager.control.identities import identity


def test_it_is_known_by_its_key() -> None:
    assert peer_key({"x509_pem_cert": [pem(identity().certificate).encode()]}) == identity().key


@pytest.mark.parametrize(
    "found", [[], [b""], [b"\xff"], [b"-----BEGIN CERTIFICATE-----\nREVS\n-----END CERTIFICATE-----\n"], [b"a", b"b"]]
)
def test_what_cannot_be_read_is_nobodys(found: list[bytes]) -> None:
    assert peer_key({"x509_pem_cert": found}) is None
    assert peer_key({}) is None
