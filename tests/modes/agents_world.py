"""The link and the claim of an intercept, for its agents: what answers in pods, and what is claimed of them."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from meshdev.errors import ClusterError
from meshdev.identity.fingerprints import fingerprint
from meshdev.kube.attestation import AgentAddress, Attested, Introduce, ManagerCertificates
from meshdev.kube.replicas import Replica, Sidecar
from meshdev.modes.agents import PodAgents
from meshdev.modes.link import Claim, Link
from meshdev.published import Published
from meshdev.sidecar.join.container import SidecarSpec
from meshdev.wire.attestation import AgentAnnouncement
from meshdev.wire.intercepts import AttestedAgent, Report, ReportState

SPEC = SidecarSpec("sidecar:1", "10.96.0.5:15010", "default", "w")
FIRST, SECOND = b"first manager", b"second manager"
LOG_PORT, PORT = 16350, 16201


def pod(name: str, instance: str = "containerd://1", **more: Any) -> Replica:
    state: Any = "running" if instance else "starting"
    how = {"workload": "w", "instance": instance, **more}
    ours = Sidecar("meshdev-1", "ephemeral", state, SPEC.manager, "default", "sidecar:1", **how)
    return Replica("default", name, f"uid-{name}", "10.244.0.7", "node1", True, False, (ours,))


@dataclass
class Pod:
    """What answers in a pod, by port; certificates are texts, and requests the same. What its log names, once that can
    be read."""

    answers: dict[int, bytes] = field(default_factory=dict)
    named: AgentAnnouncement | None = None
    introduced: ManagerCertificates | None = None
    refuses: str = ""

    @property
    def manager(self) -> bytes | None:
        return self.introduced.manager if self.introduced is not None else None


class AgentsWorld:
    """The link and the claim. A pod's agent has the pod's name as its certificate; in *broken* nothing answers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.notes: list[str] = []
        self.agents = PodAgents(
            cast("Link", self),
            SPEC,
            cast("Claim", _Claim(self)),
            changed=self.changed,
            note=self.notes.append,
            clock=lambda: self.now,
        )
        self.manager_certificate: Published[bytes | None] = Published(FIRST)
        self.pods: dict[str, Pod] = {}
        self.broken: set[str] = set()
        self.claimed: tuple[AttestedAgent, ...] = ()
        self.claims: list[frozenset[tuple[str, str]]] = []
        self.reasons: list[Mapping[str, str]] = []
        """Each time why agents are not attested, by pod."""
        self.read = self.tried = self.attested = 0
        self.attesting = self.most = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.may_issue = asyncio.Event()
        self.may_issue.set()

    async def announced(self, _namespace: str, name: str, _container: str) -> AgentAnnouncement:
        await asyncio.sleep(0)
        self.read += 1
        found = self._there(name).named
        if found is None or name in self.broken:
            raise ClusterError(f"{name} is broken")
        return found

    async def attest(self, agent: AgentAddress, introduce: Introduce) -> Attested:
        self.attesting += 1
        self.tried += 1
        self.most = max(self.most, self.attesting)
        try:
            await self.may_answer.wait()
            return await self._attest(agent, introduce)
        finally:
            self.attesting -= 1

    def _there(self, name: str) -> Pod:
        key = name.encode()
        return self.pods.setdefault(name, Pod({LOG_PORT: key}, AgentAnnouncement(LOG_PORT, fingerprint(key))))

    async def _attest(self, agent: AgentAddress, introduce: Introduce) -> Attested:
        there = self._there(agent.pod)
        certificate = there.answers.get(agent.port)
        if certificate is None or agent.pod in self.broken:
            raise ClusterError(f"nothing answers on port {agent.port}")
        if agent.fingerprint not in (None, fingerprint(certificate)):
            raise ClusterError("another key")
        assert agent.uid == f"uid-{agent.pod}"
        self.attested += 1
        proof = f"proof {self.attested}"
        introduced = await introduce(certificate, proof)
        if there.refuses:
            return Attested(certificate, fingerprint(certificate), proof, False, there.refuses)
        there.introduced = introduced
        return Attested(certificate, fingerprint(certificate), proof, True)

    def claim(self, agents: Iterable[AttestedAgent]) -> None:
        self.claimed = tuple(agents)
        self.claims.append(frozenset((each.pod, each.proof) for each in self.claimed))

    async def issued(self, request: bytes) -> bytes:
        await self.may_issue.wait()
        assert request in {each.request for each in self.claimed}, "it is issued for those that are named"
        return b"issued for " + request

    def changed(self, unknown: Mapping[str, str]) -> None:
        self.reasons.append(unknown)

    def watched(self, *pods: Replica) -> None:
        self.agents.watched({each.uid: each for each in pods})

    def has(self, *names: str) -> bool:
        assert all(each.uid == f"uid-{each.pod}" for each in self.claimed)
        return sorted(each.request for each in self.claimed) == sorted(name.encode() for name in names)

    def proof(self) -> str:
        (one,) = self.claimed
        return one.proof

    def report(self, name: str, state: ReportState) -> None:
        self.agents.reported(Report("1" * 32, name, state))

    @property
    def idle(self) -> bool:
        return self.attesting == 0


class _Claim:
    def __init__(self, world: AgentsWorld) -> None:
        self.agents = world.claim
        self.issued = world.issued


@asynccontextmanager
async def running(world: AgentsWorld) -> AsyncIterator[None]:
    task = asyncio.ensure_future(world.agents.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
