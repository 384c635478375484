"""How ``run`` brings its program to the cluster: the choice, with its reason."""

from collections.abc import Callable, Mapping
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
    PROXY = "proxy"


@dataclass(frozen=True, slots=True)
class NetworkChoice:
    """*via* is never ``auto``.

    ``rootless``: the program is in namespaces of its own; ``proxy``: only the connection is, and the program has a
    proxy into it; ``helper``: by this machine's network, which the helper changes.
    """

    via: Via
    reason: str

    @property
    def by_proxy(self) -> bool:
        """Whether the program has a proxy into the connection's network."""
        return self.via is Via.PROXY

    def __str__(self) -> str:
        return f"via {self.via}: {self.reason}"


_REASONS: Final = {
    Via.ROOTLESS: "the program has a network of its own, and this machine's is not changed",
    Via.PROXY: "the program has this machine's network, which is not changed, and a proxy in its environment",
    Via.HELPER: "as --via says",
}


def choose(asked: Via, connected: str | None, probe: Callable[[], Works | Forbidden]) -> NetworkChoice:
    """What to do. *connected*: to which cluster this machine is connected already, if it is the one that is wanted.

    Raises IsolationError where rootless or the proxy was asked for and does not work here.
    """
    if asked is Via.HELPER:
        return NetworkChoice(asked, _REASONS[asked])
    if asked is Via.AUTO and connected is not None:
        return NetworkChoice(Via.HELPER, f"this machine is connected to {connected} already")
    found = probe()
    if isinstance(found, Works):
        via = Via.ROOTLESS if asked is Via.AUTO else asked
        return NetworkChoice(via, _REASONS[via])
    if asked is not Via.AUTO:
        raise IsolationError(found.reason, hint=found.hint)
    return NetworkChoice(Via.HELPER, found.reason)


def proxied(environment: Mapping[str, str], proxy: str) -> dict[str, str]:
    """*environment* with the variables by which programs find a proxy; *proxy* is its host and port.

    curl, wget, Python's requests and others read the lower-case ones, Go's net/http either. This machine's loopback is
    left out.
    """
    found = dict(environment)
    for name in ("http_proxy", "https_proxy"):
        found[name] = found[name.upper()] = f"http://{proxy}"
    found["all_proxy"] = found["ALL_PROXY"] = f"socks5h://{proxy}"
    found["no_proxy"] = found["NO_PROXY"] = "localhost,127.0.0.1,::1"
    return found
