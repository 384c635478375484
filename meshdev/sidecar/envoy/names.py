"""How Envoy's resources are called. Statistics are found by these names, so they hold no dot and no colon."""

from typing import Final

from meshdev.wire.agent import PodPort

#: What statistics are found by.
LISTENER: Final = "listener"
FLOW: Final = "flow"
#: The cluster in which there is nobody.
NOBODY: Final = "nobody"
#: Virtual host of every route: requests of an intercept are counted below it.
HOST: Final = "all"
#: Metadata of a route: the end it leads to, as text for the answer that Envoy gives when that cannot be reached.
METADATA: Final = "meshdev"
END: Final = "end"


def of(kind: str, port: PodPort) -> str:
    """``listener_8080``, ``listener_9090_udp``."""
    return f"{kind}_{port.number}{'_udp' if port.transport == 'udp' else ''}"


def listener(port: PodPort) -> str:
    """A listener, and the prefix of its statistics."""
    return of(LISTENER, port)


def routes(port: PodPort) -> str:
    """The routes of a port with requests."""
    return of("routes", port)


def original(port: PodPort) -> str:
    """The app itself, by requests."""
    return of("original", port)


def flow(port: PodPort) -> str:
    """Where bytes or datagrams go that are not requests: to one end or the other."""
    return of(FLOW, port)


def laptop(port: PodPort, intercept: str) -> str:
    """The local program of one intercept."""
    return f"{of('laptop', port)}_{intercept}"


def either(port: PodPort, intercept: str) -> str:
    """The local program or, where it refuses, the original."""
    return f"{of('either', port)}_{intercept}"


def counted(intercept: str, *, fallen: bool = False) -> str:
    """Under what requests of an intercept are counted; *fallen* to the original since no program listens."""
    return f"{intercept}_fallen" if fallen else intercept
