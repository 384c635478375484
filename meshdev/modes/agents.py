"""The agents of an intercept's pods: each is attested as soon as it runs, and is part of the claim from then on.

An ephemeral container is asked on its assigned port from when it is part of the pod's spec: its log can be read up to a
second after it runs, when the kubelet has seen it (docs/design/0013). Whoever answers there is inside that pod. The log
confirms it as soon as it can be read: where it names another certificate, that one is attested instead. The log is also
read where the assigned port does not answer.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final, NamedTuple

from meshdev.errors import ClusterError, MeshdevError
from meshdev.kube.attestation import AgentAddress, Attested, ManagerCertificates
from meshdev.kube.replicas import Replica
from meshdev.modes.keeping import boot_time, first_of
from meshdev.modes.link import Claim, Link
from meshdev.sidecar.join.container import SidecarSpec
from meshdev.wire.attestation import CAPABILITY_SECONDS
from meshdev.wire.intercepts import AttestedAgent, Report

log = logging.getLogger(__name__)

#: Agents that one intercept attests at a time: each takes a port-forward. And whose logs it reads at a time.
AT_ONCE: Final = 8
#: Between two tries, in seconds: from the first to the longest, each within its half and its one and a half.
FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
#: The longest after an agent did not take this manager, at most a second with its spread, and how many times: one whose
#: connection to the former was cut without a word waits for it for 5 s (meshdev.sidecar.agent.control).
_LONGEST_REFUSED_PAUSE: Final = 2 / 3
_REFUSALS: Final = 15
#: The longest where nothing waits for it: an agent that was attested is to be confirmed by its log.
_LONGEST_CONFIRM_PAUSE: Final = 60.0
#: By which factor pauses grow. Nobody knows when a container that starts will answer: with the smaller one a pause is
#: 0.1 s and a tenth of the time that has passed. A try takes 10 ms of everybody's API server: all together are no more
#: than so many a second.
_GROWTH: Final = 2.0
_STARTING_GROWTH: Final = 1.1
_STARTING_TRIES: Final = 40
#: The manager names its certificate in milliseconds, one that has just started once its container *control* runs.
MANAGER_SECONDS: Final = 5.0
#: It issues a certificate in milliseconds.
ISSUE_SECONDS: Final = 3.0
#: A capability is renewed before it lapses; time of a suspended machine counts.
RENEW_SECONDS: Final = CAPABILITY_SECONDS / 2
#: How often is looked whether it is time.
LOOK_SECONDS: Final = 5.0
#: The new proof of an agent that is attested again takes the place of the old one after this time: by then the agent
#: has shown it to the manager, and there is no moment without an edge.
SETTLE_SECONDS: Final = 1.0
#: After the manager was replaced, sessions with the same pods attest their agents at different times within this one:
#: those that another session was first to attest come back by themselves.
REPLACED_SECONDS: Final = 0.5
#: An agent that has left the manager for so long and that runs is attested again: its certificate may have expired.
AWAY_SECONDS: Final = 30.0


class _Process(NamedTuple):
    """One agent: a container that is started again is another *instance*; an ephemeral one never is."""

    uid: str
    namespace: str
    pod: str
    container: str
    instance: str
    port: int = 0


class _Attestation:
    """What is known of an agent."""

    def __init__(self) -> None:
        self.running = asyncio.Event()
        """It is known to run."""
        self.attested: Attested | None = None
        """The last result; it took the manager whose certificate is *manager*."""
        self.manager: bytes | None = None
        self.port = 0
        self.attested_at = 0.0
        self.confirmed = False
        """By its log."""
        self.claimed: AttestedAgent | None = None
        """What the claim names."""
        self.failure = ""
        """Why it is not attested."""
        self.refusals = 0
        """How many times in a row it did not take this connection's manager."""
        self.wake = asyncio.Event()
        """It may be due again."""
        self.lock = asyncio.Lock()
        """One attestation at a time."""


_Attest = Callable[[_Process, _Attestation], Awaitable[None]]


