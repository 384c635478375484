"""Connection tracking forgets beside the tunnel's loop: a table of 100,000 connections takes seconds to read.

What a silent laptop has under way is cut within a promised time, so it does not wait for what sessions left behind:
each kind of work has a thread. Whoever comes while one look at the table is under way shares the next.
"""

import logging
from collections.abc import Callable, Collection, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address
from threading import Lock
from typing import Final, Generic, TypeVar

from meshdev.errors import FirewallError
from meshdev.netlink.messages import Flow
from meshdev.netlink.netfilter import forget_addresses, forget_flows

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class _Cut:
    """Flows that are forwarded to *address*; only those sent to one of *ports* where there are any."""

    address: bytes
    ports: frozenset[int] = frozenset()

    def takes(self, flow: Flow) -> bool:
        return flow.went_to[0] == self.address and (not self.ports or flow.sent_to[1] in self.ports)


class Tracking:
    """Thread-safe; every method returns at once."""

    def __init__(self) -> None:
        self._cuts: Final = _Together("cut", _cut)
        self._flushes: Final = _Together("flush", _flush)

    def cut(self, address: IPv4Address, ports: Collection[int] = ()) -> Future[None]:
        """Forget the flows that are forwarded to *address*, only those sent to *ports* where given; as well as is
        possible: where tracking cannot be read, flows expire by themselves."""
        return self._cuts.add(_Cut(address.packed, frozenset(ports)))

    def flush(self, address: IPv4Address) -> Future[None]:
        """Forget every tracked connection from or to *address*; done when there is none any more, or FirewallError."""
        return self._flushes.add(address)


class _Together(Generic[T]):
    """One thread that does *work* for all items that wait at once."""

    def __init__(self, name: str, work: Callable[[Collection[T]], None]) -> None:
        self._name = name
        self._work = work
        self._thread = ThreadPoolExecutor(1, name)
        self._lock = Lock()
        self._waiting: dict[T, Future[None]] = {}

    def add(self, item: T) -> Future[None]:
        """Done when the work is, with its error; the same for one that waits already."""
        with self._lock:
            if not self._waiting:
                self._thread.submit(self._run)
            return self._waiting.setdefault(item, Future())

    def _run(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        try:
            self._work(waiting.keys())
        except BaseException as error:  # whoever waits would wait forever
            log.warning("the %s of %d failed: %r", self._name, len(waiting), error)
            for future in waiting.values():
                future.set_exception(error)
            raise
        for future in waiting.values():
            future.set_result(None)


def _cut(cuts: Collection[_Cut]) -> None:
    forget_flows(lambda flow: any(cut.takes(flow) for cut in cuts), holding={cut.address for cut in cuts})


def _flush(addresses: Collection[IPv4Address]) -> None:
    try:
        forget_addresses(set(addresses))
    except OSError as error:
        raise FirewallError(f"tracked connections cannot be forgotten: {error.strerror or error}") from error
