"""Entry point of the sidecar: ``python3 -m meshdev.sidecar.agent``."""

import asyncio
import logging
import os
import signal
import sys

from meshdev.errors import MeshdevError
from meshdev.sidecar.agent.announcing import AnnouncingHandler, TokenListener, logging_to, repeat
from meshdev.sidecar.agent.child import raise_limits
from meshdev.sidecar.agent.control import wanted_again
from meshdev.sidecar.agent.envoy import BINARY
from meshdev.sidecar.agent.firewall import PodFirewall, take
from meshdev.sidecar.agent.life import Agent
from meshdev.sidecar.agent.settings import Settings, settings
from meshdev.sidecar.agent.sockets import Sockets
from meshdev.wire.announcement import PORT_VARIABLE, assigned_port

log = logging.getLogger("meshdev.sidecar.agent")


async def serve(config: Settings, envoy: str, listener: TokenListener, handler: AnnouncingHandler) -> None:
    """Run until nobody needs the sidecar any more; one of a template, which would start again, until it is ended.

    Sessions get the token all the time, also while the agent waits for the table or the next intercept.
    """
    repeating = asyncio.ensure_future(repeat(handler))
    try:
        async with listener.serving():
            await _serve(config, envoy)
    finally:
        repeating.cancel()


async def _serve(config: Settings, envoy: str) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await _serve_once(config, envoy, ended)
    while config.stays and not ended.is_set():
        await wanted_again(config, ended)
        if not ended.is_set():
            await _serve_once(config, envoy, ended)


async def _serve_once(config: Settings, envoy: str, ended: asyncio.Event) -> None:
    sockets = Sockets(config.address)
    try:
        firewall = await _taken(sockets, ended)
        if firewall is not None:
            try:
                await _run_agent(Agent(config, firewall, sockets, envoy), ended)
            finally:
                firewall.close()
    finally:
        sockets.close()


async def _run_agent(agent: Agent, ended: asyncio.Event) -> None:
    terminating = asyncio.ensure_future(_terminate(agent, ended))
    try:
        await agent.run()
    finally:
        terminating.cancel()


async def _taken(sockets: Sockets, ended: asyncio.Event) -> PodFirewall | None:
    """The table; None where *ended* came first."""
    taking, ending = asyncio.ensure_future(take(sockets.listening)), asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait((taking, ending), return_when=asyncio.FIRST_COMPLETED)
        return taking.result() if taking.done() else None
    finally:
        taking.cancel()
        ending.cancel()


async def _terminate(agent: Agent, ended: asyncio.Event) -> None:
    await ended.wait()
    agent.terminate()


def main() -> int:
    """Log to stdout; the exit code of the error that ended it, else 0."""
    handler = logging_to(sys.stdout)
    raise_limits()
    try:
        listener = TokenListener(assigned_port(os.environ.get(PORT_VARIABLE, "")))
        config = settings(os.environ, listener.token)
        handler.announce(listener.announcement)
        asyncio.run(serve(config, os.environ.get("MESHDEV_ENVOY", BINARY), listener, handler))
    except MeshdevError as error:
        log.critical("%s", error.message)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
