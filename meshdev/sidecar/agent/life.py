"""The agent's life: what it hears of kernel, Envoy and manager, and in which order it comes and goes.

Why in this order: docs/design/0009.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from meshdev.errors import ClusterError, FirewallError
from meshdev.sidecar.agent import plan
from meshdev.sidecar.agent.control import Control
from meshdev.sidecar.agent.envoy import Envoy
from meshdev.sidecar.agent.firewall import PodFirewall
from meshdev.sidecar.agent.listener_ports import ListenerPorts
from meshdev.sidecar.agent.return_paths import ReturnPaths
from meshdev.sidecar.agent.settings import Settings
from meshdev.sidecar.agent.sockets import Sockets
from meshdev.sidecar.envoy.bootstrap import DRAIN_SECONDS
from meshdev.sidecar.envoy.stats import Stats
from meshdev.wire.agent import FromAgent, FromControl, Listen, PodPort, ProbeRelays, Redirect, State, Want, Wanted

log = logging.getLogger(__name__)

#: Without an intercept, and without the manager, the sidecar goes after these times.
UNWANTED_SECONDS: Final = 30.0
LOST_SECONDS: Final = 60.0
#: Without both it waits for nobody; it would be in the way of another manager's.
IDLE_SECONDS: Final = 5.0
#: A manager that comes back within this time changes nothing for bytes and datagrams.
CUT_OFF_SECONDS: Final = 3.0
#: How soon a listener that came or went is seen; the kernel has no event for it.
LOOK_SECONDS: Final = 0.25
LOOK_SECONDS_ENDING: Final = 0.05
COUNT_SECONDS: Final = 1.0
#: An Envoy that answers nothing for so long serves nothing either: the app gets its traffic, and another Envoy starts.
HUNG_SECONDS: Final = 10.0
#: Between two questions about connections without requests.
_RAW_SECONDS: Final = 0.05
_RESTART_SECONDS: Final = 0.1
_LONGEST_RESTART_SECONDS: Final = 5.0


class Agent:
    """Everything in the pod. :meth:`run` returns when the sidecar is no longer needed."""

    def __init__(self, settings: Settings, firewall: PodFirewall, sockets: Sockets, envoy: str) -> None:
        self._firewall = firewall
        self._sockets = sockets
        self._raw = asyncio.Event()
        self._envoy = Envoy(settings, self._raw.set, envoy, firewall.hold)
        self._control = Control(settings, said=self._said, lost=self._lost, states=self._states)
        self._ways = ReturnPaths(self._control.tell)
        self._doors = ListenerPorts()
        self._wanted: dict[PodPort, Wanted] = {}
        self._listen: Listen | None = None
        self._asked: frozenset[PodPort] = frozenset()
        self._listening: frozenset[PodPort] | None = frozenset()
        self._first: frozenset[PodPort] = frozenset()
        self._stats = Stats()
        self._heard_of_envoy: float | None = None
        self._older: dict[PodPort, int] = {}
        self._unwanted_since: float | None = None  # the manager's word counts, not its silence
        self._lost_since: float | None = time.monotonic()
        self._ending = False
        self._leaving = False
        self._draining = False
        self._served = False
        self._news = asyncio.Event()

    def terminate(self) -> None:
        """The pod is going: serve until the app stops listening."""
        log.info("told to end")
        self._ending = True
        self._news.set()

    async def run(self) -> None:
        """Until nobody needs it; the pod is as before when this returns."""
        tasks = [
            asyncio.ensure_future(each)
            for each in (
                self._control.run(),
                self._keep_envoy(),
                self._every(COUNT_SECONDS, self._count),
                self._find_first(),
                self._ways.run(),
                self._look_always(),
            )
        ]
        waiting = asyncio.ensure_future(self._wait_for_the_end())
        try:
            done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
            if waiting not in done:
                log.error("a part of the agent has ended")
            await self._leave()
            for task in done:
                task.result()
        finally:
            self._leaving = True
            for task in (waiting, *tasks):
                task.cancel()
            await asyncio.wait([waiting, *tasks])
            await self._envoy.end()
            self._envoy.close()

    # What it hears

    def _said(self, message: FromControl) -> None:
        self._lost_since = None
        match message:
            case Want():
                self._want(message)
            case Redirect():
                self._asked = frozenset(message.ports)
            case ProbeRelays():
                self._ways.ask(message)
        self._look()
        self._news.set()

    def _want(self, message: Want) -> None:
        self._wanted = {each.port: each for each in message.ports}
        if self._wanted:
            self._unwanted_since = None
            self._served = True
        elif self._unwanted_since is None:
            self._unwanted_since = time.monotonic()
        try:
            self._listen = Listen(self._doors.of(self._wanted))
        except ClusterError as error:
            log.error("%s", error.message)  # noqa: TRY400 -- the sentence says it
        self._asked &= self._wanted.keys()
        self._control.tell()

    def _lost(self) -> None:
        log.warning("the stream to the manager is lost")
        self._lost_since = time.monotonic()
        self._ways.forget()
        self._news.set()

    def _states(self) -> list[FromAgent]:
        state = self._state()
        return [self._listen, state] if self._listen is not None else [state]

    def _state(self) -> State:
        return State(
            redirected=tuple(sorted(self._firewall.redirected)),
            held_back=tuple(sorted(plan.held_back(self._situation()).items())),
            older=tuple(sorted(self._older.items())),
            intercepts=tuple(sorted(self._stats.intercepts.items())),
            flows=tuple(sorted(self._stats.flows.items())),
            return_paths=self._ways.found,
        )

    # What it does

    def _situation(self) -> plan.Situation:
        return plan.Situation(
            wanted=self._wanted,
            doors=self._listen.ports if self._listen is not None else {},
            asked=frozenset() if self._leaving else self._asked,
            listening=self._listening,
            first=self._first,
            envoy=self._envoy.running,
            cut_off=self._away(self._lost_since) > CUT_OFF_SECONDS,
        )

    def _look(self) -> None:
        """See who listens, and decide anew."""
        self._listening = self._sockets.listening()
        self._decide()

    def _decide(self) -> None:
        before = self._firewall.redirected
        try:
            self._firewall.redirect(plan.redirects(self._situation()))
        except FirewallError as error:
            log.error("%s", error.message)  # noqa: TRY400 -- the sentence says it
        after = self._firewall.redirected
        if after != before:
            log.info("redirected: %s", ", ".join(map(str, sorted(after))) or "nothing")
            self._count_older()
        self._control.tell()

    def _count_older(self) -> None:
        """Connections that are older than the redirect; closed where that is wanted."""
        redirected = self._firewall.redirected
        doomed = [port for port in redirected if port in self._wanted and self._wanted[port].reset_older]
        if doomed and (closed := self._sockets.close_older(doomed)):
            log.info("%d older connections were closed", closed)
        self._older = self._sockets.older(redirected)

    async def _count(self) -> None:
        if self._older:
            self._count_older()
        if self._wanted and self._envoy.running:
            await self._take_stats()
        self._control.tell()

    async def _take_stats(self) -> None:
        try:
            self._stats = await self._envoy.stats()
        except ClusterError as error:
            log.info("%s", error.message)
            if self._away(self._heard_of_envoy) > HUNG_SECONDS:
                log.error("Envoy is silent for %.0f s and is killed", HUNG_SECONDS)  # noqa: TRY400 -- said above
                self._envoy.kill()
            return
        self._heard_of_envoy = time.monotonic()
        self._first = frozenset(port for port in self._wanted if self._stats.speaks_first(port))

    async def _find_first(self) -> None:
        """A connection without requests came: if its client was silent, the server speaks first."""
        while True:
            await self._raw.wait()
            self._raw.clear()
            before = self._first
            await self._take_stats()
            if self._first != before:
                log.info("servers that speak first: %s", ", ".join(map(str, sorted(self._first))))
                self._decide()
            await asyncio.sleep(_RAW_SECONDS)

    async def _look_always(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS_ENDING if self._ending else LOOK_SECONDS)
            if self._wanted:
                self._look()
            self._news.set()

    async def _keep_envoy(self) -> None:
        pause = _RESTART_SECONDS
        while True:
            started = time.monotonic()
            await self._envoy.run(started=self._envoy_started, ended=self._decide)  # rules first, restart after
            if time.monotonic() - started > 2 * _LONGEST_RESTART_SECONDS:
                pause = _RESTART_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_RESTART_SECONDS)

    def _envoy_started(self) -> None:
        self._draining = False
        self._heard_of_envoy = time.monotonic()
        self._news.set()

    async def _every(self, seconds: float, do: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            await do()

    # How it goes

    async def _wait_for_the_end(self) -> None:
        while (reason := self._over()) is None:
            await self._drain(on=self._ending or (self._served and not self._wanted))
            await self._news.wait()
            self._news.clear()
        log.info("%s", reason)

    def _over(self) -> str | None:
        if self._ending and not self._app_listens():
            return "the app has ended"
        if self._away(self._unwanted_since) > UNWANTED_SECONDS:
            return f"nobody intercepted anything for {UNWANTED_SECONDS:.0f} s"
        if self._unwanted_since is not None and self._away(self._lost_since) > IDLE_SECONDS:
            return f"nobody intercepts anything, and the manager is lost for {IDLE_SECONDS:.0f} s"
        if self._away(self._lost_since) > LOST_SECONDS:
            return f"the manager is lost for {LOST_SECONDS:.0f} s"
        return None

    def _app_listens(self) -> bool:
        return self._listening is not None and bool(self._listening & self._wanted.keys())

    async def _leave(self) -> None:
        """The rules at once, then Envoy when nothing is under way there, then the table."""
        self._leaving = True
        self._decide()
        await self._drain(on=True)
        until = time.monotonic() + DRAIN_SECONDS
        while self._envoy.running and time.monotonic() < until:
            await self._take_stats()
            if not self._stats.busy:
                break
            await asyncio.sleep(LOOK_SECONDS)

    async def _drain(self, *, on: bool) -> None:
        if on == self._draining or not self._envoy.running:
            return
        try:
            await self._envoy.drain(on=on)
            self._draining = on
        except ClusterError as error:
            log.info("%s", error.message)

    @staticmethod
    def _away(since: float | None) -> float:
        return 0.0 if since is None else time.monotonic() - since
