"""Control's core with what is around it as plain values: a tunnel container, sidecars, and a clock. No I/O."""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2

from meshdev.errors import ProtocolError
from meshdev.intercept import spec as specs
from meshdev.intercept.spec import Spec
from meshdev.manager.control.core import Core
from meshdev.manager.control.xds import DiscoveryAnswer
from meshdev.sidecar.envoy import names
from meshdev.sidecar.envoy.protos import CLUSTERS, ENDPOINTS, LISTENERS, ORDER, ROUTES
from meshdev.wire import control
from meshdev.wire.agent import AgentHello, FromControl, Listen, PodPort, ProbeRelays, Redirect, State, Want
from meshdev.wire.frames import REPORT
from meshdev.wire.intercepts import AgentKeys, Relay, Report
from meshdev.wire.manager import (
    Allow,
    Claimed,
    ListeningPort,
    ManagerAddress,
    PodReport,
    Synced,
    ToTunnel,
    Withdrawn,
)
from tests.loops import Clock
from tests.manager.control.sidecars import MESSAGES, NAMED_BY

#: As timers are, in seconds: rounding makes none of them early.
_LATE = 1e-6
MANAGER = IPv4Address("10.244.0.9")


def key(name: str) -> str:
    """That of the agent of a pod."""
    return name.encode().hex().ljust(64, "0")


def alias(one: Spec) -> str:
    return one.id[::-1]


def relays(one: Spec, first: int) -> tuple[Relay, ...]:
    return tuple(Relay(port.remote, port.transport, first + at) for at, port in enumerate(one.ports))


def claimed(one: Spec, first: int = 20000, *, up: bool = True, **more: Any) -> Claimed:
    ups = tuple(ListeningPort(port.remote, port.transport) for port in one.ports if up)
    return Claimed(alias(one), specs.encode(one), "ann", relays(one, first), ups, **more)


