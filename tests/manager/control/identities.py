"""Agents with keys of their own, as sessions attest them: made once, since each takes a millisecond."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache

from meshdev.identity.edges import claim_proof
from meshdev.identity.keys import KeyPair
from meshdev.wire.agent import Consents
from meshdev.wire.intercepts import AttestedAgent

#: Workloads whose agents different sessions attest.
OURS, THEIRS = "ours", "theirs"
NAMES = ("b-1", "b-2", "evil", "flood", *(f"h-{each}" for each in range(6)))


@dataclass(frozen=True)
class Identity:
    """One agent: its key, its self-signed certificate and its signing request (DER), and the proof of the capability
    that it gave."""

    name: str
    pair: KeyPair
    certificate: bytes
    request: bytes
    proof: str

    @property
    def key(self) -> str:
        return self.pair.key_id

    @property
    def consents(self) -> Consents:
        return Consents((self.proof,))

    @property
    def attested(self) -> AttestedAgent:
        return AttestedAgent(self.request, self.proof, self.name, f"uid-{self.name}")

    def with_proof(self, proof: str) -> "Identity":
        """The same agent, which gave another capability."""
        return replace(self, proof=proof)


def identity(name: str = "b-1", workload: str = OURS) -> Identity:
    """The agent of that pod; the same one each time."""
    return _made(name, workload)


@cache
def _made(name: str, workload: str) -> Identity:
    pair = KeyPair.generate()
    certificate = pair.self_signed(lifetime=timedelta(days=1), now=datetime.now(UTC))
    return Identity(name, pair, certificate, pair.request(), claim_proof(f"{workload} {name}".encode()))


def agents(*names: str, workload: str = OURS) -> tuple[AttestedAgent, ...]:
    """What a session says of these pods."""
    return tuple(identity(name, workload).attested for name in names)


AGENTS, OTHER_AGENTS = (agents(*NAMES, workload=workload) for workload in (OURS, THEIRS))
