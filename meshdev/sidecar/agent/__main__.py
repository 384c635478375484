"""Entry point of the sidecar: ``python3 -m meshdev.sidecar.agent``."""

import asyncio
import logging
import os
import signal
import sys

from meshdev.errors import MeshdevError
from meshdev.sidecar.agent.envoy import BINARY, raise_limits
from meshdev.sidecar.agent.firewall import Firewall
from meshdev.sidecar.agent.life import Agent
from meshdev.sidecar.agent.settings import Settings, settings
from meshdev.sidecar.agent.sockets import Sockets

log = logging.getLogger("meshdev.sidecar.agent")


async def serve(told: Settings, envoy: str) -> None:
    """Run until nobody needs the sidecar any more."""
    firewall = Firewall()
    try:
        sockets = Sockets(told.address)
        agent = Agent(told, firewall, sockets, envoy)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, agent.terminate)
        await agent.run()
        sockets.close()
    finally:
        firewall.close()


def main() -> int:
    """Log to stdout; the exit code of the error that ended it, else 0."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    raise_limits()
    try:
        asyncio.run(serve(settings(os.environ), os.environ.get("MESHDEV_ENVOY", BINARY)))
    except MeshdevError as error:
        log.critical("%s", error.message)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
