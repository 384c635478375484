"""Fingerprints."""

from meshdev.identity.fingerprints import fingerprint


def test_a_fingerprint_is_the_sha256() -> None:
    # FIPS 180-2, appendix B.1.
    assert fingerprint(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
