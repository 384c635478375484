"""Entry point of the session, started by ``meshdev connect``: ``python -m meshdev.session --helper FD …``."""

import argparse
import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from meshdev.errors import LaptopError, MeshdevError
from meshdev.session.progress import Progress, adopt
from meshdev.session.supervisor import Supervisor
from meshdev.ssh.jump import Jump
from meshdev.state import Paths
from meshdev.text import visible

log = logging.getLogger(__name__)


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
    jump = None if arguments.ssh is None else Jump.adopt(arguments.ssh, options.ssh or "")
    supervisor = Supervisor(options, progress, helper, jump)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.stop)
    paths = Paths(arguments.folder)
    _remember(paths.ended, None)
    try:
        code = await supervisor.run(paths.socket)
    except LaptopError as error:  # nothing was begun
        await progress.failed(error)
        return error.exit_code
    if supervisor.broken is not None:
        _remember(paths.ended, supervisor.broken)
    return code


def _remember(path: Path, error: MeshdevError | None) -> None:
    """Keep why the connection has ended, for `status`; whoever is disconnected shall not have to read a log.

    Where that cannot be written (a full disk) the log has it, and the session ends as it would have.
    """
    try:
        path.unlink(missing_ok=True)
        if error is not None:
            path.write_text(f"{datetime.now():%H:%M:%S}: {visible(error.message)}\n")  # noqa: DTZ005 -- local time
    except OSError as failure:
        reason = f"; it was: {error.message}" if error is not None else ""
        log.warning("why a connection ends cannot be kept in %s: %s%s", path, failure.strerror, reason)
        with contextlib.suppress(OSError):  # half of it, or a former reason, would be wrong
            path.unlink()


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
    parser.add_argument("--ssh", type=int)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # From C code, at once: where the event loop hangs nothing else still answers.
    faulthandler.register(signal.SIGUSR1)
    with asyncio.Runner() as runner:
        code = runner.run(session(arguments))
        # Everything is undone. A thread may still be inside getaddrinfo, whose question went to the forwarder that is
        # gone now: Python would wait for it, 5 s and more, and whoever disconnects would wait for us.
        logging.shutdown()
        os._exit(code)


if __name__ == "__main__":
    main()
