"""What several checks need: the kubeconfig, the API server, the manager, the network, the connection."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from importlib import import_module
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

from meshdev.config import MANAGER_LABELS, MANAGER_NAME
from meshdev.doctor.runner import Fact
from meshdev.doctor.verdicts.cluster import ReachedServer
from meshdev.doctor.verdicts.kubeconfig import CredentialFacts
from meshdev.errors import ForbiddenError, ManagerError, MeshdevError
from meshdev.helper.dns import Watched
from meshdev.host.plan import LaptopNetwork
from meshdev.intercept.target import Target
from meshdev.isolation.reasons import Forbidden, Works
from meshdev.kube import kubeconfig, manager
from meshdev.kube.client import KubeApi, deployments_path, open_jump, pods_path
from meshdev.kube.credentials import token_expiry
from meshdev.kube.errors import NotFoundError
from meshdev.kube.kubeconfig import Kubeconfig, Options
from meshdev.kube.podstate import ManagerPod, Waiting, examine, examine_deployment
from meshdev.kube.ranges import watch_ranges
from meshdev.kube.watching import as_is, listed
from meshdev.session.surroundings import look
from meshdev.ssh.jump import Jump
from meshdev.state import Paths
from meshdev.wire.session_api import Status

#: A plugin may ask a server on the internet; it is not asked for a login here, which takes a browser.
_CREDENTIAL_SECONDS: Final = 15.0
#: A session that hangs is given up after 5 s (meshdev.cli.api).
_STATUS_SECONDS: Final = 8.0
#: At a bastion; ssh may ask for a passphrase.
_LOGIN_SECONDS: Final = 60.0
_MANAGER_PODS: Final = {"labelSelector": ",".join(f"{name}={value}" for name, value in sorted(MANAGER_LABELS.items()))}


@dataclass(frozen=True)
class Question:
    """What is to be examined. *status* asks the session, which may take seconds if that hangs."""

    options: Options
    image: str
    paths: Paths
    uid: int
    status: Callable[[], Status]
    helper: Sequence[str]
    """The command that sudo would have to run."""
    manager_namespace: str | None = None
    target: Target | None = None
    terminal: bool = False
    """Whether sudo could ask for a password."""
    isolation: Works | Forbidden = field(default_factory=Works)
    """Whether a network of one's own works, tried while there were no threads yet."""


class DoctorFacts:
    """The facts of one run. Close it."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self._api: KubeApi | None = None
        self.config = Fact("there is no usable kubeconfig", self._load)
        self.bastion = Fact("the bastion does not let you in", self._log_in, _LOGIN_SECONDS)
        self.credentials = Fact(
            "there are no credentials",
            self._authenticate,
            _CREDENTIAL_SECONDS,
            needs=[self.config, self.bastion],
            hint="if it asks for a login, log in once with kubectl",
        )
        self.server = Fact(
            "the API server does not answer",
            self._reach,
            needs=[self.credentials],
            hint="check the address, the network and the proxy: kubectl get --raw /version asks the same server",
        )
        self.manager = Fact("the traffic-manager does not run", self._find_manager, needs=[self.server])
        self.ranges = Fact("the cluster's ranges are not known", self._find_ranges, needs=[self.server])
        self.laptop = Fact("this machine's routes cannot be read", _look)
        self.status = Fact("the session does not answer", lambda: asyncio.to_thread(question.status), _STATUS_SECONDS)

    @property
    def api(self) -> KubeApi:
        """The client; only for checks that need :attr:`server`, or :attr:`credentials` at least."""
        assert self._api is not None  # noqa: S101 -- for mypy: a check without its needs is skipped
        return self._api

    @property
    def namespace(self) -> str:
        """The one that is asked about."""
        return self.api.namespace

    @property
    def manager_namespace(self) -> str:
        """The manager's."""
        return self.question.manager_namespace or self.namespace

    async def running_manager(self) -> ManagerPod | None:
        """The manager where one runs; None too where it does not start, which another check reports."""
        with suppress(MeshdevError):
            return await self.manager.get()
        return None

    async def close(self) -> None:
        """Close all connections."""
        if self._api is not None:
            await self._api.close()

    async def _load(self) -> Kubeconfig:
        return await asyncio.to_thread(kubeconfig.load, self.question.options)

    async def _log_in(self) -> Jump | None:
        return await asyncio.to_thread(open_jump, self.question.options)

    async def _authenticate(self) -> CredentialFacts:
        config, jump = await self.config.get(), await self.bastion.get()
        await asyncio.to_thread(import_module, "meshdev.kube.rest")  # 0.4 s, of which the credentials take nothing
        started = time.monotonic()
        try:
            self._api = await KubeApi.open(self.question.options, jump)
        except BaseException:
            if jump is not None:
                jump.close()
            raise
        kind, plugin, left = _described(config)
        return CredentialFacts(kind, plugin, time.monotonic() - started, left)

    async def _reach(self) -> ReachedServer:
        api = self.api
        await api.get("/version")  # opens the connection
        started = time.monotonic()
        await api.get("/version")
        endpoint = api.endpoint
        return ReachedServer(str(endpoint), endpoint.secure, endpoint.verify, time.monotonic() - started)

    async def _find_manager(self) -> ManagerPod | None:
        """None where there is none. Raises what keeps one from running."""
        api, namespace = self.api, self.manager_namespace
        found = await manager.find_pod(api, namespace)
        if found is not None:
            return found
        try:
            deployment = await api.get(deployments_path(namespace, MANAGER_NAME))
        except (NotFoundError, ForbiddenError):
            return None
        waiting = examine_deployment(deployment)
        pods, _ = await listed(api, pods_path(namespace), _MANAGER_PODS, as_is)
        states = [examine(pod) for pod in pods.values()]
        reason = next((each.reason for each in (waiting, *states) if isinstance(each, Waiting)), "there is no pod yet")
        raise ManagerError(
            f"the traffic-manager in namespace {namespace} does not run: {reason}",
            hint=f"kubectl -n {namespace} describe deployment {MANAGER_NAME}",
        )

    async def _find_ranges(self) -> tuple[IPv4Network, ...]:
        async with aclosing(watch_ranges(self.api, lambda _: None)) as states:
            found = await anext(states)
        return tuple(sorted(found.services | found.pods))


async def _look() -> LaptopNetwork:
    return await asyncio.to_thread(lambda: look(Watched().read().nameservers))


def _described(config: Kubeconfig) -> tuple[str, bool, float | None]:
    """Kind of the credentials, whether a plugin prints them, and seconds until they run out, where that is written."""
    user: Any = config.user
    if user.get("tokenFile"):
        return f"a token from {user['tokenFile']}", False, None
    if user.get("token"):
        expires = token_expiry(str(user["token"]))
        return "a token", False, None if expires is None else expires.timestamp() - time.time()
    if user.get("client-certificate") or user.get("client-certificate-data"):
        return "a client certificate", False, None
    if user.get("exec"):
        return f"the plugin {Path(str(user['exec'].get('command'))).name}", True, None
    if user.get("auth-provider"):
        return f"the auth-provider {user['auth-provider'].get('name')}", False, None
    return ("a password" if user.get("username") or config.authorization else ""), False, None
