"""The agent's life as a state machine: events of manager, kernel, worker and Envoy in, actions out. Pure.

Each ``on_…`` method takes an event and returns what it asks for, in order; *now* is in seconds on one clock that never
goes back. Asking for something twice is harmless. Why in this order: docs/design/0009.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Final

from meshdev.sidecar.agent import plan
from meshdev.sidecar.agent.actions import (
    Action,
    Actions,
    AllocateListeners,
    Announce,
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
from meshdev.sidecar.envoy.bootstrap import DRAIN_SECONDS
from meshdev.sidecar.envoy.stats import Stats
from meshdev.wire.agent import (
    MAX_CLAIMED_PORTS,
    MAX_TRAFFIC,
    FromAgent,
    Listen,
    ManagerOrder,
    PodPort,
    Probe,
    ProbeRelays,
    Redirect,
    State,
    Want,
    Wanted,
)
from meshdev.wire.counts import PassthroughTotals
from meshdev.wire.intercepts import ProbeResult
from meshdev.wire.passthrough import PortClaims

#: Without an intercept, and without the manager, the sidecar leaves after these times.
UNWANTED_SECONDS: Final = 30.0
LOST_SECONDS: Final = 60.0
_NEVER: Final = f"no session has attested this sidecar for {LOST_SECONDS:.0f} s"
#: Without both it waits for nobody; it would be in the way of another manager's.
IDLE_SECONDS: Final = 5.0
#: A manager that comes back within this time changes nothing for bytes and datagrams.
CUT_OFF_SECONDS: Final = 3.0
#: Between two :meth:`Lifecycle.on_tick`: how soon a listener that came or went is seen; the kernel has no event for it.
LOOK_SECONDS: Final = 0.25
LOOK_SECONDS_TERMINATING: Final = 0.05
#: How often the manager learns what the passthrough proxy counted: it is for metrics alone.
PASSTHROUGH_SECONDS: Final = 10.0
#: An Envoy that answers nothing for so long serves nothing either: it is killed, the app gets what was claimed, and
#: another Envoy starts.
HUNG_SECONDS: Final = 10.0


class Phase(Enum):
    """RUNNING, then TERMINATING when the pod is (it serves until the app stops listening), then LEAVING, then ENDED.

    LEAVING: nothing is redirected any more, and Envoy finishes what is under way. TERMINATING may be skipped.
    """

    RUNNING = 1
    TERMINATING = 2
    LEAVING = 3
    ENDED = 4


class Lifecycle:
    """One agent, from its start without a manager to its end."""

    def __init__(self, now: float, probes: Sequence[Probe] = (), *, looks: bool = False) -> None:
        """*probes* are those of the pod; *looks*: the kernel redirects nothing to which nobody listens."""
        self.phase = Phase.RUNNING
        self.reason = ""
        """Why it leaves."""
        self._wanted: dict[PodPort, Wanted] = {}
        self._served = self._terminating = self._failing = self._attested = False
        self._probes, self._looks = probes, looks
        self._listen = Listen({}, "")
        self._asked, self._stale = Redirect(()), False
        self._applied = 0
        self._claims: tuple[object, Mapping[PodPort, PortClaims]] = (None, {})
        self._listening: frozenset[PodPort] | None = frozenset()
        self._redirected: frozenset[PodPort] = frozenset()
        self._older: Mapping[PodPort, int] = {}
        self._lost_since: float | None = now
        self._unwanted_since: float | None = None  # because the manager said so, not because it is silent
        self._leaving_since = 0.0
        self._envoy = False
        self._envoy_answered = now
        self._envoys = self._counted_by = 0  # how many were started, and which one has counted the stats
        self._stats = Stats()
        self._passthrough, self._passthrough_at = PassthroughTotals(), -PASSTHROUGH_SECONDS
        self._reading = self._read_again = False
        self._draining = False
        self._drain_asked: bool | None = None

    # -- the manager -----------------------------------------------------------------------------------------------

    def on_attested(self) -> Actions:
        """A session has named the manager to serve."""
        self._attested = True
        return []

    def on_message(self, message: ManagerOrder, now: float) -> Actions:
        """A message of the manager."""
        # What the former one said of bytes is not true again before this one has spoken of redirects.
        self._stale = self._stale or _passed(self._lost_since, now) > CUT_OFF_SECONDS
        self._lost_since = None
        match message:
            case Want():
                return [*self._want(message, now), FindListening()]
            case Redirect():
                self._asked, self._stale = message, False
                return [FindListening()]
            case ProbeRelays():
                return [SetProbes(message), FindListening()]

    def _want(self, message: Want, now: float) -> Actions:
        self._wanted = {each.port: each for each in message.ports}
        kept = tuple(port for port in self._asked.ports if port in self._wanted)
        self._asked = replace(self._asked, ports=kept)
        if self._wanted:
            self._unwanted_since = None
            self._served = True
        elif self._unwanted_since is None:
            self._unwanted_since = now
        return [AllocateListeners(tuple(self._wanted))]

    def on_listeners(self, ports: Mapping[PodPort, int], folder: str) -> Actions:
        """Where to redirect ports to, those that were wanted earlier, too; and the folder of Envoy's sockets."""
        self._listen = Listen(ports, folder)
        return [Announce()]

    def on_applied(self, number: int, now: float) -> Actions:
        """The passthrough proxy decides by the claims of that ClaimPorts."""
        self._applied = number
        return self._react(now)

    def on_lost(self, now: float) -> Actions:
        """The stream to the manager has ended, and its numbers mean nothing on the next one."""
        self._lost_since = now
        self._asked, self._applied = replace(self._asked, number=0), 0
        return [SetProbes(None), *self._react(now)]

    def states(self, return_paths: tuple[tuple[int, ProbeResult], ...], now: float) -> list[FromAgent]:
        """All that the manager has to know, in order."""
        held_back = plan.held_back(self._situation(now))
        state = State(
            redirected=tuple(sorted(port for port in self._redirected if held_back.get(port) != "no-listener")),
            held_back=tuple(sorted(held_back.items())),
            older=tuple(sorted(self._older.items())),
            intercepts=tuple(sorted(self._stats.intercepts.items())),
            flows=tuple(sorted(self._stats.flows.items())),
            traffic=tuple(self._stats.newest_traffic(MAX_TRAFFIC)),
            flow_traffic=tuple(sorted(self._stats.flow_traffic.items())[:MAX_CLAIMED_PORTS]),
            return_paths=return_paths,
            applied=self._applied,
            envoys=self._counted_by,
            passthrough=self._passthrough,
        )
        return [self._listen, state] if self._listen.ports else [state]

    # -- the pod ---------------------------------------------------------------------------------------------------

    def on_terminate(self, now: float) -> Actions:
        """The pod is going to end."""
        if self.phase is not Phase.RUNNING:
            return []
        self.phase, self._terminating = Phase.TERMINATING, True
        return [Log("the pod is going to end"), *self._react(now)]

    def on_failure(self, now: float) -> Actions:
        """Part of the agent does not work any more."""
        return self._leave("a part of the agent has ended", now)

    def on_tick(self, now: float) -> Actions:
        """:attr:`tick_seconds` have passed."""
        return [FindListening()] if self._wanted else self._check(now)

    @property
    def tick_seconds(self) -> float:
        """When :meth:`on_tick` is due."""
        return LOOK_SECONDS_TERMINATING if self.phase is Phase.TERMINATING else LOOK_SECONDS

    def on_listening(self, ports: frozenset[PodPort] | None, now: float, *, failing: bool = False) -> Actions:
        """All ports with a listener in the pod; None where the kernel does not say.

        *failing*: passthrough workers end again and again.
        """
        self._listening, self._failing = ports, failing
        return self._react(now)

    def on_redirected(self, ports: frozenset[PodPort]) -> Actions:
        """What is redirected now: what was asked for, or what was before."""
        if ports == self._redirected:
            return []
        self._redirected = ports
        return [Log(f"redirected: {_listed(ports) or 'nothing'}"), self._count_older(), Announce()]

    def on_older(self, counts: Mapping[PodPort, int]) -> Actions:
        """How many older connections each port has."""
        self._older = counts
        return [Announce()]

    def on_count(self) -> Actions:
        """It is time to count what happens."""
        found: list[Action] = [self._count_older()] if self._older else []
        if self._wanted and self._envoy:
            found += self._read()
        return [*found, Announce()]

    def on_passthrough(self, totals: PassthroughTotals, now: float) -> Actions:
        """What the passthrough proxy has counted by now."""
        if totals == self._passthrough or now - self._passthrough_at < PASSTHROUGH_SECONDS:
            return []
        self._passthrough, self._passthrough_at = totals, now
        return [Announce()]

    # -- Envoy -----------------------------------------------------------------------------------------------------

    def on_envoy_started(self, now: float) -> Actions:
        """Its process runs, and knows nothing of what another one was asked."""
        self._envoy, self._envoy_answered = True, now
        self._envoys += 1
        self._draining, self._drain_asked = False, None
        return self._check(now)

    def on_envoy_ended(self, now: float) -> Actions:
        """Its process has ended: datagrams are not redirected any more; what was claimed of TCP goes to the app."""
        self._envoy = False
        return self._react(now)

    def on_stats(self, stats: Stats, now: float) -> Actions:
        """What Envoy counted."""
        self._stats, self._envoy_answered = stats, now
        self._counted_by = self._envoys
        return [*self._after_reading(), Announce()]

    def on_stats_failed(self, now: float) -> Actions:
        """It did not answer."""
        found = self._after_reading()
        if now - self._envoy_answered > HUNG_SECONDS:
            return [Log(f"Envoy is silent for {HUNG_SECONDS:.0f} s and is killed", error=True), KillEnvoy(), *found]
        return found

    def on_draining(self, on: bool, *, failed: bool = False) -> Actions:
        """Envoy was asked to drain, or not to; where that *failed* it is asked again."""
        self._drain_asked = None
        if not failed and self._envoy:
            self._draining = on
        return self._read() if self.phase is Phase.LEAVING else []

    def _read(self) -> Actions:
        """One question at a time; what happens meanwhile may not be in its answer."""
        if self._reading:
            self._read_again = True
            return []
        self._reading = True
        return [ReadStats()]

    def _after_reading(self) -> Actions:
        self._reading = False
        again, self._read_again = self._read_again, False
        if self.phase is Phase.LEAVING and not self._stats.busy:
            self._end()
        return self._read() if again else []

    # -- what follows ----------------------------------------------------------------------------------------------

    def _situation(self, now: float) -> plan.Situation:
        return plan.Situation(
            wanted=self._wanted,
            listener_ports=self._listen.ports,
            asked=self._asked if self.phase in {Phase.RUNNING, Phase.TERMINATING} else Redirect(()),
            listening=self._listening,
            folder=self._listen.folder,
            probes=self._probes,
            envoy=self._envoy,
            cut_off=self._stale or _passed(self._lost_since, now) > CUT_OFF_SECONDS,
            draining=self._terminating,
            decides=self._applied >= self._asked.number,
            redirected=self._redirected,
            looks=self._looks,
            failing=self._failing,
        )

    def _react(self, now: float) -> Actions:
        then = self._check(now)  # first: whoever leaves redirects nothing
        return [*self._decide(now), *then]

    def _decide(self, now: float) -> Actions:
        now_ = self._situation(now)
        claims = ClaimPorts(self._claimed(now_), self._asked.number)
        return [claims, SetRedirects(plan.redirects(now_)), Announce()]

    def _claimed(self, now: plan.Situation) -> Mapping[PodPort, PortClaims]:
        """Asked several times a second, and there may be a thousand matches."""
        key = (now.asked, now.wanted, now.listener_ports, now.folder, now.cut_off, now.draining)
        if self._claims[0] != key:
            self._claims = key, plan.claims(now)
        return self._claims[1]

    def _count_older(self) -> CountOlder:
        close = {port for port in self._redirected if port in self._wanted and self._wanted[port].reset_older}
        return CountOlder(self._redirected, frozenset(close))

    def _check(self, now: float) -> Actions:
        """Whether it is time to leave, or to end; what Envoy is to do until then."""
        if self.phase is Phase.LEAVING:
            return self._finish(now)
        if (reason := self._over(now)) is not None:
            return self._leave(reason, now)
        return self._drain(self.phase is Phase.TERMINATING or (self._served and not self._wanted))

    def _over(self, now: float) -> str | None:
        if self.phase is Phase.ENDED:
            return None
        if self.phase is Phase.TERMINATING and not self._app_listens():
            return "the app has ended"
        if _passed(self._unwanted_since, now) > UNWANTED_SECONDS:
            return f"nobody intercepted anything for {UNWANTED_SECONDS:.0f} s"
        if self._unwanted_since is not None and _passed(self._lost_since, now) > IDLE_SECONDS:
            return f"nobody intercepts anything, and the manager is lost for {IDLE_SECONDS:.0f} s"
        if _passed(self._lost_since, now) > LOST_SECONDS:
            return f"the manager is lost for {LOST_SECONDS:.0f} s" if self._attested else _NEVER
        return None

    def _app_listens(self) -> bool:
        return self._listening is not None and bool(self._listening & self._wanted.keys())

    def _leave(self, reason: str, now: float) -> Actions:
        """The redirects at once; Envoy when nothing is under way there."""
        if self.phase in {Phase.LEAVING, Phase.ENDED}:
            return []
        self.phase, self.reason, self._leaving_since = Phase.LEAVING, reason, now
        found = [Log(reason), *self._decide(now)]
        if not self._envoy:
            self._end()
            return found
        return [*found, *(self._drain(True) or self._read())]

    def _finish(self, now: float) -> Actions:
        if not self._envoy or now - self._leaving_since > DRAIN_SECONDS:
            self._end()
        elif self._drain_asked is None:
            return self._read() if not self._reading else []
        return []

    def _end(self) -> None:
        self.phase = Phase.ENDED

    def _drain(self, on: bool) -> Actions:
        if not self._envoy or on == self._draining or self._drain_asked is not None:
            return []
        self._drain_asked = on
        return [SetDraining(on)]


def _listed(ports: frozenset[PodPort]) -> str:
    return ", ".join(map(str, sorted(ports)))


def _passed(since: float | None, now: float) -> float:
    return 0.0 if since is None else now - since
