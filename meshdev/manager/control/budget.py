"""The memory that sidecars can make control keep, in bytes, bounded for each workload and in all.

A session vouched for whoever gets as far as this, and whoever is in a pod is that pod. Limits of single messages are
not enough: a State of the largest size takes 2.3 MB once read, and a claim has up to a thousand agents. Pure.
"""

from collections import Counter
from collections.abc import Hashable
from typing import Final

from meshdev.manager.control.edges import Edges
from meshdev.wire.access import AccessRecords
from meshdev.wire.agent import AgentHello, Consents, FromAgent, Listen, State

#: Of the 512 MiB that the container has: 2,560 connections take 163 (docs/design/0023).
MAX_TOTAL: Final = 128 << 20
#: Of the keys of one workload's claims: 1,024 pods with counts of 128 intercepts each, or whatever hostile ones send.
#: Those whose sessions have left, and that still have their streams, count as one.
MAX_OF_WORKLOAD: Final = 64 << 20

#: Measured with tracemalloc under CPython 3.11, numbers and texts as long as they may be.
_PORT: Final = 240
_COUNTS: Final = 448
_RELAY: Final = 144
_NAME: Final = 192
_PROOF: Final = 192
#: One probe without its texts. A pod's hello is referred to by what its Envoy has and by what it shall have next, too.
_PROBE: Final = 320
_HELLOS: Final = 3


class Refused(Exception):  # noqa: N818 -- an answer, not a fault
    """There is no room for this sidecar."""


class Budget:
    """What is kept, by key and by what it is kept for."""

    def __init__(self) -> None:
        self._sizes: dict[str, dict[Hashable, int]] = {}
        self._sums: Counter[str] = Counter()
        self._total = 0

    def charge(self, key: str, item: Hashable, size: int, edges: Edges) -> None:
        """Count *size* bytes for that item of a key, in place of what it had. Raises Refused; nothing changes then."""
        more = size - self._sizes.get(key, {}).get(item, 0)
        if more > 0 and not self._fits(key, more, edges):
            raise Refused("the manager keeps no more for sidecars")
        self._sizes.setdefault(key, {})[item] = size
        self._sums[key] += more
        self._total += more

    def release(self, key: str, item: Hashable) -> None:
        """It is kept no more."""
        sizes = self._sizes.get(key, {})
        size = sizes.pop(item, 0)
        self._sums[key] -= size
        self._total -= size
        if not sizes:
            self._sizes.pop(key, None)
            del self._sums[key]

    def _fits(self, key: str, more: int, edges: Edges) -> bool:
        if self._total + more > MAX_TOTAL:
            return False
        together = edges.beside(key) or self._sums.keys() - edges.named()
        return sum(self._sums.get(one, 0) for one in together) + more <= MAX_OF_WORKLOAD


def item_of(uid: str, message: FromAgent) -> Hashable:
    """What this is counted as: proofs are kept by key, and longer than its pod; all else is that pod's."""
    return Consents if isinstance(message, Consents) else (uid, type(message))


def size_of(message: FromAgent) -> int:
    """Bytes that this takes once it is kept."""
    match message:
        case AgentHello():
            return _HELLOS * sum(_PROBE + _text(each.path) + _text(each.agent) for each in message.probes)
        case Consents(proofs):
            return _PROOF * len(proofs)
        case Listen(ports):
            return _PORT * len(ports)
        case State():
            entries = len(message.redirected) + len(message.held_back) + len(message.older)
            counts = len(message.intercepts) + len(message.flows)
            counts += len(message.passthrough.raw) + len(message.passthrough.pod_address)
            return _PORT * entries + _COUNTS * counts + _RELAY * len(message.return_paths)
        case AccessRecords():
            return 0  # they are passed on


def size_of_names(number: int) -> int:
    """The same for so many names of resources."""
    return _NAME * number


def _text(text: str) -> int:
    return len(text) * (1 if text.isascii() else 4)
