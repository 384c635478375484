"""The agents of an intercept's pods: the token of each is fetched as soon as it runs, its hash is part of the claim."""

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
#: Between two tries, in seconds: the second doubles up to the third, each within its half and its one and a half.
FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


class _Agent(NamedTuple):
    """One process: a container that is started again is another *instance*."""

    uid: str
    namespace: str
    pod: str
    container: str
    instance: str


class Agents:
    """Follows the pods by :meth:`watched`; works as long as :meth:`run` runs. *changed* is called after each change."""

    def __init__(self, link: Link, spec: SidecarSpec, claim: Claim, changed: Callable[[], None]) -> None:
        self._link = link
        self._spec = spec
        self._claim = claim
        self._changed = changed
        self._wanted: frozenset[_Agent] = frozenset()
        self._keys: dict[_Agent, str] = {}
        self._failures: dict[_Agent, str] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._news = asyncio.Event()

    def watched(self, replicas: Mapping[str, Replica]) -> None:
        """The pods as they are now: agents that are gone are taken out of the claim, new ones are fetched."""
        self._wanted = frozenset(self._agents(replicas))
        self._failures = {agent: why for agent, why in self._failures.items() if agent in self._wanted}
        if self._keys.keys() - self._wanted:
            self._keys = {agent: key for agent, key in self._keys.items() if agent in self._wanted}
            self._tell()
        self._news.set()

    @property
    def unknown(self) -> dict[str, str]:
        """Pods whose agent runs and is not part of the claim yet, by name: why not, empty where nothing went wrong."""
        return {agent.pod: self._failures.get(agent, "") for agent in self._wanted if agent not in self._keys}

    async def run(self) -> None:
        """Until cancelled."""
        fetching: dict[_Agent, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                for agent in fetching.keys() - self._wanted:
                    fetching.pop(agent).cancel()
                for agent in sorted(self._wanted - fetching.keys()):
                    fetching[agent] = group.create_task(self._fetch(agent))
                self._news.clear()
                await self._news.wait()

    def _agents(self, replicas: Mapping[str, Replica]) -> Iterator[_Agent]:
        ours = (self._spec.manager, self._spec.workload)
        for uid, pod in replicas.items():
            for each in pod.sidecars:
                if each.instance and (each.manager, each.workload) == ours:
                    yield _Agent(uid, pod.namespace, pod.name, each.name, each.instance)

    async def _fetch(self, agent: _Agent) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                async with self._slots:
                    token = await self._link.agent_token(agent.namespace, agent.pod, agent.container)
            except MeshdevError as error:
                log.info("the token of the agent in pod %s is not known: %s", agent.pod, error.message)
                self._failures[agent] = error.message
                self._changed()
            else:
                break
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 -- spreads requests, guards nothing
            pause = min(2 * pause, _LONGEST_PAUSE)
        self._failures.pop(agent, None)
        self._keys[agent] = hashlib.sha256(token.encode()).hexdigest()
        self._tell()

    def _tell(self) -> None:
        self._claim.agents(frozenset(self._keys.values()))
        self._changed()
