"""How ``run`` brings its program to the cluster: the choice, with its reason."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from meshdev.errors import IsolationError
from meshdev.isolation.reasons import Forbidden, Works


class Via(StrEnum):
    """Values of ``--via``."""

    AUTO = "auto"
    ROOTLESS = "rootless"
    HELPER = "helper"


@dataclass(frozen=True, slots=True)
class NetworkChoice:
    """*rootless*: in namespaces of its own; otherwise by this machine's own network, which the helper changes."""

    rootless: bool
    reason: str

    def __str__(self) -> str:
        return f"via {Via.ROOTLESS if self.rootless else Via.HELPER}: {self.reason}"


_WORKS: Final = "the program has a network of its own, and this machine's is not changed"


def choose(asked: Via, connected: str | None, probe: Callable[[], Works | Forbidden]) -> NetworkChoice:
    """What to do. *connected*: to which cluster this machine is connected already, if it is the one that is wanted.

    Raises IsolationError where rootless was asked for and does not work here.
    """
    if asked is Via.HELPER:
        return NetworkChoice(rootless=False, reason="as --via says")
    if asked is Via.AUTO and connected is not None:
        return NetworkChoice(rootless=False, reason=f"this machine is connected to {connected} already")
    refused = probe()
    if isinstance(refused, Works):
        return NetworkChoice(rootless=True, reason=_WORKS)
    if asked is Via.ROOTLESS:
        raise IsolationError(refused.reason, hint=refused.hint)
    return NetworkChoice(rootless=False, reason=refused.reason)
