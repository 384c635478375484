"""The session's side of the cluster: the manager it uses, the carriers it dials, the ranges it learns."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, TypeVar

from meshdev.config import DEFAULT_IMAGE, IMAGE_VARIABLE, TUNNEL_PORT
from meshdev.errors import (
    ConfigError,
    ManagerBusyError,
    MeshdevError,
    PortForwardError,
    RefusedError,
    TunnelError,
    VersionError,
)
from meshdev.kube import manager
from meshdev.kube.client import KubeApi
from meshdev.kube.kubeconfig import Options
from meshdev.kube.manager import Created
from meshdev.kube.manifest import ManagerSpec
from meshdev.kube.podstate import ManagerPod
from meshdev.kube.portforward import PortForward, SwallowedError, dial
from meshdev.kube.ranges import advertised_addresses, watch_addresses, watch_ranges
from meshdev.session.progress import Progress
from meshdev.session.routing import Routing
from meshdev.session.state import SessionState
from meshdev.ssh.jump import Jump
from meshdev.wire.framing import CARRIER_KINDS, CarrierKind
from meshdev.wire.session_api import ConnectOptions

log = logging.getLogger(__name__)

T = TypeVar("T")

#: One try to dial, in seconds: API server and kubelet answer in milliseconds, or not at all.
DIAL_SECONDS: Final = 5.0
#: The first list of Services and endpoints may keep a connect waiting for so long, in seconds.
ADDRESSES_SECONDS: Final = 10.0
#: Between two tries to list them with credentials that are not accepted, in seconds: a plugin may run each time.
CREDENTIALS_SECONDS: Final = 30.0
#: Time for one deletion while undoing, in seconds.
UNDO_SECONDS: Final = 5.0


class CarrierOrder:
    """All kinds of carriers, the most promising first.

    The first kind that ever worked is preferred. One that was refused by an answer costs nothing and keeps its
    place, as another network may pass it. One that was dropped or cut off costs seconds each time: it comes last,
    until the others are dropped as well.
    """

    def __init__(self, kinds: Sequence[CarrierKind]) -> None:
        self._kinds = tuple(kinds)
        self._preferred: str | None = None
        self._avoided: str | None = None

    @property
    def kinds(self) -> tuple[CarrierKind, ...]:
        """In the order in which they are to be tried."""
        return tuple(sorted(self._kinds, key=lambda kind: (kind == self._avoided, kind != self._preferred)))

    def works(self, kind: str) -> None:
        """The manager answered through one of *kind*."""
        self._preferred = self._preferred or kind
        if self._avoided == kind:
            self._avoided = None

    def swallowed(self, kind: str) -> None:
        """Nothing came back through one of *kind*, or it was cut off before anything did."""
        self._avoided = kind


@asynccontextmanager
async def opened_cluster(
    options: ConnectOptions, progress: Progress, jump: Jump | None = None
) -> AsyncIterator["Cluster"]:
    """The cluster of a kubeconfig; nothing in it is touched before :meth:`Cluster.find_manager`.

    When the context is left all connections to the API server are closed, with the *jump* that they go through, and
    what a connect that failed had created is taken back.
    """
    api = await KubeApi.open(
        Options(
            kubeconfig=options.kubeconfig,
            context=options.context,
            directory=options.directory,
            namespace=options.namespace,
            as_user=options.as_user,
            request_timeout=options.request_timeout,
        ),
        jump,
    )
    if jump is not None:
        await jump.addresses()  # and its name, which is never the cluster's
    cluster = Cluster(api, options, progress)
    for note in cluster.notes:
        progress.note(note)
    progress.step("cluster", f"context {api.context}, namespace {api.namespace}, {api.server}")
    try:
        yield cluster
    finally:
        await cluster.close()


class Cluster:
    """One context of a kubeconfig and the manager in it. Made by :func:`opened_cluster`."""

    def __init__(self, api: KubeApi, options: ConnectOptions, progress: Progress) -> None:
        self.api = api
        self.manager_namespace = options.manager_namespace or api.namespace
        self._options = options
        self._progress = progress
        self._pod: ManagerPod | None = None
        self._order = CarrierOrder(CARRIER_KINDS if options.carrier == "auto" else (options.carrier,))
        self._created: list[Created] = []
        self._noted: set[str] = set()
        self.connected = False
        """Set once the connection stands: from then on the manager stays in the cluster."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the connection to the API server."""
        if self.api.endpoint.verify or not self.api.endpoint.secure:
            return ()
        return (f"{self.api.server} is not verified (insecure-skip-tls-verify): anybody in between can impersonate it",)

    def show(self, state: SessionState) -> SessionState:
        """*state*, with what is known here."""
        api = self.api
        return replace(
            state,
            context=api.context,
            namespace=api.namespace,
            server=api.server,
            ssh=self._options.ssh,
            manager_namespace=self.manager_namespace,
            notes=(*state.notes, *self.notes),
        )

    async def find_manager(self) -> None:
        """Find or make the manager."""
        api, progress = self.api, self._progress
        self._pod = await manager.ensure(
            api, self._spec(), progress=progress.wait, on_created=self._created.append, note=self._note
        )
        replaced = ""
        if self._options.upgrade and (
            pod := await manager.upgrade(api, self._spec(), progress=progress.wait, note=self._note)
        ):
            self._pod, replaced = pod, "replaced by "
        progress.step("manager", f"{replaced}pod {self._pod.namespace}/{self._pod.name}")

    async def replace_manager(self, error: VersionError) -> None:
        """Another version of the manager, where nobody else needs the one that runs. Raises *error* where that one
        is what there is.
        """
        if error.sessions and not self._options.upgrade:
            others = "another session is" if error.sessions == 1 else f"{error.sessions} other sessions are"
            raise ManagerBusyError(
                f"the manager speaks another protocol than this meshdev, and {others} on it: {error.message}",
                hint="ask them to disconnect, or replace it under them: meshdev connect --upgrade",
            )
        pod = await manager.upgrade(self.api, self._spec(), progress=self._progress.wait, note=self._note)
        if pod is None:
            raise error
        self._pod = pod
        self._progress.step("manager", f"replaced by pod {pod.namespace}/{pod.name}")

    async def dial(self) -> PortForward:
        """A new carrier to the manager's pod as it is now: a port-forward to one that is ending may still come about.

        All kinds are tried: another network may let another one pass.
        """
        pod, self._pod = self._pod or await self._find_pod(), None
        return await self._forward(pod.namespace, pod.name, TUNNEL_PORT, self._order.swallowed)

    async def forward(self, namespace: str, pod: str, port: int) -> PortForward:
        """A port-forward to any pod. Whether one of them answers proves nothing about the networks in between."""
        return await self._forward(namespace, pod, port, lambda _: None)

    async def _forward(
        self, namespace: str, pod: str, port: int, swallowed: Callable[[CarrierKind], None]
    ) -> PortForward:
        """By the first kind of carrier that is let through; *swallowed* is called with those that got no answer."""
        kinds = self._order.kinds
        for kind in kinds:
            try:
                return await dial(self.api, namespace, pod, port, kind, DIAL_SECONDS)
            except PortForwardError as error:
                if isinstance(error, SwallowedError):
                    swallowed(kind)
                if kind == kinds[-1]:
                    raise
                log.info("%s; trying the next kind", error.message)
        raise AssertionError  # pragma: no cover -- the last kind returned or raised

    def greeted(self, kind: str, error: MeshdevError | None) -> None:
        """What became of a carrier of *kind*: the manager answered, or it did not (*error*). The next dial remembers.

        A middlebox may answer the upgrade like the server, and pass nothing of what comes then.
        """
        if error is None:
            self._order.works(kind)
        elif isinstance(error, TunnelError) and not isinstance(error, PortForwardError | VersionError | RefusedError):
            log.info("no answer of the manager over %s: %s", kind, error.message)
            self._order.swallowed(kind)

    async def learn_ranges(self, routing: Routing, group: asyncio.TaskGroup) -> None:
        """Route what the user may see, now and as it changes; whole ranges for users who may list them."""
        api = self.api
        if api.endpoint.jump is None:  # else nothing of ours goes there directly
            await routing.keep_outside(await advertised_addresses(api))
        ranges, addresses = asyncio.Event(), asyncio.Event()
        group.create_task(follow(lambda: watch_ranges(api, log.info, log_interruption), routing.set_ranges, ranges))
        group.create_task(
            follow(
                lambda: watch_addresses(api, api.namespace, log.info, log_interruption), routing.set_objects, addresses
            )
        )
        try:
            async with asyncio.timeout(ADDRESSES_SECONDS):
                await ranges.wait()
                await addresses.wait()
        except TimeoutError:  # they are routed when they are known
            log.warning("the addresses of Services, pods and nodes are not all known yet")
            ranges.set()
            addresses.set()
        await routing.find_translations()

    def forget_connection(self) -> None:
        """The connect was cancelled after all: what it created is taken back by :meth:`close`."""
        self.connected = False

    async def close(self) -> None:
        """Close all connections to the API server, and take back what a connect that failed had created."""
        if not self.connected:
            for created in self._created:
                try:
                    # Not asyncio.timeout: in a task that was cancelled, Python before 3.11.3 raises no TimeoutError.
                    await asyncio.wait_for(manager.undo(self.api, created), UNDO_SECONDS)
                except (MeshdevError, TimeoutError) as error:  # the connections below are closed all the same
                    why = str(error) or "no answer"
                    log.warning("%s in namespace %s is left: %s", created.name, created.namespace, why)
        await self.api.close()

    async def _find_pod(self) -> ManagerPod:
        pod = await manager.find_pod(self.api, self._spec().namespace, self._note)
        if pod is None:
            raise PortForwardError("no manager pod is running")
        return pod

    def _note(self, text: str) -> None:
        """Once a session: what is noted is looked at again with each reconnect."""
        if text not in self._noted:
            self._noted.add(text)
            self._progress.note(text)

    def _spec(self) -> ManagerSpec:
        options = self._options
        secret = options.image_pull_secret
        return ManagerSpec(
            namespace=self.manager_namespace,
            image=options.image or os.environ.get(IMAGE_VARIABLE) or DEFAULT_IMAGE,
            pull_secrets=(secret,) if secret else (),
        )


async def follow(
    watch: Callable[[], AsyncGenerator[T]],
    take: Callable[[T], Awaitable[None]],
    first: asyncio.Event,
    *,
    required: bool = True,
) -> None:
    """Give *take* what *watch* yields; *first* is set once it did. Credentials that run out later end nothing: the
    tunnel needs new ones only to redial. Where the first value is *required* they are an error until then.
    """
    while True:
        changes = watch()
        try:
            async with contextlib.aclosing(changes):
                async for found in changes:
                    await take(found)
                    first.set()
        except ConfigError as error:  # CredentialError is its kind
            if required and not first.is_set():
                raise
            log_interruption(error)
        else:
            return
        await asyncio.sleep(CREDENTIALS_SECONDS)


def log_interruption(error: Exception) -> None:
    """A watch cannot go on for now."""
    log.info("the cluster cannot be followed for now: %s", error)
