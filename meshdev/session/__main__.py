"""Entry point of the session, started by ``meshdev connect``: ``python -m meshdev.session --helper FD …``."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from datetime import datetime
from typing import NoReturn

from meshdev.errors import MeshdevError
from meshdev.session.progress import Progress, adopt
from meshdev.session.supervisor import Supervisor
from meshdev.state import Paths


async def session(arguments: argparse.Namespace) -> int:
    """Run one connection. The exit code."""
    progress = Progress(adopt(arguments.progress))
    helper = adopt(arguments.helper)
    try:
        options = await progress.options()
    except MeshdevError as error:
        await progress.failed(error)
        return error.exit_code
    if options.debug:
        logging.getLogger("meshdev").setLevel(logging.DEBUG)
    supervisor = Supervisor(options, progress, helper)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.stop)
    paths = Paths.locate()
    paths.ended.unlink(missing_ok=True)
    code = await supervisor.run(paths.socket)
    if supervisor.broken is not None:
        # For `status`: whoever finds himself disconnected shall not have to read a log.
        paths.ended.write_text(f"{datetime.now():%H:%M:%S}: {supervisor.broken.message}\n")  # noqa: DTZ005
    return code


def main() -> NoReturn:
    """Read the descriptors that ``connect`` passed on and run."""
    parser = argparse.ArgumentParser(prog="meshdev-session", description=__doc__)
    for name in ("helper", "progress", "lock"):
        # The lock needs no more than to stay open: it belongs to the open file.
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    with asyncio.Runner() as runner:
        code = runner.run(session(arguments))
        # Everything is undone. A thread may still be inside getaddrinfo, whose question went to the forwarder that is
        # gone now: Python would wait for it, 5 s and more, and whoever disconnects would wait for us.
        logging.shutdown()
        os._exit(code)


if __name__ == "__main__":
    main()
