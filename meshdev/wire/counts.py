"""The counts of an intercept, declared once for agent, manager, session and people.

A new count is a line of :class:`Counts`, one of its ``texts``, and the statistic that it is read from
(meshdev.sidecar.envoy.stats).
"""

import re
from collections.abc import Callable
from dataclasses import asdict, fields
from itertools import zip_longest
from typing import Final, Self

from meshdev.wire.codecs import Integer, Many, Pairs
from meshdev.wire.message import field, message


class _Sum(Integer):
    """A sum of what others report, capped at what peers accept."""

    def dump(self, value: int) -> object:
        return min(value, self.high)


COUNT: Final = _Sum(0, 1 << 53)

_MAX_REASONS: Final = 64
_REASON: Final = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)


def _reason(text: str) -> str:
    if _REASON.fullmatch(text) is None:
        raise ValueError("is not a reason")
    return text


CountsByReason = tuple[tuple[str, int], ...]
BY_REASON: Final = Pairs(_reason, COUNT, _MAX_REASONS)


@message(slots=True)
class Counts:
    """Requests (of bytes: connections, or senders of datagrams) of one intercept in one pod since its Envoy started."""

    matched: int = field(COUNT, default=0)
    fell_back: int = field(COUNT, default=0)
    errors: int = field(COUNT, default=0)

    def __add__(self, other: Self) -> Self:
        names = [each.name for each in fields(self)]
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in names))

    def texts(self) -> list[str]:
        """For people, in this order."""
        return [
            f"{self.matched} matched",
            f"{self.fell_back} fell back",
            f"{self.errors} error{'' if self.errors == 1 else 's'}",
        ]


#: Upper bounds of durations of requests, in milliseconds, of which Envoy measures whole ones. Longer ones are counted
#: behind the last.
DURATIONS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000)


@message(slots=True)
class Traffic:
    """Bytes and durations of one intercept's requests in one pod since its Envoy started.

    ``durations`` has a count for each of :data:`DURATIONS`, of requests that took less than that and not less than the
    one before, and one of those that took longer; nothing where there is none. ``milliseconds`` is how long all took.
    """

    request_bytes: int = field(COUNT, default=0, sparse=True)
    response_bytes: int = field(COUNT, default=0, sparse=True)
    milliseconds: int = field(COUNT, default=0, sparse=True)
    durations: tuple[int, ...] = field(Many(COUNT, len(DURATIONS) + 1), default=(), sparse=True)

    def __add__(self, other: Self) -> Self:
        return self._with(other, int.__add__)

    def __bool__(self) -> bool:
        return bool(self.request_bytes or self.response_bytes or any(self.durations))

    def since(self, before: Self) -> Self:
        """What is more than *before*; of a count that has begun anew all of it."""
        return self._with(before, lambda now, then: now - then if now >= then else now)

    def _with(self, other: Self, join: Callable[[int, int], int]) -> Self:
        return type(self)(
            join(self.request_bytes, other.request_bytes),
            join(self.response_bytes, other.response_bytes),
            join(self.milliseconds, other.milliseconds),
            tuple(join(*each) for each in zip_longest(self.durations, other.durations, fillvalue=0)),
        )


@message()
class InterceptCounts(Counts):
    """The same of a pod or of all; *older* connections still go to the original."""

    older: int = field(COUNT, default=0)

    @classmethod
    def of(cls, counts: Counts, older: int) -> Self:
        """*counts*, with that many older connections."""
        return cls(**{**asdict(counts), "older": older})


@message()
class PassthroughTotals:
    """What the passthrough workers of one agent have counted since the agent's process began."""

    accepted: int = field(COUNT, default=0, sparse=True)
    """Connections."""
    claimed: int = field(COUNT, default=0, sparse=True)
    """Requests."""
    without_envoy: int = field(COUNT, default=0, sparse=True)
    """Claimed requests and connections that went to the app, because Envoy did not accept a connection."""
    errors: int = field(COUNT, default=0, sparse=True)
    """Connections that were reset by an internal error."""
    pod_address: CountsByReason = field(BY_REASON, default=(), sparse=True)
    """Connections to the app from the pod's address instead of the client's, by reason."""
    raw: CountsByReason = field(BY_REASON, default=(), sparse=True)
    """Connections that were followed no further, by reason."""
