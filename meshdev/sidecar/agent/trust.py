"""Whom an agent trusts: the sessions that it gave capabilities to, and the manager that one of them vouched for.

Nothing of this is in a file. A session may attest the agent by its right to open port-forwards to the pod
(docs/security.md); the agent cannot tell sessions apart, and need not.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.identity.edges import claim_proof, manager_proof, new_capability, proof_matches
from meshdev.identity.fingerprints import fingerprint
from meshdev.identity.tls import is_certificate
from meshdev.published import Published
from meshdev.sidecar.agent.issued import IssuedIdentity
from meshdev.sidecar.agent.own_key import OwnKey
from meshdev.wire.agent import MAX_CONSENTS, IssuedCertificate
from meshdev.wire.attestation import CAPABILITY_SECONDS, ManagerOffer, ManagerVerdict

log = logging.getLogger(__name__)


class Capabilities:
    """What was given to sessions, by the proofs that they show the manager. *clock* is in seconds and never goes back.

    :attr:`proofs` are published, the oldest first, as they change.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ends: dict[str, float] = {}
        """By proof, in order: each lives as long as the others."""
        self.proofs: Final[Published[tuple[str, ...]]] = Published(())

    def issue(self) -> bytes:
        """A new capability. The oldest makes room where the manager would take no more of one agent."""
        capability = new_capability()
        self._ends[claim_proof(capability)] = self._clock() + CAPABILITY_SECONDS
        if len(self._ends) > MAX_CONSENTS:
            del self._ends[next(iter(self._ends))]
        self._publish()
        return capability

    def withdraw(self, proof: str) -> None:
        """Forget the one with that proof, if there is one."""
        if self._ends.pop(proof, None) is not None:
            self._publish()

    def lapse(self) -> float:
        """Forget those whose time is over. In how many seconds this is due again, whatever is issued meanwhile."""
        now = self._clock()
        lapsed = [proof for proof, end in self._ends.items() if end <= now]
        for proof in lapsed:
            del self._ends[proof]
        self._publish()
        return next((end - now for end in self._ends.values()), CAPABILITY_SECONDS)

    def _publish(self) -> None:
        self.proofs.publish(tuple(self._ends))


class ManagerTrust:
    """Which manager the agent serves: the one whose certificate is :attr:`certificate`. None is known at first."""

    def __init__(self) -> None:
        self.certificate: Final[Published[bytes | None]] = Published(None)
        self.lost = True
        """No stream to that manager is up (set by whoever has it). While one is, no other manager takes its place."""

    def objection(self, offer: ManagerOffer, capability: bytes) -> str:
        """Why the manager of *offer*, which came on the connection that *capability* was issued on, is not taken."""
        if not proof_matches(offer.proof, manager_proof(capability, offer.certificate)):
            return "the proof does not match the manager's certificate"
        if offer.certificate == self.certificate.value:
            return ""
        if self.certificate.value is not None and not self.lost:
            return "another manager serves this sidecar, and is not lost"
        return "" if is_certificate(offer.certificate) else "the manager's certificate cannot be read"

    def take(self, certificate: bytes) -> None:
        """Serve the manager that has this one."""
        if certificate != self.certificate.value:
            log.info("the manager's certificate is %s", fingerprint(certificate))
            self.certificate.publish(certificate)


@dataclass(frozen=True)
class AgentIdentity:
    """Who this agent is, and whom it trusts."""

    key: OwnKey
    capabilities: Capabilities
    trust: ManagerTrust
    issued: IssuedIdentity

    def consider(self, offer: ManagerOffer, capability: bytes) -> ManagerVerdict:
        """Take the manager of *offer*, and what it issued, or say why not (:meth:`ManagerTrust.objection`).

        As long as a stream to it is up, the manager itself renews what it issued: a session may have an older one.
        """
        if objection := self.trust.objection(offer, capability):
            return ManagerVerdict(False, objection)
        if self.trust.lost:
            try:
                self.issued.take(IssuedCertificate(offer.issued, offer.certificate))
            except ProtocolError as error:
                return ManagerVerdict(False, error.message)
        self.trust.take(offer.certificate)
        return ManagerVerdict(True)

    async def attested(self) -> bytes:
        """Wait for a session that knows this agent; the certificate of the manager that it vouched for."""
        while True:
            await self.capabilities.proofs.until(bool)
            manager = await self.trust.certificate.until(lambda known: known is not None)
            if manager is not None and self.capabilities.proofs.value:
                return manager


def new_identity(key: OwnKey) -> AgentIdentity:
    """That of an agent that nobody has attested."""
    return AgentIdentity(key, Capabilities(time.monotonic), ManagerTrust(), IssuedIdentity(key))
