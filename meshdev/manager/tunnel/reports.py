"""The newest report of each pod of one intercept, as bytes: for a session that lost the carrier it came by. Pure."""

from collections.abc import Iterator
from typing import Final

from meshdev.wire.manager import PodReport

#: Pods of one intercept, and bytes of their reports. One that goes well takes 250.
MAX_REPORTS: Final = 1024
MAX_BYTES: Final = 1 << 20


class Reports:
    """Bounded: where there are too many, pods that are gone make room first, then those that reported longest ago."""

    def __init__(self) -> None:
        self._by_pod: dict[str, PodReport] = {}
        self._bytes = 0

    def __iter__(self) -> Iterator[PodReport]:
        return iter(self._by_pod.values())

    def __len__(self) -> int:
        return len(self._by_pod)

    def put(self, report: PodReport) -> list[str]:
        """It replaces the one of the same pod; the pods whose reports made room for it."""
        self._remove(report.pod)
        removed = []
        while self._by_pod and (len(self._by_pod) >= MAX_REPORTS or self._bytes + len(report.body) > MAX_BYTES):
            gone = (pod for pod, one in self._by_pod.items() if one.gone)
            removed.append(next(gone, next(iter(self._by_pod))))
            self._remove(removed[-1])
        self._by_pod[report.pod] = report
        self._bytes += len(report.body)
        return removed

    def _remove(self, pod: str) -> None:
        if (old := self._by_pod.pop(pod, None)) is not None:
            self._bytes -= len(old.body)
