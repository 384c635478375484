"""Entry point of the container *control*: ``python3 -m meshdev.manager.control``. It has no capability.

``kubectl logs -c control`` answers who uses the manager, what is intercepted, and which sidecars are there.
"""

import asyncio
import logging
import os
import resource
import signal
import sys
from datetime import timedelta
from typing import Final

from meshdev.config import CONTROL_PORT, METRICS_PORT
from meshdev.errors import MeshdevError
from meshdev.manager.alive import BEAT_SECONDS, beat
from meshdev.manager.control import exports
from meshdev.manager.control.container import ControlContainer, ControlSettings

log = logging.getLogger("meshdev.manager.control")

#: Seconds for which certificates of workloads are good: for tests. An hour without it.
LIFETIME_VARIABLE: Final = "MESHDEV_CERTIFICATE_SECONDS"


def _beat(loop: asyncio.AbstractEventLoop) -> None:
    beat("control")
    loop.call_later(BEAT_SECONDS, _beat, loop)


async def _until_signalled() -> None:
    loop = asyncio.get_running_loop()
    pod = os.environ.get("POD_IP")  # not there in a Deployment of an earlier version
    where = exports.endpoints(os.environ)
    settings = ControlSettings(
        os.environ["POD_UID"],
        f"0.0.0.0:{CONTROL_PORT}",
        metrics=(pod, METRICS_PORT) if pod else None,
        certificate_lifetime=_lifetime(),
        trace_all=where.traces is not None,
        exports=where,
    )
    task = asyncio.ensure_future(ControlContainer(settings).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    _beat(loop)
    await task


def _lifetime() -> timedelta:
    """That of the certificates of workloads; what is set for tests stays within a second and a day."""
    text = os.environ.get(LIFETIME_VARIABLE, "")
    seconds = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 3600
    return timedelta(seconds=min(max(seconds, 1), 86400))


def main() -> int:
    """Log to stdout until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    _soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard_limit, 16384), hard_limit))
    try:
        asyncio.run(_until_signalled())
    except asyncio.CancelledError:
        log.info("stopped")
    except MeshdevError as error:
        log.critical("%s", error.message)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
