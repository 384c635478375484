"""What this session claims of the manager's relays: sent once, and again whenever nobody knows what arrived.

A manager keeps a session for a grace of some seconds; a new pod knows nothing. Every message is a state, so sending
too much does no harm: all of it goes over one carrier, and over the next one when that ends.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from meshdev.identity.fingerprints import fingerprint
from meshdev.published import Published
from meshdev.wire.access import Watch
from meshdev.wire.control import ManagerIdentity
from meshdev.wire.intercepts import (
    AGENT_PARTS,
    MAX_PART,
    Agents,
    AttestedAgent,
    Intercept,
    Issued,
    Local,
    Relays,
    Report,
    Withdraw,
)
from meshdev.wire.ports import Transport
from meshdev.wire.watching import ClaimRecords, WatchClaim

_State = Intercept | Agents | Withdraw | Local
ClaimMessage = _State | WatchClaim


@dataclass
class _Claim:
    intercept: Intercept
    up: dict[tuple[int, Transport], bool] = field(default_factory=dict)
    parts: dict[int, dict[str, AttestedAgent]] = field(default_factory=dict)
    """By sha256 of the request, which stays in its part: a new proof takes the former one's place in one message."""
    issued: Published[Mapping[str, bytes]] = field(default_factory=lambda: Published({}))
    """Certificates, by the same, of agents that are named."""

    def set_agents(self, agents: Iterable[AttestedAgent]) -> set[int]:
        """The parts that change. What fits into none is left out."""
        wanted = {fingerprint(agent.request): agent for agent in agents}
        changed = set()
        for part, there in self.parts.items():
            kept = {request: wanted.pop(request) for request in there if request in wanted}
            if kept != there:
                self.parts[part] = kept
                changed.add(part)
        for request, agent in wanted.items():
            room = next((each for each in range(AGENT_PARTS) if len(self.parts.get(each, ())) < MAX_PART), None)
            if room is not None:
                self.parts.setdefault(room, {})[request] = agent
                changed.add(room)
        self.issued.publish({request: one for request, one in self.issued.value.items() if self.names(request)})
        return changed

    def names(self, request: str) -> bool:
        """Whether an agent with that request, by its sha256, is named."""
        return any(request in there for there in self.parts.values())


