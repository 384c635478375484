"""The agent's process: attested all the time, redirecting while somebody intercepts, waiting or ending otherwise."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, Final

from meshdev.errors import FirewallError, MeshdevError
from meshdev.sidecar.agent.announcing import AnnouncingHandler, logging_to, repeat
from meshdev.sidecar.agent.attesting import AttestationListener
from meshdev.sidecar.agent.child import raise_limits
from meshdev.sidecar.agent.client_addresses import ClientAddresses
from meshdev.sidecar.agent.control import wanted_again
from meshdev.sidecar.agent.envoy import BINARY
from meshdev.sidecar.agent.firewall import PodFirewall, wait_for_turn
from meshdev.sidecar.agent.life import Agent
from meshdev.sidecar.agent.own_key import PendingKey
from meshdev.sidecar.agent.passthrough import Passthrough
from meshdev.sidecar.agent.settings import Settings, settings
from meshdev.sidecar.agent.sockets import Sockets
from meshdev.sidecar.agent.trust import AgentIdentity, new_identity
from meshdev.wire.attestation import PORT_VARIABLE, assigned_port

log = logging.getLogger("meshdev.sidecar.agent")

#: How often connections are counted that go on after the redirect has ended.
LINGER_SECONDS: Final = 1.0
#: More than a hung worker gets before another one takes its place (meshdev.sidecar.agent.worker_channel).
RECOUNT_SECONDS: Final = 15.0


async def serve(config: Settings, envoy: str, identity: AgentIdentity, listener: AttestationListener) -> None:
    """Run until nobody needs the sidecar any more; one of a template, which would start again, until it is ended.

    Sessions attest it all the time, also while it waits for the table or the next intercept.
    """
    async with listener.serving():
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        await _serve_once(config, envoy, identity, ended)
        while config.stays and not ended.is_set():
            await wanted_again(config, identity, ended)
            if not ended.is_set():
                await _serve_once(config, envoy, identity, ended)


async def _serve_once(config: Settings, envoy: str, identity: AgentIdentity, ended: asyncio.Event) -> None:
    """Until nobody intercepts anything, and no connection is left that was redirected: the pod is as before then."""
    sockets, firewall = Sockets(config.address), PodFirewall(config.address)
    clients = _client_addresses(firewall)
    passthrough = Passthrough(config.address, firewall.hold, clients=clients)
    working = asyncio.ensure_future(passthrough.run())
    try:
        needed = True
        while needed:
            if await _has_turn(firewall, sockets, passthrough, ended):
                await _run_agent(Agent(config, identity, firewall, sockets, passthrough, envoy), ended)
                firewall.give_turn()
            needed = await _connections_go_on(config, identity, passthrough, ended)
    finally:
        working.cancel()
        await asyncio.wait([working])
        passthrough.close()
        if clients is not None:
            clients.close()
        firewall.close()
        sockets.close()


def _client_addresses(firewall: PodFirewall) -> ClientAddresses | None:
    """None where this kernel cannot: the app sees the pod's address then."""
    clients = None
    try:
        clients = ClientAddresses(firewall.number, firewall.living)
        firewall.keep_marked(clients.mark)
    except (OSError, FirewallError) as error:
        log.warning("the app will not see its clients' addresses: %s", error)
        if clients is not None:
            clients.close()
        return None
    return clients


async def _run_agent(agent: Agent, ended: asyncio.Event) -> None:
    terminating = asyncio.ensure_future(_terminate(agent, ended))
    try:
        await agent.run()
    finally:
        terminating.cancel()


async def _has_turn(firewall: PodFirewall, sockets: Sockets, passthrough: Passthrough, ended: asyncio.Event) -> bool:
    """Whether it may redirect now; False where *ended* came first.

    Raises FirewallError where another sidecar does not leave, unless connections go on: those would be reset.
    """
    waiting = asyncio.ensure_future(wait_for_turn(firewall, sockets.listening))
    ending = asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait((waiting, ending), return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            waiting.result()
        return waiting.done()
    except FirewallError as error:
        if not await _open_connections(passthrough, ended):
            raise
        log.warning("%s", error.message)
        return False
    finally:
        waiting.cancel()
        ending.cancel()


async def _connections_go_on(
    config: Settings, identity: AgentIdentity, passthrough: Passthrough, ended: asyncio.Event
) -> bool:
    """Wait for the end of all connections that were redirected. True where an intercept is wanted before that."""
    if not (count := await _open_connections(passthrough, ended)):
        return False
    log.info("%d connections that were redirected go on", count)
    wanted = asyncio.ensure_future(wanted_again(config, identity, ended))
    try:
        while count:
            if ended.is_set():
                await asyncio.sleep(LINGER_SECONDS)
            else:
                await asyncio.wait([wanted], timeout=LINGER_SECONDS)
                if wanted.done() and not ended.is_set():
                    return True
            count = await _open_connections(passthrough, ended)
    finally:
        wanted.cancel()
    return False


async def _open_connections(passthrough: Passthrough, ended: asyncio.Event) -> int:
    """As they are now; of a worker that does not answer, as it last said.

    Once the pod is going to end, without those that only wait for their clients to close.
    """
    if ended.is_set():
        passthrough.drain()
    try:
        async with asyncio.timeout(RECOUNT_SECONDS):
            return (await passthrough.recount()).all_open
    except TimeoutError:
        return passthrough.open


async def _terminate(agent: Agent, ended: asyncio.Event) -> None:
    await ended.wait()
    agent.terminate()


async def _run(serving: Coroutine[Any, Any, None], handler: AnnouncingHandler) -> None:
    repeating = asyncio.ensure_future(repeat(handler))
    try:
        await serving
    finally:
        repeating.cancel()


def run(key: PendingKey) -> int:
    """Log to stdout; the exit code of the error that ended it, else 0."""
    handler = logging_to(sys.stdout)
    raise_limits()
    try:
        config, identity = settings(os.environ), new_identity(key.result())
        listener = AttestationListener(config.uid, identity, assigned_port(os.environ.get(PORT_VARIABLE, "")))
        handler.announce(listener.announcement)
        asyncio.run(_run(serve(config, os.environ.get("MESHDEV_ENVOY", BINARY), identity, listener), handler))
    except MeshdevError as error:
        log.critical("%s", error.message)
        return error.exit_code
    return 0
