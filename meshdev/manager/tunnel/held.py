"""What one session has at the tunnel container: its intercepts, and whether it is silent."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from meshdev.config import RELAY_PORTS
from meshdev.identity.fingerprints import fingerprint
from meshdev.manager.tunnel.reports import Reports
from meshdev.manager.tunnel.session import Session
from meshdev.pump.loop import Timer
from meshdev.rate import TokenBucket
from meshdev.wire.intercepts import AttestedAgent, Intercept, Relay
from meshdev.wire.manager import Claimed, ListeningPort, encode
from meshdev.wire.ports import Transport


@dataclass
class HeldIntercept:
    """One intercept. *alias* names it to control: an id is known to many, and any session may claim it."""

    id: str
    alias: str
    spec: str
    relays: tuple[Relay, ...]
    reset_older: bool
    excluded: tuple[str, ...] = ()
    up: set[tuple[int, Transport]] = field(default_factory=set)
    agents: dict[int, tuple[AttestedAgent, ...]] = field(default_factory=dict)
    issued: dict[str, bytes] = field(default_factory=dict)
    """ISSUED, as bytes, by request: of agents that are named."""
    reports: Reports = field(default_factory=Reports)
    lingering: Timer | None = None
    overdue: dict[int, int] = field(default_factory=dict)
    """Parts that control has not been sent as they are, with how many agents are named in them otherwise."""
    _requests: dict[int, frozenset[str]] = field(default_factory=dict)

    @property
    def agent_count(self) -> int:
        """Agents of all parts."""
        return sum(map(len, self.agents.values()))

    def set_agents(self, part: int, agents: tuple[AttestedAgent, ...]) -> list[str]:
        """*agents* are that part now. The requests of agents, by their sha256, that are named no more."""
        former = self._requests.get(part, frozenset())
        self.agents[part] = agents
        self._requests[part] = frozenset(fingerprint(agent.request) for agent in agents)
        return [request for request in former if not self.names(request)]

    def forget_agents(self) -> None:
        """It names none, until it is told again whom it names. The parts stay: control may still know them."""
        for part in self.agents:
            self.set_agents(part, ())

    def names(self, request: str) -> bool:
        """Whether an agent with that request, by its sha256, is named."""
        return any(request in some for some in self._requests.values())

    def part_key(self, part: int) -> str:
        """What the newest state of that part is known by on its way to control."""
        return f"{self.alias} agents {part}"

    def claim(self, holder: "Holder") -> Claimed:
        """The claim as control gets it."""
        up = () if holder.silent else tuple(ListeningPort(*port) for port in sorted(self.up))
        session = holder.session
        return Claimed(
            self.alias, self.spec, session.holder, session.address, self.relays, up, self.reset_older, self.excluded
        )


@dataclass
class Holder:
    """What one session has."""

    session: Session
    changes: TokenBucket
    watches: TokenBucket
    naming: TokenBucket
    catching_up: Timer | None = None
    """When what is overdue is tried again."""
    held: dict[str, HeldIntercept] = field(default_factory=dict)
    silent: bool = False
    cut: bool = False


def refuse_too_long(holder: Holder, message: Intercept, wanted: Sequence[tuple[int, Transport]]) -> None:
    """Raise ProtocolError where control could not be sent the claim, with all of the *wanted* ports up."""
    relays = tuple(Relay(remote, protocol, RELAY_PORTS.start) for remote, protocol in wanted)
    held = HeldIntercept(message.id, message.id, message.spec, relays, message.reset_older, message.excluded)
    held.up.update(wanted)
    encode(held.claim(holder))
