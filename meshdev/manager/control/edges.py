"""Which agents belong to which claims. Pure.

A claim (by its alias) names agents by their signing requests, that is by their keys, each with a proof, in parts; an
agent reports which proofs it consents to. Where a claim names it by one of these, there is an edge: the claim reaches
exactly those agents. A claim that names an agent without its proof, and a proof without the key that it was given for,
reach nobody.
"""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import NamedTuple

from meshdev.errors import ProtocolError
from meshdev.identity.keys import id_of, requested_key
from meshdev.wire.intercepts import AttestedAgent


class NamedAgent(NamedTuple):
    """An agent as a claim names it. ``pod`` and ``uid`` are what its session reports."""

    key: str
    proof: str
    pod: str
    uid: str
    request: bytes


@lru_cache(maxsize=4096)
def _key(request: bytes) -> str:
    """A session sends its agents again and again; to look at one request takes 0.1 ms."""
    return id_of(requested_key(request))


def named_agents(agents: Iterable[AttestedAgent]) -> tuple[list[NamedAgent], str]:
    """Those whose request their own key has signed, and what is wrong with one of the others: its session's fault."""
    found, fault = [], ""
    for each in agents:
        try:
            found.append(NamedAgent(_key(each.request), each.proof, each.pod, each.uid, each.request))
        except ProtocolError as error:
            fault = f"the agent of pod {each.pod} is not taken: {error.message}"
    return found, fault


class Edges:
    """By claim and by key at once: what happens to one agent shall not cost what all claims have."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[int, tuple[NamedAgent, ...]]] = {}
        self._named: dict[str, dict[str, tuple[NamedAgent, ...]]] = {}
        """By alias and key."""
        self._at: dict[str, dict[str, set[str]]] = {}
        """Keys by alias and pod."""
        self._aliases: dict[str, set[str]] = {}
        self._consents: dict[str, frozenset[str]] = {}

    # -- from sessions ---------------------------------------------------------------------------------------------

    def begin(self, alias: str) -> None:
        """There is such a claim; it names no agents yet, or still those that it named before."""
        self._parts.setdefault(alias, {})
        self._named.setdefault(alias, {})

    def name(self, alias: str, part: int, agents: Iterable[NamedAgent]) -> AbstractSet[str]:
        """*agents* are that part of the claim now; the keys that it names otherwise since. None where it is gone."""
        if alias not in self._parts:
            return frozenset()
        self._parts[alias][part] = tuple(agents)
        found: dict[str, list[NamedAgent]] = {}
        at = self._at[alias] = {}
        for one in self._parts[alias].values():
            for agent in one:
                found.setdefault(agent.key, []).append(agent)
                at.setdefault(agent.pod, set()).add(agent.key)
        return self._replace(alias, {key: tuple(each) for key, each in found.items()})

    def end(self, alias: str) -> AbstractSet[str]:
        """The claim is over; the keys that it named."""
        self._parts.pop(alias, None)
        self._at.pop(alias, None)
        changed = self._replace(alias, {})
        self._named.pop(alias, None)
        return changed

    def _replace(self, alias: str, now: dict[str, tuple[NamedAgent, ...]]) -> AbstractSet[str]:
        before = self._named.get(alias, {})
        self._named[alias] = now
        for key in before.keys() - now.keys():
            self._aliases[key].discard(alias)
            if not self._aliases[key]:
                del self._aliases[key]
        for key in now.keys() - before.keys():
            self._aliases.setdefault(key, set()).add(alias)
        return {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}

    # -- from agents -----------------------------------------------------------------------------------------------

    def consent(self, key: str, proofs: Iterable[str]) -> AbstractSet[str]:
        """The proofs that the agent of *key* consents to, all of them; the claims whose edge to it began or ended."""
        before = set(self.aliases_of(key))
        self._consents[key] = frozenset(proofs)
        return before ^ set(self.aliases_of(key))

    def forget(self, key: str) -> AbstractSet[str]:
        """The agent is gone; the claims whose edge to it ended."""
        before = set(self.aliases_of(key))
        self._consents.pop(key, None)
        return before

    def has_reported(self, key: str) -> bool:
        """Whether it is known what that agent consents to."""
        return key in self._consents

    # -- what follows ----------------------------------------------------------------------------------------------

    def edge(self, alias: str, key: str) -> NamedAgent | None:
        """The agent as the claim names it, if there is an edge."""
        consents = self._consents.get(key, frozenset())
        return next((each for each in self._named.get(alias, {}).get(key, ()) if each.proof in consents), None)

    def keys_of(self, alias: str) -> frozenset[str]:
        """Those of the agents that the claim has an edge to."""
        return frozenset(key for key in self._named.get(alias, {}) if self.edge(alias, key) is not None)

    def named_by(self, alias: str) -> AbstractSet[str]:
        """Those of the agents that the claim names, whether they consent or not."""
        return self._named.get(alias, {}).keys()

    def keys_at(self, alias: str, pod: str) -> AbstractSet[str]:
        """Those of them in the pod of that name; several where its agent was replaced by another one."""
        return self._at.get(alias, {}).get(pod, frozenset())

    def aliases_of(self, key: str) -> Iterator[str]:
        """The claims that have an edge to the agent of *key*, oldest first."""
        naming = self._aliases.get(key, set())
        ordered = (alias for alias in self._parts if alias in naming) if len(naming) > 1 else iter(naming)
        return (alias for alias in ordered if self.edge(alias, key) is not None)

    def named(self) -> AbstractSet[str]:
        """The keys that any claim names, as they are at any time."""
        return self._aliases.keys()

    def beside(self, key: str) -> frozenset[str]:
        """The keys of all claims that name this one: of one workload, where it was claimed rightly."""
        return frozenset().union(*(self._named[alias].keys() for alias in self._aliases.get(key, ())))

    def naming(self, key: str) -> Iterator[tuple[str, NamedAgent]]:
        """The claims that name that key, and how; with an edge or without."""
        return ((alias, agent) for alias in self._aliases.get(key, ()) for agent in self._named[alias][key])
