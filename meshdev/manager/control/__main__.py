"""Entry point of the container *control*: ``python3 -m meshdev.manager.control``.

It has no capability and no permission. Today it writes down who comes and goes, so that ``kubectl logs -c control``
answers who uses the manager.
"""

import asyncio
import json
import logging
import signal
import socket
import sys
from pathlib import Path
from typing import Final

log = logging.getLogger("meshdev.manager.control")

#: The other container's socket, in the folder both mount (its own side: meshdev.manager.tunnel.events).
TUNNEL_SOCKET: Final = Path("/run/meshdev/tunnel.sock")
RETRY_SECONDS: Final = 1.0
_MAX_EVENT: Final = 65536


async def follow(path: Path) -> None:
    """Log every event until the other container closes. Raises OSError when it is not there."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as sock:
        await loop.sock_connect(sock, str(path))
        log.info("following the tunnel container")
        while line := await loop.sock_recv(sock, _MAX_EVENT):
            event = json.loads(line)
            log.info("%s %s %s", event["event"], event["holder"], event["address"])


async def follow_always(path: Path) -> None:
    """Follow again whenever the other container came back."""
    while True:
        try:
            await follow(path)
        except OSError as error:
            log.debug("the tunnel container is not there: %s", error)
        await asyncio.sleep(RETRY_SECONDS)


async def serve() -> None:
    """Run until SIGTERM."""
    task = asyncio.ensure_future(follow_always(TUNNEL_SOCKET))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await task


def main() -> int:
    """Log to stdout until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    try:
        asyncio.run(serve())
    except asyncio.CancelledError:
        log.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
