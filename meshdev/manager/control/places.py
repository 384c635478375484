"""Places for streams of sidecars: of each key an agent's and an Envoy's, the newest of each, and a few with logs.

A session vouches for every key, and whoever has one has it rightly: it shall take no more of the places than it needs,
and keep none that others need when no session names it any more.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from typing import Final

#: Streams of one kind and key at once: one that has said nothing yet, and former ones that are about to end, or that
#: gRPC keeps until their connection ends because their peer reads nothing (25 KiB, and twice the message).
MAX_OF_KEY: Final = 3
#: Where more than half of the places are taken, the others are given back by those whose key has not been named for so
#: long. Before that they cost nothing, and a sidecar that waits for the next session does not dial each second.
UNNAMED_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 1.0


class PlaceLost(Exception):  # noqa: N818 -- an answer, not a fault
    """The stream has no place, or none any more."""


class Place:
    """That of one stream, whose task has *limit* around it."""

    def __init__(self, owner: tuple[str, str], limit: asyncio.Timeout) -> None:
        self.owner = owner
        self.reason = ""
        """Why it has to end."""
        self.has_begun = False
        self.unnamed_since: float | None = None
        self.writes: asyncio.Task[None] | None = None
        """What is under way still when the stream has ended: the place is taken until then."""
        self._limit = limit

    def end(self, reason: str) -> None:
        """Its block raises PlaceLost soon."""
        if not self.reason:
            self.reason = reason
            self._limit.reschedule(0)


class Places:
    """*enough*: so many streams may be there without anybody's being ended. *named* are the keys that sessions name."""

    def __init__(self, enough: int, named: Callable[[], AbstractSet[str]]) -> None:
        self._enough = enough
        self._named = named
        self._taken: dict[tuple[str, str], list[Place]] = {}
        self._looks = False

    @asynccontextmanager
    async def take(self, kind: str, key: str, most: int = MAX_OF_KEY) -> AsyncIterator[Place]:
        """A place for a stream of that *kind*, of which a key has at most so many. Raises PlaceLost: there is none, or
        the stream has to end."""
        owner = kind, key
        if len(self._taken.get(owner, ())) >= most:
            raise PlaceLost("this key has too many streams")
        place = None
        try:
            async with asyncio.timeout(None) as limit:
                place = Place(owner, limit)
                self._taken.setdefault(owner, []).append(place)
                self._look_later()
                yield place
        except TimeoutError:
            if place is not None and place.reason:
                raise PlaceLost(place.reason) from None
            raise
        finally:
            if place is not None:
                self._leave(place)

    def begin(self, place: Place) -> None:
        """Its first message is there: former streams of the same kind and key end."""
        place.has_begun = True
        for each in self._taken[place.owner]:
            if each is not place and each.has_begun:
                each.end("a newer stream of this key has begun")

    def _leave(self, place: Place) -> None:
        place.reason = place.reason or "it has ended"
        if place.writes is not None:
            place.writes.add_done_callback(lambda _: self._remove(place))
        else:
            self._remove(place)

    def _remove(self, place: Place) -> None:
        left = [each for each in self._taken.pop(place.owner) if each is not place]
        if left:
            self._taken[place.owner] = left

    def _look_later(self) -> None:
        if not self._looks and self._taken:
            self._looks = True
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looks = False
        self._look_later()
        now, named = asyncio.get_running_loop().time(), self._named()
        all_places = [each for places in self._taken.values() for each in places if not each.reason]
        for each in all_places:
            if each.owner[1] in named:
                each.unnamed_since = None
            elif each.unnamed_since is None:
                each.unnamed_since = now
        since = sorted((each.unnamed_since, at) for at, each in enumerate(all_places) if each.unnamed_since is not None)
        for unnamed_since, at in since[: max(0, len(all_places) - self._enough)]:
            if now - unnamed_since >= UNNAMED_SECONDS:
                all_places[at].end("no session of this manager vouches for this key any more")
