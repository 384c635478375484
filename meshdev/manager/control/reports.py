"""Reports of pods on their way to sessions, which know a pod by its name alone. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from meshdev.manager.control.edges import Edges
from meshdev.manager.control.pods import HeldClaim, Pod
from meshdev.manager.control.reporting import keyed
from meshdev.wire.intercepts import Report
from meshdev.wire.manager import PodReport, ToTunnel


class PodReports:
    """*held* are the claims by alias, *pods* all that are known by key and uid, both as they are at any time.
    *to_tunnel* takes a key and the newest message for it."""

    def __init__(
        self,
        edges: Edges,
        held: Mapping[str, HeldClaim],
        pods: Mapping[str, Mapping[str, Pod]],
        to_tunnel: Callable[[str, ToTunnel], None],
    ) -> None:
        self._edges = edges
        self._held = held
        self._pods = pods
        self._to_tunnel = to_tunnel

    def all(self) -> Iterator[tuple[str, PodReport]]:
        """Everything that was reported and still holds."""
        for pods in self._pods.values():
            for pod in pods.values():
                for alias, report in pod.reported():
                    yield keyed(alias, report)

    def send(self, pod: Pod, reports: Iterable[tuple[str, Report]]) -> None:
        """What that one reports. Where the agent's process in a pod is another one now, the former's end is noticed
        last, and is not that of the pod."""
        for alias, report in reports:
            if report.state != "gone" or not self._is_served(alias, report.pod, pod):
                self._to_tunnel(*keyed(alias, report))

    def send_absent(self, keys: AbstractSet[str]) -> None:
        """Of agents that are named and have no stream."""
        for key in (keys & self._edges.named()) - self._pods.keys():
            for alias, agent in self._edges.naming(key):
                if not self._is_served(alias, agent.pod):
                    self._to_tunnel(*keyed(alias, Report(self._held[alias].claim.spec.id, agent.pod, "gone")))

    def _is_served(self, alias: str, name: str, but: Pod | None = None) -> bool:
        """Whether an agent that the claim knows by that pod's name has reported."""
        for key in self._edges.keys_at(alias, name):
            for pod in self._pods.get(key, {}).values():
                if pod is not but and any(one == alias for one, _ in pod.reported()):
                    return True
        return False
