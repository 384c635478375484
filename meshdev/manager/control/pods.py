"""One pod as its agent and its Envoy report it: what it is to do, in the right order, and what sessions learn of it.

In: want → the agent listens → Envoy takes listeners and routes → redirect with the claims → the passthrough worker has
applied them (acked). Out: want without the port → the agent ends its redirect. Envoy keeps what it has for a port as
long as the pod is known, without claims: connections that are kept alive go on to the original. Taking a listener or
cluster away would fail their next requests (docs/design/0009).
The return paths are probed as soon as Envoy is there: before that no request takes them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Final

from meshdev.manager.control import decided
from meshdev.manager.control.datagrams import hidden_address
from meshdev.manager.control.decided import DecidedClaims, Decisions, SentClaims
from meshdev.manager.control.listeners import AgentListeners
from meshdev.manager.control.reporting import gone
from meshdev.manager.control.return_paths import worst_return_path
from meshdev.manager.control.xds import AdsStream, DiscoveryAnswer
from meshdev.sidecar.envoy.claims import LiveClaim, PodView, Served, pod_port, wanted
from meshdev.sidecar.envoy.protos import packed
from meshdev.sidecar.envoy.resources import resources
from meshdev.wire.agent import (
    MAX_CLAIMED_PORTS,
    MAX_CLAIMS,
    AgentHello,
    FromControl,
    IssuedCertificate,
    Listen,
    PodPort,
    ProbeRelays,
    Redirect,
    State,
    Want,
    Wanted,
)
from meshdev.wire.counts import Counts, InterceptCounts
from meshdev.wire.intercepts import Report, ReturnPath

_TOO_MANY_PORTS: Final = (
    f"at most {MAX_CLAIMED_PORTS} ports of a pod are intercepted at a time, those of others included"
)
_TOO_MANY_CLAIMS: Final = f"at most {MAX_CLAIMS:,} intercepts of a pod's requests are possible at a time"


@dataclass(frozen=True)
class HeldClaim:
    """A claim as control has it: *alias* is its name at the tunnel container, *order* grows with every change.

    *excluded* are names of pods that it leaves out, *session* is its session's address. *pod* is this one's name and
    *identity* its SPIFFE id, as that session reports them.
    """

    alias: str
    claim: LiveClaim
    reset_older: bool
    order: int
    excluded: frozenset[str] = frozenset()
    session: IPv4Address | None = None
    pod: str = ""
    identity: str = ""


@dataclass(frozen=True)
class _Goal:
    """What Envoy is asked for: which state of each claim (alias, order), which listeners."""

    orders: frozenset[tuple[str, int]]
    served: tuple[Served, ...]
    manager: IPv4Address
    hello: AgentHello
    decisions: Decisions


@dataclass(frozen=True)
class _Envoy:
    stream: AdsStream
    send: Callable[[Sequence[DiscoveryAnswer]], None]


class Pod:
    """A pod of one workload; it exists as long as one of its two streams."""

    def __init__(self) -> None:
        self._hello: AgentHello | None = None
        self._peer: IPv4Address | None = None
        """Where the agent's stream comes from."""
        self._send: Callable[[FromControl], None] | None = None
        self._listeners = AgentListeners()
        self._decided = DecidedClaims()
        self._sent = SentClaims()
        self._state: State | None = None
        self._last_redirected: frozenset[PodPort] = frozenset()
        """By the agent's process, which goes on with it when it loses its stream."""
        self._counts: dict[str, Counts] = {}
        self._return_paths: dict[int, ReturnPath] = {}
        self._envoy: _Envoy | None = None
        self.held: tuple[HeldClaim, ...] = ()
        """The claims that it serves, as far as Envoy has not refused them."""
        self._wanted: tuple[Wanted, ...] = ()
        self._former: dict[PodPort, Wanted] = {}
        self._last_want: Want | None = None
        self._last_redirect: Redirect | None = None
        """Of the agent's process, which keeps it when it loses its stream."""
        self._redirect_sent = False
        self._number = 0
        """Of the last Redirect, on whatever stream."""
        self._last_try: ProbeRelays | None = None
        self._last_certificate: IssuedCertificate | None = None
        self.identity = ""
        """The SPIFFE id in what its Envoy shows; empty before there is an edge."""
        self._goal: _Goal | None = None
        self._settled: _Goal | None = None
        self._accepted: frozenset[tuple[str, int]] = frozenset()
        self._refused: dict[str, tuple[int, str]] = {}
        self._unserved: dict[str, str] = {}
        self._reported: dict[str, Report] = {}
        self._pruning = False

    # -- what comes in ---------------------------------------------------------------------------------------------

    def agent_connected(self, hello: AgentHello, peer: IPv4Address, send: Callable[[FromControl], None]) -> None:
        """The agent is connected, or again: then it reports what it still has."""
        self._hello, self._peer, self._send = hello, peer, send
        self._set_state(None)
        self._listeners.stream_began()
        self._last_want = self._last_try = self._last_certificate = None
        self._redirect_sent = False

    def agent_disconnected(self) -> None:
        """Its rules were removed with it, or it comes again."""
        self._send = None
        self._set_state(None)

    def agent_reported(self, message: Listen | State) -> None:
        """Where Envoy shall listen, or what is true now."""
        if self._listeners.report(message):
            self._begin_anew()
        if isinstance(message, State):
            self._set_state(message)
            self._last_redirected = frozenset(message.redirected)

    def listens_after(self, message: Listen) -> Listen:
        """What is kept after that message."""
        return self._listeners.after(message)

    @property
    def listens(self) -> bool:
        """Whether anything is kept of where Envoy listens."""
        return bool(self._listeners.ports)

    def _begin_anew(self) -> None:
        """Another process of the agent, with another Envoy: neither has anything of what the former ones were sent."""
        self._goal = self._settled = self._last_redirect = None
        self._last_redirected = frozenset()
        self._former.clear()
        self._decided.void()

    def _set_state(self, state: State | None) -> None:
        """Every claim looks up what is its own: searching thousands of entries for each would be quadratic."""
        self._state = state.without_traffic() if state is not None else None
        self._counts = dict(state.intercepts) if state is not None else {}
        self._return_paths = dict(state.return_paths) if state is not None else {}

    def envoy_connected(
        self, send: Callable[[Sequence[DiscoveryAnswer]], None], *, has_resources: bool = False
    ) -> AdsStream:
        """A stream that knows nothing of what another one was sent. *has_resources*: its Envoy does, it comes again."""
        self._envoy = _Envoy(AdsStream(), send)
        if not has_resources:
            self._decided.void()
            if self._send is None:  # it may be another agent's
                self._listeners.stream_began()
        self._goal = self._settled = None
        return self._envoy.stream

    def envoy_disconnected(self, stream: AdsStream) -> None:
        """Nothing, when another one has taken its place."""
        if self._envoy is not None and self._envoy.stream is stream:
            self._envoy = self._goal = self._settled = None

    def begin_to_prune(self) -> bool:
        """Whether Envoy has clusters that it does not need any more, and nobody asked that before."""
        if self._pruning or self._envoy is None or not self._envoy.stream.unused:
            return False
        self._pruning = True
        return True

    def prune(self) -> None:
        """Take them away; those that are in use again by now stay."""
        self._pruning = False
        if self._envoy is not None:
            self._envoy.send(self._envoy.stream.prune())

    @property
    def disconnected(self) -> bool:
        """Neither agent nor Envoy is there."""
        return self._send is None and self._envoy is None

    def certify(self, identity: str, certificate: IssuedCertificate) -> None:
        """What its Envoy shall show, and the SPIFFE id in it."""
        self.identity = identity
        if self._send is not None and certificate != self._last_certificate:
            self._last_certificate = certificate
            self._send(certificate)

    # -- what follows ----------------------------------------------------------------------------------------------

    def follow(self, held: Sequence[HeldClaim], manager: IPv4Address, *, settling: bool) -> None:
        """Do what the claims, the agent and Envoy make necessary, all of them as they are now.

        *held* is in the order in which it was claimed; *settling*: claims may be on their way still.
        """
        self._read_verdict(held)
        self.held = self._within_bounds([each for each in held if each.alias not in self._refused])
        if self._hello is None or (settling and not self.held):
            return
        self._want(self._hello)
        if self._envoy is not None:
            self._try(manager)
        self._redirect()  # no claim is decided for any more when its routes are removed
        if self._envoy is not None and self._may_serve():
            self._serve(self._hello, self._envoy, manager)
        self._redirect()

    def _read_verdict(self, held: Sequence[HeldClaim]) -> None:
        """What Envoy made of the goal. Of one that it refused, what is new came last: without it the others go on."""
        orders = {each.alias: each.order for each in held}
        self._refused = {alias: why for alias, why in self._refused.items() if orders.get(alias) == why[0]}
        if self._envoy is None or self._goal is None:
            return
        if self._envoy.stream.settled:
            self._accept(self._goal)
        elif (why := self._envoy.stream.refused) is not None and (new := self._goal.orders - self._accepted):
            alias, order = max(new, key=lambda each: each[1])
            if orders.get(alias) == order:
                self._refused[alias] = order, why

    def _within_bounds(self, held: Sequence[HeldClaim]) -> tuple[HeldClaim, ...]:
        """Without those that cannot be served: datagrams of a pod whose address is hidden, and what is too much
        together with older claims, of ports, and of what the proxy decides by."""
        ports: set[PodPort] = set()
        fitting: list[HeldClaim] = []
        size = 0
        hidden = hidden_address(self._hello, self._peer)
        self._unserved = {}
        for each in held:
            both = ports.union(map(pod_port, each.claim.spec.ports))
            larger = size + decided.size(each.claim)
            if hidden and any(port.transport == "udp" for port in each.claim.spec.ports):
                self._unserved[each.alias] = hidden
            elif len(both) > MAX_CLAIMED_PORTS:
                self._unserved[each.alias] = _TOO_MANY_PORTS
            elif len(fitting) == MAX_CLAIMS or larger > decided.MAX_BYTES:
                self._unserved[each.alias] = _TOO_MANY_CLAIMS
            else:
                ports, size = both, larger
                fitting.append(each)
        return tuple(fitting)

    def _want(self, hello: AgentHello) -> None:
        reset = frozenset(each.claim.spec.id for each in self.held if each.reset_older)
        self._former.update((each.port, each) for each in self._wanted)
        self._wanted = wanted([each.claim for each in self.held], hello.probes, reset)
        want = Want(self._wanted)
        if self._send is not None and want != self._last_want:
            self._last_want = want
            self._send(want)

    def _try(self, manager: IPv4Address) -> None:
        relays = sorted(each.relay for held in self.held for each in held.claim.relays if each.protocol == "tcp")
        message = ProbeRelays(tuple(relays), manager)
        if self._send is not None and message != self._last_try and (message.relays or self._last_try is not None):
            self._last_try = message
            self._send(message)

    def _may_serve(self) -> bool:
        """Not before an agent that came again reported where Envoy listens for what it redirects: that must stay."""
        known = {each.port for each in self._wanted} | self._former.keys()
        return self._listeners.known and self._last_redirected <= known & self._listeners.ports.keys()

    def _serve(self, hello: AgentHello, envoy: _Envoy, manager: IPv4Address) -> None:
        every = {**self._former, **{each.port: each for each in self._wanted}}
        served = (
            Served(each, self._listeners.where(port)) for port, each in every.items() if port in self._listeners.ports
        )
        goal = _Goal(
            frozenset((each.alias, each.order) for each in self.held),
            tuple(sorted(served, key=lambda one: one.port)),
            manager,
            hello,
            self._decisions(),
        )
        if goal == self._goal:
            return
        self._goal = goal
        self._decided.aim(goal.decisions)
        view = PodView(hello.address, goal.served, hello.probes)
        envoy.send(envoy.stream.aim(packed(resources(view, manager, [each.claim for each in self.held]))))
        if envoy.stream.settled:  # it has all of it already, so nothing is sent, and nothing will be answered
            self._accept(goal)

    def _decisions(self) -> Decisions:
        """All that the claims make the passthrough proxy decide where Envoy listens."""
        ports = self._listeners.ports
        return frozenset().union(*(decided.decisions(each.alias, each.claim, ports) for each in self.held))

    def _accept(self, goal: _Goal) -> None:
        self._settled, self._accepted = goal, goal.orders
        self._decided.acknowledge(goal.decisions)

    def _redirect(self) -> None:
        if self._send is None or not self._listeners.known:
            return
        if self._settled is not None:
            listening = {one.port for one in self._settled.served}
        elif self._last_redirect is not None:  # what no longer holds is off, with Envoy or without
            listening = set(self._last_redirect.ports)
        else:
            return
        ports = tuple(each.port for each in self._wanted if each.port in listening)
        on = self._decided.on({each.alias: each.claim for each in self.held})
        redirect = Redirect(ports, tuple(on.values()), self._number)
        if redirect != self._last_redirect or not self._redirect_sent:
            self._number += 1
            self._last_redirect, self._redirect_sent = replace(redirect, number=self._number), True
            self._send(self._last_redirect)
        self._sent.sent(self._number, on)

    # -- reports --------------------------------------------------------------------------------------------------

    def reports(self, held: Iterable[HeldClaim]) -> Iterator[tuple[str, Report]]:
        """What is new, with the alias of its claim. Of a claim that is over, once: when nothing of it is left."""
        if self._hello is None:
            return
        there = set()
        for each in held:
            there.add(each.alias)
            report = self._report(each)
            if self._reported.get(each.alias) != report:
                self._reported[each.alias] = report
                yield each.alias, report
        for alias in [alias for alias in self._reported if alias not in there]:
            if self.disconnected or self._is_removed(alias):
                yield alias, gone(self._reported.pop(alias))

    def last_reports(self) -> Iterator[tuple[str, Report]]:
        """The pod is gone for all."""
        for alias, report in self._reported.items():
            yield alias, gone(report)
        self._reported.clear()

    def reported(self) -> Iterator[tuple[str, Report]]:
        """Everything that was reported and still holds."""
        yield from self._reported.items()

    def _report(self, each: HeldClaim) -> Report:
        state = self._state or State()
        id_ = each.claim.spec.id
        counts = self._counts.get(id_, Counts())
        ports = {pod_port(port) for port in each.claim.spec.ports}
        older = sum(count for port, count in state.older if port in ports)
        if each.claim.spec.mode.takes_bytes:
            # Connections and senders of datagrams are those of the holder that claims all of a port.
            counts = sum((flow for port, flow in state.flows if port in ports), counts)
        return_path = worst_return_path(each.claim, self._return_paths)
        common = (InterceptCounts.of(counts, older), len(each.claim.up), return_path)
        held_back = {port: why for port, why in state.held_back if port in ports}
        pending = tuple(str(port) for port, why in sorted(held_back.items()) if why == "no-listener")
        if each.alias in self._refused:
            return Report(id_, each.pod, "nacked", self._refused[each.alias][1], *common)
        if each.alias in self._unserved:
            return Report(id_, each.pod, "nacked", self._unserved[each.alias], *common)
        if self._envoy is not None and self._envoy.stream.refused is not None:
            return Report(id_, each.pod, "nacked", self._envoy.stream.refused, *common)
        taken = self._settled is not None and (each.alias, each.order) in self._settled.orders
        right = self._redirected_ports() | {port for port, why in held_back.items() if why == "no-listener"}
        done = taken and right >= ports & {one.port for one in self._wanted}
        if any(port.transport == "tcp" for port in ports):
            done = done and self._sent.is_applied(each.alias, state.applied)
        why = ", ".join(f"{port}: {why}" for port, why in sorted(held_back.items()))
        return Report(id_, each.pod, "acked" if done else "joined", why, *common, pending, self.identity)

    def _is_removed(self, alias: str) -> bool:
        """Neither Envoy nor the agent nor its passthrough proxy has anything of it."""
        free = self._envoy is None or (
            self._settled is not None
            and self._settled == self._goal
            and all(alias != one for one, _ in self._settled.orders)
        )
        if self._state is not None and self._redirect_sent:
            free = free and self._state.applied >= self._number
        return free and self._redirected_ports() <= {each.port for each in self._wanted}

    def _redirected_ports(self) -> set[PodPort]:
        return set(self._state.redirected) if self._state is not None else set()
