"""Capabilities and proofs."""

from hypothesis import given
from hypothesis import strategies as st

from meshdev.identity.edges import CAPABILITY_BYTES, claim_proof, manager_proof, new_capability, proof_matches

CAPABILITY = bytes(range(32))


def test_capabilities_are_new() -> None:
    made = {new_capability() for _ in range(100)}
    assert len(made) == 100
    assert {len(each) for each in made} == {CAPABILITY_BYTES}


def test_proofs_are_hmacs_of_what_they_vouch_for() -> None:
    # printf claim | openssl dgst -sha256 -mac HMAC -macopt hexkey:000102…1f
    assert claim_proof(CAPABILITY) == "6330b271150577cd8e51444ef65c03446beb71aa708445b3fdc98b07d250036a"
    assert (
        manager_proof(CAPABILITY, b"\x30\x03abc") == "ff8d5c7291aafb3c404264cf3a82611165d66b5495fa20993906ccb4f8da295b"
    )


def test_a_proof_depends_on_all_that_goes_into_it() -> None:
    proofs = [
        claim_proof(CAPABILITY),
        claim_proof(bytes(32)),
        manager_proof(CAPABILITY, b"a"),
        manager_proof(CAPABILITY, b"b"),
        manager_proof(bytes(32), b"a"),
    ]
    assert len(set(proofs)) == len(proofs)


@given(st.text() | st.text(st.characters(categories=["Cs"])))
def test_any_text_can_be_compared(shown: str) -> None:
    assert not proof_matches(shown, claim_proof(CAPABILITY))


@given(st.binary(min_size=32, max_size=32))
def test_a_proof_matches_itself(capability: bytes) -> None:
    assert proof_matches(claim_proof(capability), claim_proof(capability))
