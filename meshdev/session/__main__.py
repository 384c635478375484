"""Entry point of the session, started by ``meshdev connect``: ``python -m meshdev.session --helper FD …``."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from datetime import datetime
from typing import Any, NoReturn

from meshdev.errors import MeshdevError
from meshdev.session.progress import Progress, adopt
from meshdev.session.supervisor import Supervisor
from meshdev.state import Paths
from meshdev.text import visible


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
        paths.ended.write_text(f"{datetime.now():%H:%M:%S}: {visible(supervisor.broken.message)}\n")  # noqa: DTZ005
    return code


class OneLineFormatter(logging.Formatter):
    """A line a record, whatever an API server, a manager or a proxy wrote into it; a traceback has lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's own name
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802 -- logging's own signature
        return "\n".join(f"  {visible(line)}" for line in super().formatException(ei).split("\n"))


def main() -> NoReturn:
    """Read the descriptors that ``connect`` passed on and run."""
    parser = argparse.ArgumentParser(prog="meshdev-session", description=__doc__)
    for name in ("helper", "progress", "lock"):
        # The lock needs no more than to stay open: it belongs to the open file.
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    with asyncio.Runner() as runner:
        code = runner.run(session(arguments))
        # Everything is undone. A thread may still be inside getaddrinfo, whose question went to the forwarder that is
        # gone now: Python would wait for it, 5 s and more, and whoever disconnects would wait for us.
        logging.shutdown()
        os._exit(code)


if __name__ == "__main__":
    main()
