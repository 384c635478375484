"""Which agents belong to which claims. Pure.

A claim (by its alias) names agents by their keys, in parts; an agent may belong to the claims of many sessions.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet


class Naming:
    """Both ways at once: what happens to one agent shall not cost what all claims have."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[int, frozenset[str]]] = {}
        self._aliases: dict[str, set[str]] = {}

    def begin(self, alias: str) -> None:
        """There is such a claim; it names no agents yet, or still those that it named before."""
        self._parts.setdefault(alias, {})

    def name(self, alias: str, part: int, keys: AbstractSet[str]) -> AbstractSet[str]:
        """*keys* are that part of the claim now; those that belong to it since or no more. None where it is gone."""
        if alias not in self._parts:
            return frozenset()
        before = self.keys_of(alias)
        self._parts[alias][part] = frozenset(keys)
        return self._index(alias, before)

    def end(self, alias: str) -> AbstractSet[str]:
        """The claim is over; the keys that it named."""
        before = self.keys_of(alias)
        self._parts.pop(alias, None)
        return self._index(alias, before)

    def keys_of(self, alias: str) -> frozenset[str]:
        """All that the claim names."""
        return frozenset().union(*self._parts.get(alias, {}).values())

    def aliases_of(self, key: str) -> Iterator[str]:
        """The claims that name the key, oldest first."""
        naming = self._aliases.get(key, set())
        return (alias for alias in self._parts if alias in naming) if len(naming) > 1 else iter(naming)

    def claimed(self) -> AbstractSet[str]:
        """The keys of all claims, as they are at any time."""
        return self._aliases.keys()

    def beside(self, key: str) -> frozenset[str]:
        """The keys of all claims that name this one: of one workload, where it was claimed rightly."""
        return frozenset().union(*(self.keys_of(alias) for alias in self._aliases.get(key, ())))

    def _index(self, alias: str, before: frozenset[str]) -> AbstractSet[str]:
        now = self.keys_of(alias)
        for key in before - now:
            self._aliases[key].discard(alias)
            if not self._aliases[key]:
                del self._aliases[key]
        for key in now - before:
            self._aliases.setdefault(key, set()).add(alias)
        return before ^ now