class PodAgents:
    """Follows the pods by :meth:`watched`; works as long as :meth:`run` runs. *changed* gets :attr:`unknown` after
    each change, *note* what the user should know."""

    def __init__(
        self,
        link: Link,
        spec: SidecarSpec,
        claim: Claim,
        *,
        changed: Callable[[Mapping[str, str]], None],
        note: Callable[[str], None],
        clock: Callable[[], float] = boot_time,
    ) -> None:
        self._link = link
        self._spec = spec
        self._claim = claim
        self._changed = changed
        self._note = note
        self._clock = clock
        self._agents: dict[_Process, _Attestation] = {}
        self._back: set[str] = set()
        """Pods that the present manager has reported to be joined."""
        self._away: dict[str, float] = {}
        """Pods that have left it since."""
        self._forwards, self._reads = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_ONCE)
        self._news = asyncio.Event()

    def watched(self, replicas: Mapping[str, Replica]) -> None:
        """The pods as they are now: agents that are gone are taken out of the claim, new ones are attested."""
        wanted = dict(self._wanted(replicas))
        left = self._agents.keys() - wanted.keys()
        for process in left:
            self._away.pop(process.pod, None)
        gone = [self._agents.pop(process) for process in left]
        for process, runs in wanted.items():
            known = self._agents.setdefault(process, _Attestation())
            (known.running.set if runs else known.running.clear)()
        if any(known.claimed is not None for known in gone):
            self._claim_agents()
        self._news.set()

    def reported(self, report: Report) -> None:
        """What the manager reports of a pod: whether its agent has come to it."""
        (self._back.add if report.state in {"acked", "nacked"} else self._back.discard)(report.pod)
        if report.state != "gone":
            self._away.pop(report.pod, None)
        elif any(process.pod == report.pod for process in self._agents):
            self._away.setdefault(report.pod, self._clock())

    @property
    def unknown(self) -> dict[str, str]:
        """Pods whose agent runs and is not attested yet, by name: why not, empty where nothing went wrong."""
        running = ((process, known) for process, known in self._agents.items() if known.running.is_set())
        return {process.pod: known.failure for process, known in running if known.attested is None}

    async def run(self) -> None:
        """Until cancelled."""
        tasks: dict[_Process, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_manager())
            group.create_task(self._look())
            while True:
                for process in tasks.keys() - self._agents.keys():
                    tasks.pop(process).cancel()
                for process in sorted(self._agents.keys() - tasks.keys()):
                    tasks[process] = group.create_task(self._keep_attested(process, self._agents[process]))
                self._news.clear()
                await self._news.wait()

    def _wanted(self, replicas: Mapping[str, Replica]) -> Iterator[tuple[_Process, bool]]:
        ours = (self._spec.manager, self._spec.workload)
        for uid, pod in replicas.items():
            for each in pod.sidecars:
                if (each.manager, each.workload) != ours:
                    continue
                if each.attestation_port:
                    process = _Process(uid, pod.namespace, pod.name, each.name, "", each.attestation_port)
                    yield process, bool(each.instance)
                elif each.instance:
                    yield _Process(uid, pod.namespace, pod.name, each.name, each.instance), True

    async def _follow_manager(self) -> None:
        """Those that are attested are to know each manager that takes the place of another."""
        manager = self._link.manager_certificate
        known = manager.value
        while True:
            known = await manager.changed(known)
            self._back.clear()
            self._wake()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._wake()

    def _wake(self) -> None:
        for known in self._agents.values():
            known.wake.set()

    # -- one agent -------------------------------------------------------------------------------------------------

    async def _keep_attested(self, process: _Process, known: _Attestation) -> None:
        await self._repeat(process, known, self._attest_first)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._confirm(process, known))
            while True:
                await self._until_due(process, known)
                await self._repeat(process, known, self._attest_again)

    async def _confirm(self, process: _Process, known: _Attestation) -> None:
        if not known.confirmed:
            await known.running.wait()
            await self._repeat(process, known, self._attest_by_log, _LONGEST_CONFIRM_PAUSE)

    async def _repeat(
        self, process: _Process, known: _Attestation, attest: _Attest, longest: float = _LONGEST_PAUSE
    ) -> None:
        """Until it succeeds. What was found out to be no agent is waited for as any other."""
        pause, runs = FIRST_PAUSE, known.running.is_set()
        while True:
            try:
                await attest(process, known)
            except MeshdevError as error:
                if known.running.is_set():  # else there is nothing to wonder about yet
                    self._failed(process, known, error)
            else:
                break
            if runs != known.running.is_set():
                pause, runs = FIRST_PAUSE, not runs
            await self._pause(known, pause)
            most = _LONGEST_PAUSE if known.attested is None else longest
            most = _LONGEST_REFUSED_PAUSE if 0 < known.refusals < _REFUSALS else most
            pause = min((_GROWTH if runs else _STARTING_GROWTH) * pause, most)
        known.failure = ""
        self._changed(self.unknown)

    async def _pause(self, known: _Attestation, pause: float) -> None:
        spread = random.uniform(0.5, 1.5)  # noqa: S311 -- spreads requests, guards nothing
        if known.running.is_set():
            await asyncio.sleep(pause * spread)
        else:
            starting = sum(each.attested is None and not each.running.is_set() for each in self._agents.values())
            await first_of(known.running, max(pause, starting / _STARTING_TRIES) * spread)

    def _failed(self, process: _Process, known: _Attestation, error: MeshdevError) -> None:
        if known.failure != error.message:
            log.info("the agent in pod %s is not attested: %s", process.pod, error.message)
        known.failure = error.message
        self._changed(self.unknown)

    async def _until_due(self, process: _Process, known: _Attestation) -> None:
        """Its capability or certificate is to be renewed, or it is to learn of a manager that replaced another."""
        age = RENEW_SECONDS * random.uniform(0.9, 1.0)  # noqa: S311 -- as above
        while True:
            known.wake.clear()
            if known.attested is None:  # it was found out to be no agent: the one that the log names comes first
                await known.wake.wait()
                continue
            now, away = self._clock(), self._away.get(process.pod)
            if now - known.attested_at >= age:
                return
            if away is not None and known.running.is_set() and now - max(away, known.attested_at) >= AWAY_SECONDS:
                return
            if self._is_lost(process, known):
                await asyncio.sleep(REPLACED_SECONDS * random.random())  # noqa: S311 -- as above
                if self._is_lost(process, known):
                    return
            await known.wake.wait()

    def _is_lost(self, process: _Process, known: _Attestation) -> bool:
        """Whether it does not know the manager of now: neither this session nor another has named it."""
        return self._link.manager_certificate.value != known.manager and process.pod not in self._back

    # -- one attestation -------------------------------------------------------------------------------------------

    async def _attest_first(self, process: _Process, known: _Attestation) -> None:
        if process.port:
            try:
                await self._attest(process, known, process.port)
            except MeshdevError:
                if not known.running.is_set():
                    raise
            else:
                return
        await self._attest_by_log(process, known)

    async def _attest_again(self, process: _Process, known: _Attestation) -> None:
        async with known.lock:
            if known.attested is not None:
                await self._attest(process, known, known.port, known.attested.fingerprint)

    async def _attest_by_log(self, process: _Process, known: _Attestation) -> None:
        """The agent that the log names, unless it is the one that was attested."""
        async with self._reads:
            named = await self._link.announced(process.namespace, process.pod, process.container)
        async with known.lock:
            if known.attested is not None and known.attested.fingerprint != named.fingerprint:
                self._found_out(process, known)
            if known.attested is None:
                await self._attest(process, known, named.port, named.fingerprint)
        known.confirmed = True

    def _found_out(self, process: _Process, known: _Attestation) -> None:
        """Withdraw what answered in place of the agent."""
        text = f"pod {process.pod}: another process answered on the port of the sidecar's agent, and is left out"
        log.warning("%s", text)
        self._note(text)
        known.attested = known.manager = None
        self._set_claimed(process, known, None)

    async def _attest(self, process: _Process, known: _Attestation, port: int, expected: str | None = None) -> None:
        """Attest the agent at *port*; the claim names it before it learns of the manager, or as it did before.

        An agent whose edge still holds keeps it until the manager has its new proof.
        """
        await self._manager()
        before, manager, accepted = known.claimed, b"", False

        async def introduce(request: bytes, proof: str) -> ManagerCertificates:
            nonlocal manager
            if not self._has_edge(known, request):
                self._set_claimed(process, known, AttestedAgent(request, proof, process.pod, process.uid))
            issued = await self._issued(request)
            manager = await self._manager()
            return ManagerCertificates(manager, issued)

        try:
            async with self._forwards:
                address = AgentAddress(process.namespace, process.pod, process.uid, port, expected)
                found = await self._link.attest(address, introduce)
            accepted = found.accepted
        finally:
            if not accepted:
                self._set_claimed(process, known, before)
        known.refusals = 0 if accepted else known.refusals + 1
        if not accepted:
            raise ClusterError(f"the sidecar does not take this connection's manager: {found.reason}")
        renewed = self._has_edge(known, found.request)
        known.attested, known.port, known.manager, known.attested_at = found, port, manager, self._clock()
        if renewed:
            await asyncio.sleep(SETTLE_SECONDS)
        self._set_claimed(process, known, AttestedAgent(found.request, found.proof, process.pod, process.uid))

    async def _manager(self) -> bytes:
        """The manager's certificate. Raises ClusterError where it does not come in time."""
        try:
            async with asyncio.timeout(MANAGER_SECONDS):
                found = await self._link.manager_certificate.until(lambda known: known is not None)
        except TimeoutError:
            raise ClusterError(
                "the manager has not named its certificate: its container control does not run"
            ) from None
        return found or b""

    async def _issued(self, request: bytes) -> bytes:
        """The certificate for an agent that the claim names. Raises ClusterError where it does not come in time."""
        try:
            async with asyncio.timeout(ISSUE_SECONDS):
                return await self._claim.issued(request)
        except TimeoutError:
            raise ClusterError(
                f"the manager at {self._spec.manager} has issued no certificate for it within {ISSUE_SECONDS:.0f} "
                "seconds: the log of its container control may say why"
            ) from None

    def _has_edge(self, known: _Attestation, request: bytes) -> bool:
        attested = known.attested
        fresh = self._clock() - known.attested_at < CAPABILITY_SECONDS
        return attested is not None and attested.request == request and fresh

    def _set_claimed(self, process: _Process, known: _Attestation, claimed: AttestedAgent | None) -> None:
        if known.claimed != claimed:
            known.claimed = claimed
            if self._agents.get(process) is known:  # else it is gone
                self._claim_agents()

    def _claim_agents(self) -> None:
        self._claim.agents(known.claimed for known in self._agents.values() if known.claimed is not None)
        self._changed(self.unknown)
