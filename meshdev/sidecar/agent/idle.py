"""A sidecar that nobody needs and that cannot leave: it waits for the next intercept, without Envoy and rules."""

import asyncio
import logging

from meshdev.sidecar.agent.control import Control
from meshdev.sidecar.agent.settings import Settings
from meshdev.wire.agent import FromControl, Want

log = logging.getLogger(__name__)


async def wanted_again(settings: Settings, ended: asyncio.Event) -> None:
    """Return when the manager wants a port of this pod, or *ended* is set."""
    wanted = asyncio.Event()

    def on_message(message: FromControl) -> None:
        if isinstance(message, Want) and message.ports:
            wanted.set()

    log.info("waiting for the next intercept")
    control = Control(settings, on_message=on_message, on_lost=lambda: None, states=list)
    waiting = [asyncio.ensure_future(each) for each in (control.run(), wanted.wait(), ended.wait())]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
