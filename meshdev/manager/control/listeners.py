"""Where the Envoy of a pod listens, as its agent reports it. Pure.

All listeners of a sidecar's process belong together: those of TCP ports are sockets in its folder, and Envoy rejects
those of another folder. So nothing is known on a new stream of the agent until it has reported: it may be another
process than the former one.
"""

from collections.abc import Mapping
from itertools import islice

from meshdev.sidecar.envoy import names
from meshdev.wire.agent import MAX_PORTS, Listen, PodPort, State


class AgentListeners:
    """Of one process at a time. ``ports`` has all that were reported, by port of the pod; ``known``: they are those of
    the process that has the stream."""

    def __init__(self) -> None:
        self.ports: dict[PodPort, int] = {}
        self.known = False
        self._folder = ""
        self._listened = False

    def stream_began(self) -> None:
        """Of the same process or of another one: what it reports first tells."""
        self.known = self._listened = False

    def report(self, message: Listen | State) -> bool:
        """Whether another process reports than the one that had listeners.

        An agent that ever was to listen reports where before it reports a state; one that does not has no listeners.
        """
        if isinstance(message, Listen):
            self._listened = True
            return self._replace(self.after(message).ports, message.folder)
        self.known = True
        return not self._listened and self._replace({}, "")

    def after(self, message: Listen) -> Listen:
        """What is kept after that message: of the same process more than it may name, since Envoy has more."""
        if message.folder != self._folder:
            return message
        taken = set(message.ports.values())
        kept = {port: number for port, number in self.ports.items() if number not in taken}
        both = {**message.ports, **{port: number for port, number in kept.items() if port not in message.ports}}
        return Listen(dict(islice(both.items(), MAX_PORTS)), message.folder)

    def where(self, port: PodPort) -> int | str:
        """Envoy's address for a port that has one: a socket's path, or a port of UDP."""
        return names.socket(self._folder, port) if port.transport == "tcp" else self.ports[port]

    def _replace(self, ports: Mapping[PodPort, int], folder: str) -> bool:
        before = self._folder
        self.ports, self._folder = dict(ports), folder
        return before not in {"", folder}
