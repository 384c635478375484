"""How Envoy's resources are called. Statistics are found by these names, so they hold no dot and no colon."""

from typing import Final

from meshdev.wire.agent import PodPort

#: What statistics are found by.
LISTENER: Final = "listener"
FLOW: Final = "flow"
FALLBACK: Final = "fallback"
#: And records.
ORIGINAL: Final = "original"
LAPTOP: Final = "laptop"
#: The cluster in which there is nobody.
NOBODY: Final = "nobody"
#: Virtual host of every route: requests of an intercept are counted below it.
HOST: Final = "all"
#: Metadata of a route: the end it leads to, as text for the answer that Envoy gives when that cannot be reached.
METADATA: Final = "meshdev"
END: Final = "end"
#: And the id of the intercept whose requests it matches.
INTERCEPT: Final = "intercept"
#: Metadata of a traced request: the id of the span that its client sent.
PARENT: Final = "parent"
#: The cluster of the bootstrap in which control is.
ADS: Final = "ads"


def of(kind: str, port: PodPort) -> str:
    """``listener_8080``, ``listener_9090_udp``."""
    return f"{kind}_{port.number}{'_udp' if port.transport == 'udp' else ''}"


def listener(port: PodPort) -> str:
    """A listener, and the prefix of its statistics."""
    return of(LISTENER, port)


def socket(folder: str, port: PodPort) -> str:
    """The path of the unix socket where Envoy listens for a TCP port of a pod, as messages carry it."""
    return f"{folder}/{port.number}"


def routes(port: PodPort) -> str:
    """The routes of a port with requests."""
    return of("routes", port)


def original(port: PodPort) -> str:
    """The app itself, by requests."""
    return of(ORIGINAL, port)


def flow(port: PodPort) -> str:
    """Where bytes or datagrams go that are not requests: to one end or the other."""
    return of(FLOW, port)


def laptop(port: PodPort, intercept: str) -> str:
    """The local program of one intercept."""
    return f"{of(LAPTOP, port)}_{intercept}"


def either(port: PodPort, intercept: str) -> str:
    """The local program or, where it refuses, the original."""
    return f"{of('either', port)}_{intercept}"


def fallback(port: PodPort, intercept: str) -> str:
    """The original, for requests that one intercept gives back: what it gets is what fell back."""
    return f"{of(FALLBACK, port)}_{intercept}"


def counted(intercept: str, *, fallen: bool = False) -> str:
    """Under what requests of an intercept are counted; *fallen* to the original since no program listens.

    Those that fell back although one listened are counted by the cluster :func:`fallback`.
    """
    return f"{intercept}_fallen" if fallen else intercept
