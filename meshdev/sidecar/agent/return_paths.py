"""Whether this pod reaches the laptops: each relay is probed by a connection that is closed at once.

Three messages race: that the pod may use a relay, that the laptop forwards it, and that it is to be probed. So a
refusal counts only when it lasts.
"""

import asyncio
import logging
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from meshdev.wire.agent import ProbeRelays
from meshdev.wire.intercepts import ProbeResult

log = logging.getLogger(__name__)

#: Without an answer for so long it is silent.
CONNECT_SECONDS: Final = 2.0
#: The first SYN may reach a laptop that does not forward the relay yet, which drops it; the kernel would send the next
#: one a second later. So a new connection is begun after this time, and after twice as long each time.
FIRST_SECONDS: Final = 0.1
#: What got no answer is probed again after this time, for as long as it is asked for.
AGAIN_SECONDS: Final = 1.0
#: A refusal is believed after so many, so long after each other. All parties that have to agree do so in milliseconds.
REFUSALS: Final = 15
REFUSED_SECONDS: Final = 0.1
#: Connections at once: each is a descriptor of this process, which has others to keep.
MAX_CONNECTIONS: Final = 512


class ReturnPaths:
    """*changed* is called whenever :attr:`found` has changed. :meth:`run` does the work."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._wanted: frozenset[tuple[IPv4Address, int]] = frozenset()
        self._found: dict[tuple[IPv4Address, int], ProbeResult] = {}
        self._news = asyncio.Event()
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)

    @property
    def found(self) -> tuple[tuple[int, ProbeResult], ...]:
        """By relay, the result for those that are to be probed and were."""
        return tuple(sorted((relay, found) for (_, relay), found in self._found.items()))

    def probe(self, message: ProbeRelays | None) -> None:
        """From now on these are probed and no others; what is known of them stays.

        None where the manager is lost: its relays mean nothing to the next one.
        """
        self._wanted = frozenset((message.address, relay) for relay in message.relays) if message else frozenset()
        self._found = {path: found for path, found in self._found.items() if path in self._wanted}
        self._news.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        probing: dict[tuple[IPv4Address, int], asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._news.wait()
                self._news.clear()
                for path in probing.keys() - self._wanted:
                    probing.pop(path).cancel()
                for path in self._wanted - probing.keys():
                    probing[path] = tasks.create_task(self._probe(*path))

    async def _probe(self, address: IPv4Address, relay: int) -> None:
        """Until somebody answers."""
        refusals = 0
        while True:
            async with self._room:
                found = await _probe_with_retry(address, relay)
            refusals += found == "refused"
            if found == "refused" and refusals < REFUSALS:
                await asyncio.sleep(REFUSED_SECONDS)
                continue
            self._record((address, relay), found)
            if found != "silent":
                return
            await asyncio.sleep(AGAIN_SECONDS)

    def _record(self, path: tuple[IPv4Address, int], found: ProbeResult) -> None:
        if path in self._wanted and self._found.get(path) != found:
            log.info("the return path by %s:%d is %s", *path, found)
            self._found[path] = found
            self._changed()


async def _probe_with_retry(address: IPv4Address, relay: int) -> ProbeResult:
    left, patience = CONNECT_SECONDS, FIRST_SECONDS
    while (found := await _probe_once(address, relay, patience)) == "silent" and left > patience:
        left -= patience
        patience = min(2 * patience, left)
    return found


async def _probe_once(address: IPv4Address, relay: int, patience: float) -> ProbeResult:
    try:
        async with asyncio.timeout(patience):
            _, writer = await asyncio.open_connection(str(address), relay)
    except ConnectionError:
        return "refused"
    except OSError:  # TimeoutError is one, and so is what a router reports that has no route
        return "silent"
    writer.close()
    return "open"
