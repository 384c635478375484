"""A pod of a world without I/O: its agent and its Envoy, which read one message at a time when the test says so."""

import itertools
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from envoy.config.cluster.v3 import cluster_pb2

from meshdev.intercept import spec as specs
from meshdev.intercept.spec import Spec
from meshdev.manager.control.xds import DiscoveryAnswer
from meshdev.sidecar.envoy import names
from meshdev.sidecar.envoy.protos import CLUSTERS, ENDPOINTS, LISTENERS, ORDER, ROUTES
from meshdev.wire.agent import (
    AgentHello,
    Consents,
    FromControl,
    IssuedCertificate,
    Listen,
    PodPort,
    ProbeRelays,
    Redirect,
    State,
    Want,
)
from tests.manager.control.identities import identity
from tests.manager.control.sidecars import MESSAGES, NAMED_BY

if TYPE_CHECKING:
    from tests.manager.control.world import World


class SidecarPod:
    """Agent and Envoy of one pod, each there or not. They read one message at a time, when the test says so."""

    def __init__(self, world: "World", name: str, address: IPv4Address) -> None:
        self._world = world
        self.name, self.address = name, address
        self.peer = address
        """Where it seems to be to control."""
        self.proofs: tuple[str, ...] = (identity(name).proof,)
        self.certificate: IssuedCertificate | None = None
        self.agent: Any = None
        self.envoy: Any = None
        self.refuses = b""
        self.applies = True
        """Its passthrough worker does what it is told at once."""
        self.sent: list[str] = []
        """What control has sent to either of them, in order, by kind."""
        self.slow = False
        """Whether a new stream's first report comes after all that Envoy is sent."""
        self._processes = itertools.count(1)
        self.begin_agent()
        self._forget_envoy()

    def begin_agent(self) -> None:
        """Another process of the agent, which has another folder."""
        self.folder = f"/tmp/meshdev-{self.name}-{next(self._processes)}"
        self.want: Want | None = None
        self.redirect: Redirect | None = None
        self._applied = 0
        self.probes: ProbeRelays | None = None
        self._listen: dict[PodPort, int] = {}
        self._silent = False
        self._inbox: list[FromControl] = []

    def _forget_envoy(self) -> None:
        self.envoy_folder = self.folder
        self.has: dict[str, dict[str, Any]] = {kind: {} for kind in ORDER}
        self._asked: dict[str, frozenset[str]] = {}
        self._nonces: dict[str, str] = {}
        self._answers: list[DiscoveryAnswer] = []

    @property
    def uid(self) -> str:
        return f"uid-{self.name}"

    def connect_agent(self, *, again: bool = False, report: bool = True) -> None:
        """*again*: the same process, which lost its stream. Without *report* its first report is a step."""
        if again:
            self._inbox.clear()
        else:
            self.begin_agent()
        hello = AgentHello(self.name, self.uid, "default", self.address)
        self.agent = self._world.core.agent_connected(identity(self.name).key, self.peer, hello, self._send)
        self.consent(*self.proofs)
        self._silent = True
        if report:
            self._report_first()

    def consent(self, *proofs: str) -> None:
        """Say whom it knows."""
        self.proofs = proofs
        self._world.core.agent_reported(identity(self.name).key, self.uid, self.agent, Consents(proofs))

    def _report_first(self) -> None:
        self._silent = False
        if self._listen:
            self._world.core.agent_reported(identity(self.name).key, self.uid, self.agent, self._listens())
        self.report()

    def _send(self, message: FromControl) -> None:
        self.sent.append(type(message).__name__)
        self._inbox.append(message)

    def _answer(self, answers: list[DiscoveryAnswer]) -> None:
        self.sent += ["answer"] * len(answers)
        self._answers += answers

    def disconnect_agent(self, *, ends: bool = True) -> None:
        """*ends*: the process does, and not its stream alone."""
        self._world.core.agent_disconnected(identity(self.name).key, self.uid, self.agent)
        self.agent = None
        self._inbox.clear()
        self._silent = False
        self._forget_number()
        if ends:
            self.begin_agent()

    def _forget_number(self) -> None:
        """Another stream has numbers of its own."""
        self._applied = 0
        if self.redirect is not None:
            self.redirect = replace(self.redirect, number=0)

    def lose_manager(self) -> None:
        """Both streams end, and nothing else: control is another process."""
        self.agent = self.envoy = None
        self._forget_number()
        self._inbox.clear()
        self._answers.clear()
        self._silent = False

    def connect_envoy(self, *, again: bool = False) -> None:
        """*again*: it had lost its stream alone, and has what it had."""
        had = self.has, self._asked, self.envoy_folder
        self._forget_envoy()
        if again:
            self.has, self._asked, self.envoy_folder = had
        self.envoy = self._world.core.envoy_connected(
            identity(self.name).key, self.uid, self._answer, has_resources=again
        )
        for kind in ORDER:
            if kind in {CLUSTERS, LISTENERS} or self._asked.get(kind):
                self._ask(kind)

    def envoy_ended(self, former: Any) -> None:
        """One in whose place there is another."""
        self._world.core.envoy_disconnected(identity(self.name).key, self.uid, *former)

    def disconnect_envoy(self, *, ends: bool = True) -> None:
        """*ends*: the process does, and not its stream alone."""
        self._world.core.envoy_disconnected(identity(self.name).key, self.uid, *self.envoy)
        self.envoy = None
        self._answers.clear()
        if ends:
            self._forget_envoy()

    def report(self, **more: Any) -> None:
        """What is redirected, as it was asked for."""
        if self.applies and self.redirect:
            self._applied = self.redirect.number
        state = State(self.redirect.ports if self.redirect else (), applied=self._applied, **more)
        self._world.core.agent_reported(identity(self.name).key, self.uid, self.agent, state)

    def step(self) -> bool:
        """Take one message each; whether there was one."""
        if self._silent and not (self.slow and self._answers):
            self._report_first()
            return True
        if self._inbox:
            self._hear(self._inbox.pop(0))
            return True
        if self._answers:
            self._take(self._answers.pop(0))
            return True
        return False

    def _hear(self, message: FromControl) -> None:
        match message:
            case Want(ports):
                self.want = message
                for each in ports:
                    self._listen.setdefault(each.port, 15800 + len(self._listen))
                if self._listen:
                    self._world.core.agent_reported(identity(self.name).key, self.uid, self.agent, self._listens())
                if self.redirect is not None:
                    kept = tuple(port for port in self.redirect.ports if port in {each.port for each in ports})
                    self.redirect = replace(self.redirect, ports=kept)
            case Redirect():
                assert self._listen.keys() >= set(message.ports), "where to is another process's"
                self.redirect = message
            case ProbeRelays():
                self.probes = message
            case IssuedCertificate():
                self.certificate = message
        self.report()

    def _listens(self) -> Listen:
        return Listen(dict(self._listen), self.folder)

    def _take(self, answer: DiscoveryAnswer) -> None:
        kind = answer.kind
        self._nonces[kind] = answer.nonce
        if self.refuses and any(self.refuses in one.value for one in answer.resources):
            self._ask(kind, "refused")
            return
        found = {}
        for one in answer.resources:
            message = MESSAGES[kind].FromString(one.value)
            found[NAMED_BY[kind](message)] = message
        if kind == LISTENERS:
            self._check_listeners(found)
        self.has[kind] = found if kind in {CLUSTERS, LISTENERS} else {**self.has[kind], **found}
        self._ask(kind)
        if kind == CLUSTERS:
            self._need(ENDPOINTS, {name for name, one in found.items() if one.type == cluster_pb2.Cluster.EDS})
        if kind == LISTENERS:
            self._need(ROUTES, {name.replace("listener", "routes", 1) for name in found})

    def _check_listeners(self, found: dict[str, Any]) -> None:
        paths = {one.address.pipe.path.rpartition("/")[0] for one in found.values() if one.address.HasField("pipe")}
        assert paths <= {self.envoy_folder}, "Envoy rejects sockets in another process's folder"
        redirected = {names.listener(port) for port in (self.redirect.ports if self.redirect else ())}
        assert not (redirected & self.has[LISTENERS].keys()) - found.keys(), "requests arrive there"

    def _need(self, kind: str, needed: set[str]) -> None:
        if needed != self._asked.get(kind, frozenset()):
            self._asked[kind] = frozenset(needed)
            self.has[kind] = {name: one for name, one in self.has[kind].items() if name in needed}
            self._ask(kind)

    def _ask(self, kind: str, error: str | None = None) -> None:
        pod, stream = self.envoy
        asked = self._asked.get(kind, frozenset())
        self._world.core.envoy_requested(identity(self.name).key, stream, kind, len(asked))
        self._answers.extend(stream.on_request(kind, asked, self._nonces.get(kind, ""), error))
        self._world.core.envoy_progressed(identity(self.name).key, pod)

    # -- what it has come to ---------------------------------------------------------------------------------------

    def wants(self) -> list[str]:
        return [str(each.port) for each in self.want.ports] if self.want else []

    def redirects(self) -> list[str]:
        return [str(port) for port in self.redirect.ports] if self.redirect else []

    def decides(self, *claims: Spec) -> list[bool]:
        """Whether its passthrough proxy may decide by each of them."""
        redirect = self.redirect or Redirect(())
        matches = [claim.match for claim in redirect.claims if not set(redirect.ports).isdisjoint(claim.ports)]
        return [specs.canonical_json(one.match) in matches for one in claims]

    def serves(self, one: Spec) -> bool:
        """Whether a route of Envoy leads to that claim's laptop."""
        return any(one.id in str(route) for route in self.has[ROUTES].values())

    def knows(self, one: Spec) -> bool:
        """Whether one of its clusters does."""
        return any(one.id in name for name in self.has[CLUSTERS])