class Claims:
    """The intercepts of one session. Belongs to one event loop; the pool chooses the carrier."""

    def __init__(self) -> None:
        self._claims: dict[str, _Claim] = {}
        self._leaving: set[str] = set()
        self._order = 0
        self._send: Callable[[ClaimMessage], None] | None = None
        self._listeners: dict[str, Callable[[Relays | Report], None]] = {}
        self._watched: dict[str, Watch] = {}
        self.on_records: Callable[[ClaimRecords], None] = lambda _: None
        """Called with records of claims that are watched."""
        self.manager_certificate: Published[bytes | None] = Published(None)
        """That of the manager's authority (DER), as the manager says over the tunnel; None before it has."""

    def declare(self, id_: str, spec: str, *, reset_older: bool = False) -> None:
        """Claim the requests of *spec* (JSON); again: with another spec.

        RELAYS answers. It reaches no pod before :meth:`agents` names some, and no port counts as up before
        :meth:`local` reports it.
        """
        claim = self._claims.setdefault(id_, _Claim(Intercept(id_, spec, reset_older)))
        claim.intercept = Intercept(id_, spec, reset_older)
        self._leaving.discard(id_)
        self._send_newest(claim.intercept)
        if self._send is not None and id_ in self._watched:  # a watch of a claim that it does not know is ignored
            self._send(WatchClaim(id_, self._watched[id_]))

    def agents(self, id_: str, agents: Iterable[AttestedAgent]) -> None:
        """The agents of a declared claim, all of them; at most MAX_AGENTS count."""
        claim = self._claims.get(id_)
        if claim is not None:
            for part in sorted(claim.set_agents(agents)):
                self._send_newest(_part(id_, claim, part))

    async def issued(self, id_: str, request: bytes) -> bytes:
        """The certificate (DER) of an agent that a declared claim names, as soon as the manager has issued it."""
        name = fingerprint(request)
        found = await self._claims[id_].issued.until(lambda issued: name in issued)
        return found[name]

    def exclude(self, id_: str, pods: tuple[str, ...]) -> None:
        """Leave these pods out of a declared claim: all of them, by name."""
        claim = self._claims.get(id_)
        if claim is not None and claim.intercept.excluded != pods:
            claim.intercept = replace(claim.intercept, excluded=pods)
            self._send_newest(claim.intercept)

    def withdraw(self, id_: str) -> None:
        """The claim is over. RELAYS without any answers, and REPORTs that pods are gone may follow."""
        if self._claims.pop(id_, None) is not None:
            self._leaving.add(id_)
            self._send_newest(Withdraw(id_))

    def local(self, id_: str, remote: int, protocol: Transport, up: bool) -> None:
        """Whether the local program of that port listens; nothing for an intercept that is not declared."""
        claim = self._claims.get(id_)
        if claim is not None and claim.up.get((remote, protocol)) != up:
            claim.up[remote, protocol] = up
            self._send_newest(Local(id_, remote, protocol, up))

    def watch(self, id_: str, watch: Watch) -> None:
        """Have records made of the requests that a claim's pods get, for WATCH_SECONDS; or no more of them.

        A claim that is not declared yet is watched from then on.
        A manager that makes none does nothing.
        """
        if watch.on:
            self._watched[id_] = watch
        else:
            self._watched.pop(id_, None)
        if self._send is not None and id_ in self._claims:
            self._send(WatchClaim(id_, watch))

    def listen(self, id_: str, listener: Callable[[Relays | Report], None]) -> None:
        """Call *listener* with the manager's messages on that claim, until :meth:`ignore`."""
        self._listeners[id_] = listener

    def ignore(self, id_: str) -> None:
        """The opposite of :meth:`listen`."""
        self._listeners.pop(id_, None)

    def on_message(self, message: ManagerIdentity | Relays | Report | Issued | ClaimRecords) -> None:
        """Take a message of the manager. A withdrawn claim is forgotten when it has no relays any more."""
        if isinstance(message, ManagerIdentity):
            if message.certificate != self.manager_certificate.value:
                for claim in self._claims.values():
                    claim.issued.publish({})  # by the former manager
            self.manager_certificate.publish(message.certificate)
            return
        if isinstance(message, ClaimRecords):
            self.on_records(message)
            return
        if isinstance(message, Issued):
            if (named := self._claims.get(message.id)) is not None and named.names(message.request):
                named.issued.publish({**named.issued.value, message.request: message.certificate})
            return
        if isinstance(message, Relays) and not message.relays:
            self._leaving.discard(message.id)
        if (listener := self._listeners.get(message.id)) is not None:
            listener(message)

    def use(self, send: Callable[[ClaimMessage], None] | None) -> None:
        """From now on send by *send*, beginning with everything; None: there is no carrier now."""
        self._send = send
        if send is not None:
            for message in list(self._snapshot()):
                self._send_newest(message)
            for id_ in self._watched.keys() & self._claims.keys():
                send(WatchClaim(id_, self._watched[id_]))

    def _snapshot(self) -> Iterator[_State]:
        for id_ in self._leaving:
            yield Withdraw(id_)
        for id_, claim in self._claims.items():
            yield claim.intercept
            for part in claim.parts:
                yield _part(id_, claim, part)
            for (remote, protocol), up in claim.up.items():
                yield Local(id_, remote, protocol, up)

    def _send_newest(self, message: _State) -> None:
        if self._send is not None:
            self._order += 1
            self._send(replace(message, order=self._order))


def _part(id_: str, claim: _Claim, part: int) -> Agents:
    return Agents(id_, part, tuple(claim.parts[part].values()))
