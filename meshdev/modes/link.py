"""What a mode needs of the session, and nothing else of it."""

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from meshdev.intercept.spec import Spec
from meshdev.kube.client import KubeApi
from meshdev.kube.manager import SidecarTerms
from meshdev.wire.intercepts import Report
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

    def agents(self, keys: Collection[str]) -> None:
        """It reaches the agents with these keys (the sha256 of each one's token), all of them and no others."""

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

    async def sidecars(self) -> SidecarTerms:
        """How sidecars reach the manager, and what they run. Raises ForbiddenError, ClusterError."""

    async def agent_token(self, namespace: str, pod: str, container: str) -> str:
        """The token of the agent that runs in that container. Raises MeshdevError kinds that name the reason."""

    async def agent_token_at(self, namespace: str, pod: str, port: int) -> str:
        """The token of the agent that listens on *port* of that pod, where one does. Raises the same."""

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
