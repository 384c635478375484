"""The counts of an intercept, declared once for agent, manager, session and people.

A new count is a line of :class:`Counts`, one of its ``texts``, and the statistic that it is read from
(meshdev.sidecar.envoy.stats).
"""

from dataclasses import asdict, fields
from typing import Final, Self

from meshdev.wire.codecs import Integer
from meshdev.wire.message import field, message


class _Sum(Integer):
    """A sum of what others report, capped at what peers accept."""

    def dump(self, value: int) -> object:
        return min(value, self.high)


COUNT: Final = _Sum(0, 1 << 53)


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


@message()
class InterceptCounts(Counts):
    """The same of a pod or of all; *older* connections still go to the original."""

    older: int = field(COUNT, default=0)

    @classmethod
    def of(cls, counts: Counts, older: int) -> Self:
        """*counts*, with that many older connections."""
        return cls(**{**asdict(counts), "older": older})
