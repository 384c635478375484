"""Entry point of the container *control*: ``python3 -m meshdev.manager.control``. It has no capability and no token.

``kubectl logs -c control`` answers who uses the manager, what is intercepted, and which sidecars are there.
"""

import asyncio
import logging
import resource
import signal
import sys
from pathlib import Path

from meshdev.config import CONTROL_PORT
from meshdev.manager.alive import BEAT_SECONDS, beat
from meshdev.manager.control.core import Core
from meshdev.manager.control.service import serve
from meshdev.manager.control.tunnel_client import TUNNEL_SOCKET, TunnelClient
from meshdev.wire.manager import ToTunnel

log = logging.getLogger("meshdev.manager.control")


async def run(path: Path, address: str) -> None:
    """Serve until cancelled."""
    loop = asyncio.get_running_loop()

    def send(key: str, message: ToTunnel) -> None:
        client.send_latest(key, message)

    core = Core(send, loop.call_later, loop.time)
    client = TunnelClient(path, core.tunnel_connected, core.on_tunnel_message, core.snapshot)
    server, port = await serve(core, address)
    log.info("sidecars are served at port %d", port)
    _beat(loop, path.parent)
    try:
        await client.run()
    finally:
        await server.stop(0)


def _beat(loop: asyncio.AbstractEventLoop, folder: Path) -> None:
    beat("control", folder)
    loop.call_later(BEAT_SECONDS, _beat, loop, folder)


async def _until_signalled() -> None:
    task = asyncio.ensure_future(run(TUNNEL_SOCKET, f"0.0.0.0:{CONTROL_PORT}"))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await task


def main() -> int:
    """Log to stdout until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    _soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard_limit, 16384), hard_limit))
    try:
        asyncio.run(_until_signalled())
    except asyncio.CancelledError:
        log.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
