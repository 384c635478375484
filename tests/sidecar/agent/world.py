"""A pod around the agent's life cycle that does what it is asked for."""

from meshdev.sidecar.agent.actions import (
    Action,
    Actions,
    AllocateListeners,
    ClaimPorts,
    CountOlder,
    FindListening,
    KillEnvoy,
    Log,
    ReadStats,
    SetDraining,
    SetProbes,
    SetRedirects,
)
from meshdev.sidecar.agent.lifecycle import Lifecycle, Phase
from meshdev.sidecar.envoy.stats import Stats
from meshdev.wire.agent import ManagerOrder, PodPort, ProbeRelays, State, Wanted
from meshdev.wire.modes import MESH, PROXY
from meshdev.wire.passthrough import PortClaims

WEB, RAW = PodPort(8080), PodPort(7000)
FOLDER = "/run/envoy"
LISTENERS = {WEB: 15800, RAW: 15801}
HTTP = Wanted(WEB, "http", MESH)
BYTES = Wanted(RAW, "tcp", PROXY)
ALL = frozenset({WEB, RAW, *(PodPort(number) for number in LISTENERS.values())})


class World:
    """A pod that does what it is asked for at once, but for Envoy: that answers when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.life = Lifecycle(self.now)
        self.listening: frozenset[PodPort] | None = ALL
        self.listeners: dict[PodPort, int] = {}
        self.redirected: dict[PodPort, int] = {}
        self.claims: dict[PodPort, PortClaims] = {}
        self.applied = 0
        self.unapplied: list[int] = []
        self.worker_hangs = False
        self.older: dict[PodPort, int] = {}
        self.closed: set[PodPort] = set()
        self.probed: list[ProbeRelays | None] = []
        self.unanswered: list[ReadStats | SetDraining] = []
        self.killed = 0
        self.refuse_redirects = False
        self.log: list[str] = []

    def do(self, actions: Actions) -> None:
        for action in actions:
            if not isinstance(action, Log):
                self.log.append(type(action).__name__)
            self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case AllocateListeners(ports):
                self.listeners |= {port: LISTENERS[port] for port in ports}
                self.do(self.life.on_listeners(dict(self.listeners), FOLDER))
            case FindListening():
                self.do(self.life.on_listening(self.listening, self.now))
            case ClaimPorts(ports, number):
                self.claims = dict(ports)
                self.unapplied = [number] if number and number != self.applied else []
            case SetRedirects(ports):
                assert ports.keys() <= self.claims.keys(), "a connection before its port's claims passes unlooked"
                if not self.refuse_redirects:
                    self.redirected = dict(ports)
                self.do(self.life.on_redirected(frozenset(self.redirected)))
            case CountOlder(ports, close):
                self.closed |= close
                self.do(self.life.on_older({port: count for port, count in self.older.items() if port in ports}))
            case ReadStats() | SetDraining():
                self.unanswered.append(action)
            case SetProbes(relays):
                self.probed.append(relays)
            case KillEnvoy():
                self.killed += 1

    def hear(self, *messages: ManagerOrder) -> None:
        for message in messages:
            self.do(self.life.on_message(message, self.now))
            self.apply()

    def apply(self) -> None:
        """The worker answers, unless it hangs."""
        while self.unapplied and not self.worker_hangs:
            self.applied = self.unapplied.pop()
            self.do(self.life.on_applied(self.applied, self.now))

    def wait(self, seconds: float) -> None:
        """Tick as long as that."""
        until = self.now + seconds
        while self.now < until and self.life.phase is not Phase.ENDED:
            self.now += self.life.tick_seconds
            self.do(self.life.on_tick(self.now))

    def start_envoy(self) -> None:
        self.do(self.life.on_envoy_started(self.now))

    def end_envoy(self) -> None:
        self.do(self.life.on_envoy_ended(self.now))
        while self.unanswered:
            self.fail()

    def answer(self, stats: Stats | None = None) -> ReadStats | SetDraining:
        """Envoy answers the oldest question."""
        action = self.unanswered.pop(0)
        if isinstance(action, SetDraining):
            self.do(self.life.on_draining(action.on))
        else:
            self.do(self.life.on_stats(stats or Stats(), self.now))
        return action

    def fail(self) -> None:
        """Envoy does not answer the oldest question."""
        action = self.unanswered.pop(0)
        if isinstance(action, SetDraining):
            self.do(self.life.on_draining(action.on, failed=True))
        else:
            self.do(self.life.on_stats_failed(self.now))

    def state(self) -> State:
        state = self.life.states((), self.now)[-1]
        assert isinstance(state, State)
        return state
