"""Whether this pod reaches the laptops: each relay is probed by a connection that is closed at once.

As Envoy makes them: of TLS, with the certificate that the manager issued. The relay completes the handshake once the
laptop's program has answered. Three messages race: that the pod may use a relay, that the laptop forwards it, and that
it is to be probed. So a refusal counts only when it lasts.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from meshdev.config import RELAYS_PORT
from meshdev.published import Published
from meshdev.sidecar.agent.issued import client_context
from meshdev.sidecar.agent.secret_discovery import Secrets
from meshdev.sidecar.envoy.tls import RELAY_NAME
from meshdev.wire.agent import ProbeRelays
from meshdev.wire.intercepts import ProbeResult
from meshdev.wire.relay import server_name

log = logging.getLogger(__name__)

#: Without a complete handshake for so long it is silent.
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
    """*changed* is called whenever :attr:`found` has changed. Nothing is probed before a certificate is *issued*.

    :meth:`run` does the work.
    """

    def __init__(self, issued: Published[Secrets | None], changed: Callable[[], None]) -> None:
        self._issued = issued
        self._context: tuple[Secrets, ssl.SSLContext] | None = None
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
            context = await self._client_context()
            async with self._room:
                found = await _probe_with_retry(context, address, relay)
            refusals += found == "refused"
            if found == "refused" and refusals < REFUSALS:
                await asyncio.sleep(REFUSED_SECONDS)
                continue
            self._record((address, relay), found)
            if found != "silent":
                return
            await asyncio.sleep(AGAIN_SECONDS)

    async def _client_context(self) -> ssl.SSLContext:
        """Of the newest certificate."""
        secrets = await self._issued.changed(None)
        assert secrets is not None  # noqa: S101 -- it is not what it was said to differ from
        if self._context is None or self._context[0] is not secrets:
            self._context = secrets, client_context(secrets)
        return self._context[1]

    def _record(self, path: tuple[IPv4Address, int], found: ProbeResult) -> None:
        if path in self._wanted and self._found.get(path) != found:
            log.info("the return path by %s:%d is %s", *path, found)
            self._found[path] = found
            self._changed()


async def _probe_with_retry(context: ssl.SSLContext, address: IPv4Address, relay: int) -> ProbeResult:
    left, patience = CONNECT_SECONDS, FIRST_SECONDS
    while (found := await _probe_once(context, address, relay, patience)) == "silent" and left > patience:
        left -= patience
        patience = min(2 * patience, left)
    return found


async def _probe_once(context: ssl.SSLContext, address: IPv4Address, relay: int, patience: float) -> ProbeResult:
    try:
        async with asyncio.timeout(patience):
            _, writer = await asyncio.open_connection(
                str(address), RELAYS_PORT, ssl=context, server_hostname=server_name(relay)
            )
    except (ConnectionError, ssl.SSLError):
        return "refused"
    except OSError:  # TimeoutError is one, and so is what a router reports that has no route
        return "silent"
    shown = writer.get_extra_info("peercert") or {}
    writer.transport.abort()  # by itself it would wait for the other end to close
    return "open" if ("DNS", RELAY_NAME) in shown.get("subjectAltName", ()) else "refused"
