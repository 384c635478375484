"""Which carrier is tried first, as far as networks between here and the API server have shown what they pass."""

from collections.abc import Sequence

from meshdev.kube.portforward import Carrier


class CarrierOrder:
    """All kinds of carriers, the most promising first.

    The first kind that ever worked is preferred. One that was refused in so many words costs nothing and keeps its
    place, as another network may pass it. One that was swallowed or cut off costs seconds each time: it comes last,
    until the others are swallowed as well.
    """

    def __init__(self, kinds: Sequence[Carrier]) -> None:
        self._kinds = tuple(kinds)
        self._preferred: str | None = None
        self._avoided: str | None = None

    @property
    def kinds(self) -> tuple[Carrier, ...]:
        """In the order in which they are to be tried."""
        return tuple(sorted(self._kinds, key=lambda kind: (kind == self._avoided, kind != self._preferred)))

    def works(self, kind: str) -> None:
        """The manager was heard of through one of *kind*."""
        self._preferred = self._preferred or kind
        if self._avoided == kind:
            self._avoided = None

    def swallowed(self, kind: str) -> None:
        """Nothing came back through one of *kind*, or it was cut off before anything did."""
        self._avoided = kind
