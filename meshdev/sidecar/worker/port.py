"""A port of the pod as the worker serves it: what is claimed of it now, as the agent says."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import re2

from meshdev.errors import ProtocolError
from meshdev.intercept.match import Match
from meshdev.intercept.spec import match_of
from meshdev.sidecar.passthrough.decide import Decider
from meshdev.sidecar.passthrough.http1 import RequestHead
from meshdev.sidecar.passthrough.owner import ClaimPolicy
from meshdev.wire.passthrough import UNCLAIMED, PortClaims

log = logging.getLogger(__name__)


class PassthroughPort(ClaimPolicy, Protocol):
    """A port of the pod, as a connection to it needs to know it."""

    @property
    def whole(self) -> bool:
        """Whether all that comes there is claimed."""

    @property
    def unclaimed(self) -> bool:
        """Whether nothing of it is."""

    @property
    def app(self) -> tuple[str, int]:
        """Where the app listens."""

    @property
    def envoy(self) -> str:
        """The path of Envoy's listener."""

    def would_claim(self, head: RequestHead) -> bool:
        """Whether this request is for Envoy; not counted."""

    @property
    def explainer(self) -> Callable[[RequestHead], str | None]:
        """Says why a request is not, by the claims of now; None where it is."""


class ClaimedPort:
    """Shared by all connections of the port, so that what changes is true of their next requests, too.

    How a connection begins stays so: claimed as a whole, never inspected, or request by request.
    """

    __slots__ = ("_claims", "_decider", "app", "claimed", "draining", "envoy", "http2", "unclaimed", "watched", "whole")

    def __init__(self, app: tuple[str, int]) -> None:
        """*app*: where the app listens. Nothing is claimed."""
        self.app = app
        self.claimed = 0
        """Requests, so far."""
        self.watched = False
        """Whether somebody wants to know of its requests."""
        self._apply(UNCLAIMED)

    def set(self, claims: PortClaims) -> None:
        """From now on."""
        if claims != self._claims:
            self._apply(claims)

    def claims(self, head: RequestHead) -> bool:
        """Whether Envoy gets this request; counted."""
        if self._decider.decide(head) is None:
            return False
        self.claimed += 1
        return True

    def would_claim(self, head: RequestHead) -> bool:
        """Whether Envoy gets it; not counted."""
        return self._decider.decide(head) is not None

    @property
    def explainer(self) -> Callable[[RequestHead], str | None]:
        """Says why it does not, by the claims of now; None where it does."""
        return self._decider.explain

    def _apply(self, claims: PortClaims) -> None:
        matches: list[Match | None] = [None] if claims.whole else list(_usable(claims.matches))
        self._claims = claims
        self._decider = Decider(matches, claims.probes)
        self.whole = claims.whole
        self.unclaimed = not matches
        self.draining = claims.draining
        self.envoy = claims.envoy
        self.http2 = claims.http2 and bool(matches)


def _usable(texts: Iterable[str]) -> Iterator[Match | None]:
    """The matches of *texts*, except those that this version cannot read: they claim nothing."""
    for text in texts:
        try:
            match = match_of(text)
            Decider([match])
        except (ProtocolError, re2.error) as error:
            log.error("a match is not applied: %s", error)  # noqa: TRY400 -- the sentence says it
        else:
            yield match
