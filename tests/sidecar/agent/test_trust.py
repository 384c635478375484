"""Whom an agent trusts: capabilities in order, and until when; a manager by proof, another only once it is lost."""

import asyncio
import dataclasses
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.identity.edges import claim_proof, manager_proof
from meshdev.sidecar.agent.own_key import make_key
from meshdev.sidecar.agent.trust import Capabilities, new_identity
from meshdev.wire.agent import MAX_CONSENTS
from meshdev.wire.attestation import CAPABILITY_SECONDS, ManagerOffer, ManagerVerdict
from tests.loops import Clock
from tests.sidecar.certificates import FIRST, SECOND, Certificates


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def capabilities(clock: Clock) -> Capabilities:
    return Capabilities(clock)


def test_each_is_new_and_published_by_its_proof(capabilities: Capabilities) -> None:
    given_ = [capabilities.issue() for _ in range(3)]
    assert len({*given_}) == 3
    assert capabilities.proofs.value == tuple(map(claim_proof, given_))


def test_one_that_is_withdrawn_is_forgotten(capabilities: Capabilities) -> None:
    first, second = claim_proof(capabilities.issue()), claim_proof(capabilities.issue())
    capabilities.withdraw(first)
    capabilities.withdraw(first)
    assert capabilities.proofs.value == (second,)


async def test_a_change_is_notified(capabilities: Capabilities) -> None:
    known = capabilities.proofs.value
    proof = claim_proof(capabilities.issue())
    assert await capabilities.proofs.changed(known) == (proof,)


def test_the_oldest_make_room(capabilities: Capabilities) -> None:
    proofs = [claim_proof(capabilities.issue()) for _ in range(MAX_CONSENTS + 2)]
    assert capabilities.proofs.value == tuple(proofs[2:])


def test_each_lapses_after_its_time(capabilities: Capabilities, clock: Clock) -> None:
    assert capabilities.lapse() == CAPABILITY_SECONDS
    capabilities.issue()
    clock.now += 1000
    later = claim_proof(capabilities.issue())
    assert capabilities.lapse() == CAPABILITY_SECONDS - 1000
    clock.now += CAPABILITY_SECONDS - 1000
    assert capabilities.lapse() == 1000
    assert capabilities.proofs.value == (later,)
    clock.now += 1000
    capabilities.lapse()
    assert not capabilities.proofs.value


@given(st.lists(st.sampled_from(["issue", "withdraw"]) | st.floats(0, 2 * CAPABILITY_SECONDS)))
def test_never_one_whose_time_is_over(events: list[str | float]) -> None:
    clock = Clock()
    capabilities, issued = Capabilities(clock), {}
    for event in events:
        if event == "issue":
            issued[claim_proof(capabilities.issue())] = clock.now
        elif event == "withdraw" and issued:
            capabilities.withdraw(issued.popitem()[0])
        elif isinstance(event, float):
            clock.now += event
            assert capabilities.lapse() > 0
            issued = {proof: since for proof, since in issued.items() if since + CAPABILITY_SECONDS > clock.now}
        assert capabilities.proofs.value == tuple(issued)


# -- the manager -------------------------------------------------------------------------------------------------------

CAPABILITY, OTHER_CAPABILITY = b"c" * 32, b"d" * 32
KEY = make_key()


def offer(of: Certificates, capability: bytes = CAPABILITY) -> ManagerOffer:
    return ManagerOffer(of.authority, manager_proof(capability, of.authority), of.issue(KEY.request))


class World:
    def __init__(self) -> None:
        self.identity = new_identity(KEY)
        self.trust = self.identity.trust

    def consider(self, offered: ManagerOffer) -> str:
        """The reason of a refusal."""
        verdict = self.identity.consider(offered, CAPABILITY)
        assert verdict == ManagerVerdict(not verdict.reason, verdict.reason)
        return verdict.reason

    @property
    def shown(self) -> tuple[bytes, bytes] | None:
        """The certificate that it shows, and of whom."""
        secrets = self.identity.issued.secrets.value
        return (secrets.certificate, secrets.authority) if secrets is not None else None


@pytest.fixture
def world() -> World:
    return World()


