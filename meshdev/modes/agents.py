"""The agents of an intercept's pods: the token of each is fetched as soon as it runs, its hash is part of the claim.

An ephemeral container is asked on its assigned port from when it is part of the pod's spec: its log can be read up to a
second after it runs, when the kubelet has seen it (docs/design/0013). The log is read where that port does not answer.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from meshdev.errors import MeshdevError
from meshdev.kube.replicas import Replica
from meshdev.modes.link import Claim, Link
from meshdev.sidecar.join.container import SidecarSpec

log = logging.getLogger(__name__)

#: Agents whose tokens one intercept fetches at a time: each takes a port-forward.
AT_ONCE: Final = 8
#: Between two tries, in seconds: from the first to the longest, each within its half and its one and a half.
FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
#: By which factor pauses grow. Nobody knows when a container that starts will answer: with the smaller one a pause is
#: 0.1 s and a tenth of the time that has passed. A try takes 10 ms of everybody's API server: all together are no more
#: than so many a second.
_GROWTH: Final = 2.0
_STARTING_GROWTH: Final = 1.1
_STARTING_TRIES: Final = 40


class _Agent(NamedTuple):
    """One process: a container that is started again is another *instance*; an ephemeral one never is."""

    uid: str
    namespace: str
    pod: str
    container: str
    instance: str
    port: int = 0


class Agents:
    """Follows the pods by :meth:`watched`; works as long as :meth:`run` runs. *changed* gets :attr:`unknown` after
    each change."""

    def __init__(
        self, link: Link, spec: SidecarSpec, claim: Claim, changed: Callable[[Mapping[str, str]], None]
    ) -> None:
        self._link = link
        self._spec = spec
        self._claim = claim
        self._changed = changed
        self._wanted: dict[_Agent, bool] = {}
        """Whether it is known to run."""
        self._keys: dict[_Agent, str] = {}
        self._failures: dict[_Agent, str] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._news = asyncio.Event()

    def watched(self, replicas: Mapping[str, Replica]) -> None:
        """The pods as they are now: agents that are gone are taken out of the claim, new ones are fetched."""
        self._wanted = dict(self._agents(replicas))
        self._failures = {agent: why for agent, why in self._failures.items() if agent in self._wanted}
        if self._keys.keys() - self._wanted.keys():
            self._keys = {agent: key for agent, key in self._keys.items() if agent in self._wanted}
            self._claim_keys()
        self._news.set()

    @property
    def unknown(self) -> dict[str, str]:
        """Pods whose agent runs and is not part of the claim yet, by name: why not, empty where nothing went wrong."""
        running = (agent for agent, runs in self._wanted.items() if runs)
        return {agent.pod: self._failures.get(agent, "") for agent in running if agent not in self._keys}

    async def run(self) -> None:
        """Until cancelled."""
        fetching: dict[tuple[_Agent, bool], asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                wanted = {each for each in self._wanted.items() if each[0] not in self._keys}
                for each in fetching.keys() - wanted:
                    fetching.pop(each).cancel()
                for each in sorted(wanted - fetching.keys()):
                    fetching[each] = group.create_task(self._fetch(*each))
                self._news.clear()
                await self._news.wait()

    def _agents(self, replicas: Mapping[str, Replica]) -> Iterator[tuple[_Agent, bool]]:
        ours = (self._spec.manager, self._spec.workload)
        for uid, pod in replicas.items():
            for each in pod.sidecars:
                if (each.manager, each.workload) != ours:
                    continue
                if each.token_port:
                    yield _Agent(uid, pod.namespace, pod.name, each.name, "", each.token_port), bool(each.instance)
                elif each.instance:
                    yield _Agent(uid, pod.namespace, pod.name, each.name, each.instance), True

    async def _fetch(self, agent: _Agent, runs: bool) -> None:
        pause, growth = FIRST_PAUSE, _GROWTH if runs else _STARTING_GROWTH
        while True:
            try:
                async with self._slots:
                    token = await self._token(agent, runs)
            except MeshdevError as error:
                if runs:  # else there is nothing to wonder about yet
                    log.info("the token of the agent in pod %s is not known: %s", agent.pod, error.message)
                    self._failures[agent] = error.message
                    self._changed(self.unknown)
            else:
                break
            least = 0.0 if runs else len(self._starting()) / _STARTING_TRIES
            spread = random.uniform(0.5, 1.5)  # noqa: S311 -- spreads requests, guards nothing
            await asyncio.sleep(max(pause, least) * spread)
            pause = min(growth * pause, _LONGEST_PAUSE)
        self._failures.pop(agent, None)
        self._keys[agent] = hashlib.sha256(token.encode()).hexdigest()
        self._claim_keys()

    def _starting(self) -> set[_Agent]:
        return {agent for agent, runs in self._wanted.items() if not runs} - self._keys.keys()

    async def _token(self, agent: _Agent, runs: bool) -> str:
        if agent.port:
            try:
                return await self._link.agent_token_at(agent.namespace, agent.pod, agent.port)
            except MeshdevError:
                if not runs:
                    raise
        return await self._link.agent_token(agent.namespace, agent.pod, agent.container)

    def _claim_keys(self) -> None:
        self._claim.agents(frozenset(self._keys.values()))
        self._changed(self.unknown)
