"""What a session learns of the return paths from one pod to its laptop. Pure."""

from collections.abc import Mapping
from typing import Final

from meshdev.sidecar.envoy.claims import LiveClaim
from meshdev.wire.intercepts import ReturnPath

_WORST_FIRST: Final[tuple[ReturnPath, ...]] = ("silent", "untried", "refused", "open")


def worst_return_path(claim: LiveClaim, found: Mapping[int, ReturnPath]) -> ReturnPath:
    """The worst of those of a claim's relays by TCP; *found* by relay."""
    results: set[ReturnPath] = {found.get(each.relay, "untried") for each in claim.relays if each.protocol == "tcp"}
    return next((result for result in _WORST_FIRST if result in results), "untried")
