"""What live sessions claim: their relays, and what is announced of them to control and reported to sessions.

A relay exists as long as its session. A session that is silent gets no new flows after SILENT_SECONDS, and those under
way are cut after CUT_SECONDS: nothing hangs (docs/design/0010, "Silence"). What a withdrawn intercept had stays for
LINGER_SECONDS: until every sidecar has forgotten the relay, it must not lead to somebody else's laptop.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Address
from typing import Final

from meshdev.config import RELAY_PORTS
from meshdev.errors import FirewallError, ProtocolError
from meshdev.intercept import spec as specs
from meshdev.intercept.spec import Spec
from meshdev.manager.tunnel.control_socket import ControlSocket
from meshdev.manager.tunnel.forwarding import (
    drop,
    drop_issued,
    forward_issued,
    forward_report,
    keep_report,
    send_relays,
)
from meshdev.manager.tunnel.held import HeldIntercept, Holder, refuse_too_long
from meshdev.manager.tunnel.introduction import Introduction
from meshdev.manager.tunnel.naming import Naming
from meshdev.manager.tunnel.network import Network
from meshdev.manager.tunnel.session import Session
from meshdev.pump.loop import Loop, Timer
from meshdev.rate import TokenBucket
from meshdev.wire import intercepts
from meshdev.wire.control import INTERCEPT_PROTOCOL, ManagerIdentity
from meshdev.wire.frames import RECORDS, frame
from meshdev.wire.intercepts import AgentKeys, Agents, ClaimRefusal, Intercept, Local, Relay, Relays, Withdraw
from meshdev.wire.manager import (
    Allow,
    CertificateIssued,
    ManagerAddress,
    PodReport,
    RecordsOfClaim,
    Synced,
    ToControl,
    ToTunnel,
    Withdrawn,
)
from meshdev.wire.ports import Transport
from meshdev.wire.watching import WatchClaim

log = logging.getLogger(__name__)

#: Of one session; withdrawn ones that linger count.
MAX_INTERCEPTS: Final = 32
MAX_RELAYS: Final = 128
#: Attested agents that are kept for one session, and for all: with its certificate one takes 2.2 KB here.
MAX_AGENTS: Final = 2 * intercepts.MAX_AGENTS
MAX_AGENTS_IN_ALL: Final = 16384
#: Times that one session may have relays made, at once and then a second: each takes the kernel a millisecond, in
#: which nobody's packets pass.
MAX_CHANGES: Final = 2 * MAX_INTERCEPTS
CHANGES_PER_SECOND: Final = 8.0
#: Times that one session may say what it watches, at once and then a second: each intercept every RENEW_SECONDS.
MAX_WATCHES: Final = 2 * MAX_INTERCEPTS
WATCHES_PER_SECOND: Final = 16.0

#: A laptop with relays is probed so often that one second without an answer is silence.
ASK_SECONDS: Final = 0.25
SILENT_SECONDS: Final = 1.0
CUT_SECONDS: Final = 5.0
LINGER_SECONDS: Final = 10.0


class ClaimTable:
    """All of them; belongs to the loop's thread."""

    def __init__(
        self,
        loop: Loop,
        network: Network,
        control: ControlSocket,
        pod: IPv4Address,
        sessions: Callable[[], Iterable[Session]],
    ) -> None:
        self._loop = loop
        self._network = network
        self._control = control
        self._pod = pod
        self._introduction = Introduction(sessions)
        self._naming = Naming(loop, control)
        self._holders: dict[str, Holder] = {}
        self._by_alias: dict[str, tuple[Holder, HeldIntercept]] = {}
        self._by_relay: dict[int, Relay] = {}
        self._last_relay = RELAY_PORTS.start - 1
        self._watch: Timer | None = None
        self._watched = 0.0
        control.attach(self._snapshot, self._on_message)

    def take(self, session: Session, message: Intercept | Agents | AgentKeys | Withdraw | Local) -> None:
        """A session's message. What was overtaken by a newer one is skipped."""
        if message.order <= session.last_order:
            return
        session.last_order = message.order
        match message:
            case Intercept():
                self._declare(session, message)
            case Agents():
                self._set_agents(session, message)
            case AgentKeys():  # of a session whose claims are refused
                pass
            case Withdraw():
                self._withdraw(session, message.id)
            case Local():
                self._set_local(session, message)

    def watch(self, session: Session, message: WatchClaim) -> None:
        """A session watches one of its own intercepts: for control, which has the lease."""
        holder = self._holders.get(session.id)
        held = holder.held.get(message.id) if holder else None
        if holder and held and held.lingering is None and holder.watches.take(self._loop.clock()):
            self._control.send_latest(f"{held.alias} watch", WatchClaim(held.alias, message.watch))

    def resend(self, session: Session) -> None:
        """Everything that the session was sent, or would have been, once more."""
        self._introduction.introduce(session)
        holder = self._holders.get(session.id)
        for held in holder.held.values() if holder else ():
            if held.lingering is None:
                send_relays(session, Relays(held.id, held.relays))
            for report in held.reports:
                forward_report(session, held, report)
            for request in held.issued:
                forward_issued(session, held, request)

    def forget(self, session: Session) -> None:
        """The session has ended, and its relays with it."""
        holder = self._holders.get(session.id)
        if holder is None:
            return
        for held in list(holder.held.values()):
            self._drop(holder, held)
        if holder.silent:
            self._silence(holder, False)
        self._naming.forget(holder)
        del self._holders[session.id]

    # -- from sessions ---------------------------------------------------------------------------------------------

    def _declare(self, session: Session, message: Intercept) -> None:
        holder = self._holders.get(session.id)
        if holder is None:
            changes = TokenBucket(CHANGES_PER_SECOND, MAX_CHANGES, self._loop.clock())
            watches = TokenBucket(WATCHES_PER_SECOND, MAX_WATCHES, self._loop.clock())
            holder = self._holders[session.id] = Holder(session, changes, watches, self._naming.pace())
        try:
            _refuse_older(session)
            held = self._held(holder, message, _read_spec(message))
        except (_Refused, ProtocolError, FirewallError) as error:
            if holder.changes.take(self._loop.clock()):  # a refusal costs as much: logs take no more of them either
                log.warning("an intercept of %s is refused: %s", session.holder, error)
            code = error.code
            send_relays(session, Relays(message.id, (), ClaimRefusal(code, str(error))))
            self._withdraw(session, message.id, answer=False)
            return
        send_relays(session, Relays(held.id, held.relays))
        self._watch_over()

    def _held(self, holder: Holder, message: Intercept, spec: Spec) -> HeldIntercept:
        """The intercept with its relays: the one there is, changed or not, or a new one."""
        held = holder.held.get(message.id)
        wanted = tuple((port.remote, port.transport) for port in spec.ports)
        refuse_too_long(holder, message, wanted)
        if held and {(one.remote, one.protocol) for one in held.relays} != set(wanted):
            self._drop(holder, held)
            held = None
        if held is None:
            return self._new(holder, message, wanted)
        if held.lingering is not None:
            held.lingering.cancel()
            held.lingering = None
        elif (held.spec, held.reset_older, held.excluded) == (message.spec, message.reset_older, message.excluded):
            return held
        held.spec, held.reset_older, held.excluded = message.spec, message.reset_older, message.excluded
        self._send_claim(holder, held)
        self._naming.send_all(holder, held)
        return held

    def _new(self, holder: Holder, message: Intercept, wanted: Sequence[tuple[int, Transport]]) -> HeldIntercept:
        if not holder.changes.take(self._loop.clock()):
            raise _Refused("limit", "this session changes its intercepts too often")
        relays = self._free_relays(holder, wanted)
        self._network.open_relays([(one.protocol, one.relay) for one in relays], holder.session.address)
        alias = hashlib.sha256(f"{holder.session.id} {message.id}".encode()).hexdigest()[:32]
        held = HeldIntercept(message.id, alias, message.spec, relays, message.reset_older, message.excluded)
        holder.held[held.id] = held
        self._by_alias[alias] = holder, held
        self._by_relay.update((one.relay, one) for one in relays)
        self._send_claim(holder, held)
        return held

    def _free_relays(self, holder: Holder, wanted: Sequence[tuple[int, Transport]]) -> tuple[Relay, ...]:
        """The next free ports: a freed one rests as long as possible."""
        if len(holder.held) >= MAX_INTERCEPTS:
            raise _Refused("limit", f"a session has at most {MAX_INTERCEPTS} intercepts at a time")
        if sum(len(held.relays) for held in holder.held.values()) + len(wanted) > MAX_RELAYS:
            raise _Refused("limit", f"a session has at most {MAX_RELAYS} intercepted ports at a time")
        if len(self._by_relay) + len(wanted) > len(RELAY_PORTS):
            raise _Refused("limit", "every relay port of the manager is taken")
        relays = []
        for remote, protocol in wanted:
            port = self._next(self._last_relay)
            while port in self._by_relay:
                port = self._next(port)
            self._last_relay = port
            relays.append(Relay(remote, protocol, port))
        return tuple(relays)

    @staticmethod
    def _next(port: int) -> int:
        return port + 1 if port + 1 in RELAY_PORTS else RELAY_PORTS.start

    def _live(self, session: Session, id_: str) -> tuple[Holder, HeldIntercept] | None:
        """The session's intercept of that id, unless it is withdrawn."""
        holder = self._holders.get(session.id)
        held = holder.held.get(id_) if holder else None
        return (holder, held) if holder and held and held.lingering is None else None

    def _withdraw(self, session: Session, id_: str, *, answer: bool = True) -> None:
        if live := self._live(session, id_):
            holder, held = live
            held.lingering = self._loop.call_later(LINGER_SECONDS, lambda: self._drop(holder, held))
            held.up.clear()
            drop_issued(session, held, held.issued)
            self._send_withdrawn(held)
            held.forget_agents()
        if answer:
            send_relays(session, Relays(id_))

    def _set_agents(self, session: Session, message: Agents) -> None:
        live = self._live(session, message.id)
        if live is None:
            return
        holder, held = live
        former = held.agents.get(message.part, ())
        if former != message.agents and self._has_room(holder, len(message.agents) - len(former)):
            drop_issued(session, held, held.set_agents(message.part, message.agents))
            self._naming.send(holder, held, message.part, len(set(message.agents).difference(former)))

    def _has_room(self, holder: Holder, more: int) -> bool:
        """Whether so many agents more may be kept; that they may not is logged at the pace of changes."""
        if more <= 0:
            return True
        mine = sum(held.agent_count for held in holder.held.values()) + more
        every = sum(held.agent_count for _, held in self._by_alias.values()) + more
        if mine <= MAX_AGENTS and every <= MAX_AGENTS_IN_ALL:
            return True
        if holder.changes.take(self._loop.clock()):
            log.warning("%s has too many agents: the manager keeps %d", holder.session.holder, mine - more)
        return False

    def _set_local(self, session: Session, message: Local) -> None:
        live = self._live(session, message.id)
        if live is None:
            return
        holder, held = live
        port = message.remote, message.protocol
        if port in {(one.remote, one.protocol) for one in held.relays} and (port in held.up) != message.up:
            held.up ^= {port}
            self._send_claim(holder, held)

    def _drop(self, holder: Holder, held: HeldIntercept) -> None:
        """Take its relays away at once."""
        if held.lingering is None:
            self._send_withdrawn(held)
        else:
            held.lingering.cancel()
        del holder.held[held.id], self._by_alias[held.alias]
        drop(holder.session, held)
        for one in held.relays:
            del self._by_relay[one.relay]
        self._network.close_relays([(one.protocol, one.relay) for one in held.relays], holder.session.address)

    # -- silence ---------------------------------------------------------------------------------------------------

    def _watch_over(self) -> None:
        if self._watch is None:
            self._watched = self._loop.clock()
            self._watch = self._loop.call_later(ASK_SECONDS, self._look)

    def _look(self) -> None:
        now = self._loop.clock()
        # Where this process itself was stopped, everybody seems silent: probe first.
        late, self._watched, self._watch = now - self._watched > SILENT_SECONDS / 2, now, None
        for holder in list(self._holders.values()):
            if holder.held:
                if not late:
                    self._judge(holder, now - holder.session.last_received)
                holder.session.probe()
        if self._by_alias:
            self._watch_over()

    def _judge(self, holder: Holder, silence: float) -> None:
        if holder.silent != (silence > SILENT_SECONDS):
            self._silence(holder, not holder.silent)
            for held in holder.held.values():
                if held.lingering is None:
                    self._send_claim(holder, held)
        if holder.cut != (silence > CUT_SECONDS):
            holder.cut = not holder.cut
            if holder.cut:
                self._network.cut(holder.session.address)

    def _silence(self, holder: Holder, silent: bool) -> None:
        holder.silent = silent
        log.info("the session of %s is %s", holder.session.holder, "silent" if silent else "back")
        try:
            self._network.silence(holder.session.address, silent)
        except FirewallError as error:
            log.warning("%s", error.message)

    # -- control ---------------------------------------------------------------------------------------------------

    def _snapshot(self) -> Iterator[tuple[str, ToControl]]:
        """Each as it is when it is asked for; what is claimed later is sent as a change."""
        yield "pod", ManagerAddress(self._pod)
        for alias in list(self._by_alias):
            if alias in self._by_alias:
                yield from self._state_of(alias)
        yield "synced", Synced()

    def _state_of(self, alias: str) -> Iterator[tuple[str, ToControl]]:
        """The claim and its parts, also those that are empty by now: control may remember them."""
        holder, held = self._by_alias[alias]
        if held.lingering is None:
            yield alias, held.claim(holder)
        for part in list(held.agents):
            if held.lingering is None and self._by_alias.get(alias, (None, None))[1] is held:
                yield held.part_key(part), Agents(alias, part, held.agents[part])

    def _send_claim(self, holder: Holder, held: HeldIntercept) -> None:
        self._control.send_latest(held.alias, held.claim(holder))

    def _send_withdrawn(self, held: HeldIntercept) -> None:
        self._control.send_latest(held.alias, Withdrawn(held.alias))
        self._naming.send_withdrawn(held)

    def _on_message(self, message: ToTunnel) -> None:
        match message:
            case ManagerIdentity():
                self._introduction.announce(message)
            case Allow():
                relay = self._by_relay.get(message.relay)
                if relay is not None and relay.protocol == "udp":
                    self._allow(relay, message)
            case PodReport() if message.id in self._by_alias:
                holder, held = self._by_alias[message.id]
                keep_report(holder.session, held, message)
            case RecordsOfClaim() if message.id in self._by_alias:
                self._by_alias[message.id][0].session.send_records(frame(RECORDS, message.body))
            case CertificateIssued() if message.id in self._by_alias:
                holder, held = self._by_alias[message.id]
                if held.names(message.request):
                    held.issued[message.request] = message.body
                    forward_issued(holder.session, held, message.request)

    def _allow(self, relay: Relay, message: Allow) -> None:
        try:
            self._network.allow((relay.protocol, relay.relay), message.addresses, keep=message.keep)
        except FirewallError as error:
            log.warning("%s", error.message)


class _Refused(Exception):  # noqa: N818 -- an answer, not a fault
    """The intercept is not taken; *code* is for programs."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def _refuse_older(session: Session) -> None:
    """Sessions of protocol 3 know agents by tokens, which agents no longer have."""
    if session.version < INTERCEPT_PROTOCOL:
        raise _Refused(
            "version",
            f"the manager takes intercepts by protocol {INTERCEPT_PROTOCOL}, and this meshdev speaks "
            f"{session.version}: install a newer meshdev on this machine",
        )


def _read_spec(message: Intercept) -> Spec:
    spec = specs.decode(message.spec)
    if spec.id != message.id:
        raise ProtocolError("the spec has another id")
    return spec