class World:
    """What the tunnel container has of control, by key; nobody is there yet."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self.tunnel: dict[str, ToTunnel] = {}
        self.core = Core(self.tunnel.__setitem__, self._later, self.clock)
        self.pods: dict[str, SidecarPod] = {}

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self.clock.now + seconds + _LATE, next(self._number), callback))

    def connect_tunnel(self, *claims: Claimed | AgentKeys) -> None:
        """The tunnel container begins anew: it has nothing, and announces all of its claims."""
        self.tunnel.clear()
        self.core.tunnel_connected()
        self.tunnel |= dict(self.core.snapshot())
        self.hear(ManagerAddress(MANAGER), *claims, Synced())

    def restart_control(self) -> None:
        """Another process of control, which learns everything anew."""
        self._timers.clear()
        self.core = Core(self.tunnel.__setitem__, self._later, self.clock)
        for pod in self.pods.values():
            pod.lose_manager()

    def hear(self, *messages: ManagerAddress | Claimed | AgentKeys | Withdrawn | Synced) -> None:
        for message in messages:
            self.core.on_tunnel_message(message)

    def claim(self, one: Spec, *names: str, first: int = 20000, **more: Any) -> None:
        """The claim reaches these pods."""
        self.hear(claimed(one, first, **more), AgentKeys(alias(one), 0, tuple(map(key, names))))

    def pod(self, name: str) -> "SidecarPod":
        return self.pods.setdefault(name, SidecarPod(self, name, IPv4Address("10.244.1.1") + len(self.pods)))

    def settle(self) -> None:
        """Everybody reads and answers until there is nothing more."""
        while any(each.step() for each in self.pods.values()):
            pass

    def wait(self, seconds: float) -> None:
        """Time passes; everybody keeps up."""
        until = self.clock.now + seconds + 2 * _LATE
        self.settle()
        while self._timers and self._timers[0][0] <= until:
            at, _, callback = heapq.heappop(self._timers)
            self.clock.now = at
            callback()
            self.settle()
        self.clock.now = until

    def listening(self, name: str) -> dict[PodPort, int]:
        """What control keeps of where the Envoy of that pod listens."""
        return next((dict(each._listeners.ports) for each in self.core.pods() if each.name == name), {})

    def has_decided(self, name: str) -> bool:
        """Whether control sent what to decide by since it knows the pod: else it does not know what is on."""
        return any(each._last_redirect is not None for each in self.core.pods() if each.name == name)

    def allowed(self, relay: int) -> set[IPv4Address]:
        found = self.tunnel[f"allow {relay}"]
        assert isinstance(found, Allow)
        return set(found.addresses)

    def reports(self, one: Spec) -> dict[str, Report]:
        """The newest of each pod."""
        found = {}
        for message in self.tunnel.values():
            if isinstance(message, PodReport) and message.id == alias(one):
                report = control.decode(REPORT, message.body)
                assert isinstance(report, Report)
                assert (report.id, report.pod, report.state == "gone") == (one.id, message.pod, message.gone)
                found[report.pod] = report
        return found

    def states(self, one: Spec) -> dict[str, str]:
        return {pod: report.state for pod, report in self.reports(one).items()}


class SidecarPod:
    """Agent and Envoy of one pod, each there or not. They read one message at a time, when the test says so."""

    def __init__(self, world: World, name: str, address: IPv4Address) -> None:
        self._world = world
        self.name, self.address = name, address
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
        self.agent = self._world.core.agent_connected(key(self.name), hello, self._send)
        self._silent = True
        if report:
            self._report_first()

    def _report_first(self) -> None:
        self._silent = False
        if self._listen:
            self._world.core.agent_reported(key(self.name), self.uid, self.agent, self._listens())
        self.report()

    def _send(self, message: FromControl) -> None:
        self.sent.append(type(message).__name__)
        self._inbox.append(message)

    def _answer(self, answers: list[DiscoveryAnswer]) -> None:
        self.sent += ["answer"] * len(answers)
        self._answers += answers

    def disconnect_agent(self, *, ends: bool = True) -> None:
        """*ends*: the process does, and not its stream alone."""
        self._world.core.agent_disconnected(key(self.name), self.uid, self.agent)
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
            key(self.name), self.uid, self.address, self._answer, has_resources=again
        )
        for kind in ORDER:
            if kind in {CLUSTERS, LISTENERS} or self._asked.get(kind):
                self._ask(kind)

    def envoy_ended(self, former: Any) -> None:
        """One in whose place there is another."""
        self._world.core.envoy_disconnected(key(self.name), self.uid, self.address, *former)

    def disconnect_envoy(self, *, ends: bool = True) -> None:
        """*ends*: the process does, and not its stream alone."""
        self._world.core.envoy_disconnected(key(self.name), self.uid, self.address, *self.envoy)
        self.envoy = None
        self._answers.clear()
        if ends:
            self._forget_envoy()

    def report(self, **more: Any) -> None:
        """What is redirected, as it was asked for."""
        if self.applies and self.redirect:
            self._applied = self.redirect.number
        state = State(self.redirect.ports if self.redirect else (), applied=self._applied, **more)
        self._world.core.agent_reported(key(self.name), self.uid, self.agent, state)

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
                    self._world.core.agent_reported(key(self.name), self.uid, self.agent, self._listens())
                if self.redirect is not None:
                    kept = tuple(port for port in self.redirect.ports if port in {each.port for each in ports})
                    self.redirect = replace(self.redirect, ports=kept)
            case Redirect():
                assert self._listen.keys() >= set(message.ports), "where to is another process's"
                self.redirect = message
            case ProbeRelays():
                self.probes = message
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
        self._world.core.envoy_requested(key(self.name), stream, kind, len(asked))
        self._answers.extend(stream.on_request(kind, asked, self._nonces.get(kind, ""), error))
        self._world.core.envoy_progressed(key(self.name), pod)

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


def unreadable(one: Spec) -> Claimed:
    message = Claimed(alias(one), "{}", "ann", (), ())
    try:
        specs.decode(message.spec)
    except ProtocolError:
        return message
    raise AssertionError
