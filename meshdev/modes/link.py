"""What a mode needs of the session, and nothing else of it."""

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from meshdev.intercept.spec import Spec
from meshdev.kube.attestation import AgentAddress, Attested, Introduce
from meshdev.kube.client import KubeApi
from meshdev.kube.manager import SidecarTerms
from meshdev.published import Published
from meshdev.wire.attestation import AgentAnnouncement
from meshdev.wire.intercepts import AttestedAgent, Report
from meshdev.wire.session_intercepts import LocalPort


class ProgressReporter(Protocol):
    """Reports progress to whoever waits for the intercept."""

    def step(self, name: str, text: str) -> None:
        """A step is done."""

    def wait(self, text: str) -> None:
        """What is being waited for."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


class Claim(Protocol):
    """An intercept at the manager, with the return path from there to programs of this machine."""

    async def ready(self) -> None:
        """Return when the manager has relays for it and this machine lets in what they bring.

        Raises InterceptError where the manager refuses, FirewallError where a packet filter of this machine drops it.
        """

    async def proven(self) -> None:
        """The return path works: from now on the kernel refuses connections where no program listens."""

    def agents(self, agents: Iterable[AttestedAgent]) -> None:
        """It reaches these agents, all of them and no others."""

    async def issued(self, request: bytes) -> bytes:
        """The certificate (DER) that the manager issued for the agent with that request, as soon as there is one."""

    def exclude(self, pods: tuple[str, ...]) -> None:
        """Leave these pods (by name) out of it: they have a sidecar, and are none of the workload's any more."""


class Link(Protocol):
    """A connection to a cluster."""

    @property
    def api(self) -> KubeApi:
        """The API server, with the user's own credentials."""

    @property
    def namespace(self) -> str:
        """The connection's."""

    @property
    def manager_namespace(self) -> str:
        """Where its manager is."""

    @property
    def holder(self) -> str:
        """For other people: ``user@host``."""

    @property
    def trace(self) -> bool:
        """Whether requests of its intercepts get a trace context."""

    async def sidecars(self) -> SidecarTerms:
        """How sidecars reach the manager, and what they run. Raises ForbiddenError, ClusterError."""

    @property
    def manager_certificate(self) -> Published[bytes | None]:
        """The manager's certificate (DER), and that of each manager that takes its place; None before one is known."""

    async def announced(self, namespace: str, pod: str, container: str) -> AgentAnnouncement:
        """What the log of that container, which runs, says of its agent. Raises MeshdevError kinds with the reason."""

    async def attest(self, agent: AgentAddress, introduce: Introduce) -> Attested:
        """See :func:`meshdev.kube.attestation.attest`. Raises the same."""

    def claim(
        self,
        spec: Spec,
        *,
        reset_older: bool,
        on_report: Callable[[Report], None],
        on_local: Callable[[tuple[LocalPort, ...]], None],
    ) -> AbstractAsyncContextManager[Claim]:
        """Claim *spec*'s traffic; *on_report* gets what pods report.

        *on_local* gets the local programs in the order of the spec's ports, now and when one starts or stops.

        When the context is left the claim is withdrawn, and each pod that can be reached has reported that it let go.
        """