def test_the_first_is_taken_by_its_proof(world: World) -> None:
    assert world.trust.certificate.value is None
    offered = offer(FIRST)
    assert world.consider(offered) == ""
    assert world.trust.certificate.value == FIRST.authority
    assert world.shown == (offered.issued, FIRST.authority)


@pytest.mark.parametrize(
    "offered",
    [
        offer(FIRST, OTHER_CAPABILITY),
        dataclasses.replace(offer(FIRST), certificate=SECOND.authority),
        dataclasses.replace(offer(FIRST), proof=claim_proof(CAPABILITY)),
        dataclasses.replace(offer(FIRST), proof="0" * 64),
    ],
)
def test_one_without_the_proof_of_that_connection_is_not(world: World, offered: ManagerOffer) -> None:
    assert "proof does not match" in world.consider(offered)
    assert (world.trust.certificate.value, world.shown) == (None, None)


def test_another_is_taken_only_while_the_manager_is_lost(world: World) -> None:
    world.consider(offer(FIRST))
    shown = world.shown
    world.trust.lost = False
    assert "another manager serves this sidecar" in world.consider(offer(SECOND))
    assert (world.trust.certificate.value, world.shown) == (FIRST.authority, shown)
    assert world.consider(offer(FIRST)) == "", "the same is always taken"
    assert world.shown == shown, "and renews what it issued by itself, while it is there"
    world.trust.lost = True
    assert world.consider(again := offer(FIRST)) == ""
    assert world.shown == (again.issued, FIRST.authority)
    assert world.consider(offer(SECOND)) == ""
    assert world.trust.certificate.value == SECOND.authority
    assert world.shown is not None
    assert world.shown[1] == SECOND.authority


@pytest.mark.parametrize("junk", [b"x", FIRST.authority + b"x", FIRST.authority[:-1], FIRST.authority * 2])
def test_what_is_no_certificate_is_not_taken(world: World, junk: bytes) -> None:
    assert world.consider(ManagerOffer(junk, manager_proof(CAPABILITY, junk), FIRST.issue(KEY.request))) != ""
    assert world.trust.certificate.value is None


@pytest.mark.parametrize(
    ("issued", "words"),
    [
        (b"x", ""),
        (FIRST.issue(make_key().request), "key values mismatch"),
        (SECOND.issue(KEY.request), "certificate verify failed"),
        (KEY.certificate, "certificate verify failed"),
        (FIRST.issue_server(KEY.request, "control.meshdev"), "certificate verify failed"),
        (FIRST.issue(KEY.request) + b"x", ""),
        (FIRST.authority, "key values mismatch"),
    ],
    ids=["bytes", "key", "issuer", "own", "purpose", "longer", "authority"],
)
def test_what_the_manager_would_not_accept_is_not_taken(world: World, issued: bytes, words: str) -> None:
    reason = world.consider(dataclasses.replace(offer(FIRST), issued=issued))
    assert reason.startswith("the certificate that the manager issued cannot be used: ")
    assert words in reason.lower()
    assert (world.trust.certificate.value, world.shown) == (None, None)


@pytest.mark.parametrize("age", [timedelta(hours=2), -timedelta(hours=1)], ids=["ahead", "behind"])
def test_the_clock_of_the_pod_does_not_count(world: World, age: timedelta) -> None:
    """The manager checks what it issued by its own, which may be hours away."""
    offered = dataclasses.replace(offer(FIRST), issued=FIRST.issue(KEY.request, age=age))
    assert world.consider(offered) == ""
    assert world.shown == (offered.issued, FIRST.authority)


async def test_an_agent_is_attested_when_a_session_knows_it_and_a_manager_is_known() -> None:
    identity = new_identity(make_key())
    attested = asyncio.ensure_future(identity.attested())
    identity.trust.take(FIRST.authority)
    await asyncio.sleep(0.01)
    assert not attested.done()
    proof = claim_proof(identity.capabilities.issue())
    assert await attested == FIRST.authority
    identity.capabilities.withdraw(proof)
    again = asyncio.ensure_future(identity.attested())
    await asyncio.sleep(0.01)
    assert not again.done(), "nobody knows it any more"
    identity.capabilities.issue()
    assert await again == FIRST.authority
