"""An intercept against a cluster that keeps state: the session it belongs to, the manager, and the pods' reports."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from meshdev.errors import ClusterError, MeshdevError
from meshdev.identity.fingerprints import fingerprint
from meshdev.intercept.spec import Spec
from meshdev.kube.attestation import AgentAddress, Attested, Introduce
from meshdev.kube.client import KubeApi
from meshdev.kube.manager import SidecarTerms
from meshdev.modes.holding import hold
from meshdev.modes.intent import intent
from meshdev.modes.link import Claim
from meshdev.modes.state import InterceptState
from meshdev.published import Published
from meshdev.wire.attestation import AgentAnnouncement
from meshdev.wire.intercepts import AttestedAgent, Report
from meshdev.wire.modes import MESH
from meshdev.wire.session_intercepts import InterceptRequest, InterceptStatus, LocalPort
from tests.kube.fake_api import FakeApi
from tests.kube.objects import put_workload, workload
from tests.waiting import until

LEASES = ("leases", "coordination.k8s.io")


class Progress:
    """Everything that was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def step(self, name: str, text: str) -> None:
        self.told.append(f"{name}: {text}")

    def wait(self, text: str) -> None:
        self.told.append(f"… {text}")

    def note(self, text: str) -> None:
        self.told.append(f"! {text}")


class FakeClaim:
    """The manager's side. Pods that have a sidecar report as told."""

    def __init__(self, trouble: MeshdevError | None) -> None:
        self.trouble = trouble
        self.was_proven = False
        self.excluded: tuple[str, ...] = ()
        self.attested: tuple[AttestedAgent, ...] = ()

    def agents(self, agents: Iterable[AttestedAgent]) -> None:
        self.attested = tuple(agents)

    def exclude(self, pods: tuple[str, ...]) -> None:
        self.excluded = pods

    async def issued(self, request: bytes) -> bytes:
        return b"issued for " + request

    async def ready(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    async def proven(self) -> None:
        self.was_proven = True


class FakeLink:
    """A session that has one claim at a time."""

    namespace = manager_namespace = "default"
    holder = "jane@laptop"
    trace = False

    def __init__(self, api: KubeApi, fake: FakeApi) -> None:
        self.api = api
        self.fake = fake
        self.trouble: MeshdevError | None = None
        self.manager_certificate: Published[bytes | None] = Published(b"manager")
        self.certificates: dict[tuple[str, str], bytes] = {}
        """Of the agents that answer, by pod and container."""
        self.asked: list[str] = []
        self.claims: list[FakeClaim] = []
        self.spec: Spec | None = None
        self.hear: Callable[[Report], None] = lambda _: None
        self.withdrawn_before_the_lease = False

    async def announced(self, _namespace: str, pod: str, container: str) -> AgentAnnouncement:
        self.asked.append(pod)
        if (pod, container) not in self.certificates:
            raise ClusterError("nothing is announced")
        return AgentAnnouncement(16300, fingerprint(self.certificates[pod, container]))

    async def attest(self, agent: AgentAddress, introduce: Introduce) -> Attested:
        found = [each for (pod, _), each in self.certificates.items() if pod == agent.pod]
        if agent.port != 16300 or not found:
            raise ClusterError(f"nothing answers on port {agent.port} of pod {agent.pod}")
        introduced = await introduce(found[0], "proof")
        assert introduced == (self.manager_certificate.value, b"issued for " + found[0])
        return Attested(found[0], fingerprint(found[0]), "proof", accepted=True)

    async def sidecars(self) -> SidecarTerms:
        return SidecarTerms("10.96.0.5:15010", "sidecar:1")

    def claim(
        self,
        spec: Spec,
        *,
        reset_older: bool,
        on_report: Callable[[Report], None],
        on_local: Callable[[tuple[LocalPort, ...]], None],
    ) -> AbstractAsyncContextManager[Claim]:
        assert not reset_older

        @asynccontextmanager
        async def claimed() -> AsyncIterator[Claim]:
            self.spec, self.hear = spec, on_report
            on_local((LocalPort(8080, "tcp", True),))
            self.claims.append(FakeClaim(self.trouble))
            try:
                yield self.claims[-1]
            finally:
                self.withdrawn_before_the_lease = bool(self.fake.names(*LEASES))

        return claimed()

    def report(self, name: str = "b-1", **more: Any) -> None:
        assert self.spec is not None
        self.hear(Report(self.spec.id, name, **{"state": "acked", "return_path": "open", "up": 1, **more}))


class World:
    """A Deployment with a pod, and one intercept of it."""

    def __init__(self, fake: FakeApi, api: KubeApi, **asked: Any) -> None:
        put_workload(fake, workload(), "b-1")
        self.fake, self.api, self.progress = fake, api, Progress()
        self.link = FakeLink(api, fake)
        request = InterceptRequest(**{"target": "deployment/b", "mode": MESH, "headers": ("a=1",), **asked})
        self.intent = intent(request)
        self.state = Published(InterceptState(time.monotonic()))

    def sidecars(self, name: str = "b-1") -> list[str]:
        made = self.fake.objects["", "pods"]["default", name]
        return [each["name"] for each in made["spec"].get("ephemeralContainers") or []]

    async def run(self) -> None:
        await hold(self.link, self.intent, self.progress, self.state)

    @property
    def up(self) -> bool:
        return self.state.value.up

    def status(self) -> InterceptStatus:
        status = self.state.value.status(time.monotonic())
        assert status is not None
        return status

    def nothing_left(self) -> None:
        assert self.fake.names(*LEASES) == []

    @asynccontextmanager
    async def holding_it(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.ensure_future(self.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def comes_up(self) -> None:
        await until(self.sidecars)
        self.link.report()
        await until(lambda: self.up)
