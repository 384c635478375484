"""The claims that a pod's passthrough proxy may decide by: those that Envoy has acknowledged and that still hold. Pure.

A decision is on after Envoy has the routes and off before they are removed, so that what is claimed finds its route.
Whether a local program is up makes no difference: its claim stays, and Envoy counts what falls back.
"""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from meshdev.intercept.match import Match
from meshdev.intercept.spec import canonical_json
from meshdev.sidecar.envoy.claims import LiveClaim, pod_port
from meshdev.wire.agent import DecidedClaim, PodPort

#: Bytes of all claims of one pod in one message, which may have ``wire.agent.MAX_MESSAGE``.
MAX_BYTES: Final = 768 << 10
_BYTES_OF_A_PORT: Final = len('"65535",')
_BYTES_OF_A_CLAIM: Final = len('{"ports":[],"match":,"whole":true},')


class ClaimDecision(NamedTuple):
    """One claim on one port. *alias* is the claim's."""

    alias: str
    port: PodPort
    match: str
    whole: bool


Decisions = frozenset[ClaimDecision]


def decisions(alias: str, claim: LiveClaim, ports: Iterable[PodPort]) -> Decisions:
    """Those of a claim on its TCP ports that are among *ports*."""
    match, whole = _text(claim.spec.match), claim.spec.mode.takes_bytes
    mine = {pod_port(port) for port in claim.spec.ports}.intersection(ports)
    return frozenset(ClaimDecision(alias, port, match, whole) for port in mine if port.transport == "tcp")


def size(claim: LiveClaim) -> int:
    """Bytes that the claim takes in a message, at most: the agent's worker gets its match once for each port."""
    ports = len(claim.spec.ports)
    return max(ports, 1) * len(json.dumps(_text(claim.spec.match))) + _BYTES_OF_A_CLAIM + _BYTES_OF_A_PORT * ports


@lru_cache(maxsize=1024)
def _text(match: Match | None) -> str:
    """Every message of a sidecar asks for those of all its claims."""
    return canonical_json(match)


class DecidedClaims:
    """What Envoy has acknowledged, and may have still."""

    def __init__(self) -> None:
        self._acknowledged: Decisions = frozenset()

    def aim(self, goal: Decisions) -> None:
        """Envoy is asked for the routes of *goal* alone: it may remove the others any moment."""
        self._acknowledged &= goal

    def acknowledge(self, goal: Decisions) -> None:
        """Envoy has all routes of *goal*."""
        self._acknowledged = goal

    def void(self) -> None:
        """Another Envoy is there, which has nothing yet."""
        self._acknowledged = frozenset()

    def on(self, held: Mapping[str, LiveClaim]) -> dict[str, DecidedClaim]:
        """Those of the claims that hold, by alias, in their order."""
        found = {}
        for alias, claim in held.items():
            mine = decisions(alias, claim, (pod_port(port) for port in claim.spec.ports)) & self._acknowledged
            if mine:
                ports = tuple(sorted(each.port for each in mine))
                found[alias] = DecidedClaim(ports, _text(claim.spec.match), claim.spec.mode.takes_bytes)
        return found


class SentClaims:
    """Since which Redirect the agent has been told each claim as it is now. What comes with it later does not count."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[DecidedClaim, int]] = {}

    def sent(self, number: int, claims: Mapping[str, DecidedClaim]) -> None:
        """The Redirect of that *number*, or one that is equal to it, has *claims*, by alias."""
        before = self._since
        self._since = {
            alias: before[alias] if alias in before and before[alias][0] == claim else (claim, number)
            for alias, claim in claims.items()
        }

    def is_applied(self, alias: str, applied: int) -> bool:
        """Whether an agent that has *applied* the Redirects up to that number has the claim."""
        return alias in self._since and self._since[alias][1] <= applied
