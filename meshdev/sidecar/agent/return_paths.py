"""Whether this pod reaches the laptops: each relay is tried by a connection that is closed at once.

That the pod may use a relay, that the laptop leads it on, and the word to try it are told apart from each other, so a
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
#: The first SYN may come to a laptop that leads the relay nowhere yet, which drops it; the kernel would send the next
#: one a second later. So a new connection is begun after this time, and after twice as long each time.
FIRST_SECONDS: Final = 0.1
#: What got no answer is tried again after this time, for as long as it is asked for.
AGAIN_SECONDS: Final = 1.0
#: A refusal is believed after so many, so long after each other. All who have to agree do so in milliseconds.
REFUSALS: Final = 15
REFUSED_SECONDS: Final = 0.1
#: Connections at once: each is a descriptor of this process, which has others to keep.
MAX_CONNECTIONS: Final = 512


class ReturnPaths:
    """*news* is called whenever :attr:`found` has changed. :meth:`run` does the work."""

    def __init__(self, news: Callable[[], None]) -> None:
        self._news = news
        self._asked: frozenset[tuple[IPv4Address, int]] = frozenset()
        self._found: dict[tuple[IPv4Address, int], ProbeResult] = {}
        self._changed = asyncio.Event()
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)

    @property
    def found(self) -> tuple[tuple[int, ProbeResult], ...]:
        """By relay, what came of those that are asked for and were tried."""
        return tuple(sorted((relay, found) for (_, relay), found in self._found.items()))

    def ask(self, message: ProbeRelays) -> None:
        """From now on these are asked for and no others; what is known of them stays."""
        self._set(frozenset((message.address, relay) for relay in message.relays))

    def forget(self) -> None:
        """The manager is lost: its ways mean nothing to the next one."""
        self._set(frozenset())

    async def run(self) -> None:
        """Until it is cancelled."""
        trying: dict[tuple[IPv4Address, int], asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._changed.wait()
                self._changed.clear()
                for way in trying.keys() - self._asked:
                    trying.pop(way).cancel()
                for way in self._asked - trying.keys():
                    trying[way] = tasks.create_task(self._try(*way))

    def _set(self, asked: frozenset[tuple[IPv4Address, int]]) -> None:
        self._asked = asked
        self._found = {way: found for way, found in self._found.items() if way in asked}
        self._changed.set()

    async def _try(self, address: IPv4Address, relay: int) -> None:
        """Until somebody answers."""
        refusals = 0
        while True:
            async with self._room:
                found = await _knock_again(address, relay)
            refusals += found == "refused"
            if found == "refused" and refusals < REFUSALS:
                await asyncio.sleep(REFUSED_SECONDS)
                continue
            self._tell((address, relay), found)
            if found != "silent":
                return
            await asyncio.sleep(AGAIN_SECONDS)

    def _tell(self, way: tuple[IPv4Address, int], found: ProbeResult) -> None:
        if way in self._asked and self._found.get(way) != found:
            log.info("the way by %s:%d is %s", *way, found)
            self._found[way] = found
            self._news()


async def _knock_again(address: IPv4Address, relay: int) -> ProbeResult:
    left, patience = CONNECT_SECONDS, FIRST_SECONDS
    while (found := await _knock(address, relay, patience)) == "silent" and left > patience:
        left -= patience
        patience = min(2 * patience, left)
    return found


async def _knock(address: IPv4Address, relay: int, patience: float) -> ProbeResult:
    try:
        async with asyncio.timeout(patience):
            _, writer = await asyncio.open_connection(str(address), relay)
    except ConnectionError:
        return "refused"
    except OSError:  # TimeoutError is one, and so is what a router says that has no way
        return "silent"
    writer.close()
    return "open"
