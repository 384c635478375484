"""How many connections may be in their handshake: a limit in all and one a source. The oldest makes room.

Whoever waits for nothing is through within milliseconds, so the oldest one is not an honest client's.
"""

from typing import Final, Generic, TypeVar

#: In all: unauthenticated connections, for at most some seconds each.
MOST: Final = 1024
#: From one address. Generous: with kube-proxy --masquerade-all everybody comes from the node's.
PER_SOURCE: Final = 768

C = TypeVar("C")


class Admission(Generic[C]):
    """Connections in their handshake, by source, the oldest first."""

    def __init__(self, most: int = MOST, per_source: int = PER_SOURCE) -> None:
        self._most = most
        self._per_source = per_source
        self._sources: dict[str, dict[C, None]] = {}
        self._all: dict[C, str] = {}

    def __len__(self) -> int:
        return len(self._all)

    def enter(self, source: str, connection: C) -> C | None:
        """Admit one. The one that has to end instead, which has left; None where there is room."""
        others = self._sources.get(source, {})
        out: C | None = None
        if len(others) >= self._per_source:
            out = next(iter(others))
        elif len(self._all) >= self._most:
            out = next(iter(self._sources[max(self._sources, key=lambda each: len(self._sources[each]))]))
        if out is not None:
            self.leave(out)
        self._sources.setdefault(source, {})[connection] = None
        self._all[connection] = source
        return out

    def leave(self, connection: C) -> None:
        """It is over, or authenticated; nothing happens for one that has left."""
        source = self._all.pop(connection, None)
        if source is None:
            return
        others = self._sources[source]
        del others[connection]
        if not others:
            del self._sources[source]

    def oldest(self) -> C | None:
        """The one that entered first of those that are here."""
        return next(iter(self._all), None)
