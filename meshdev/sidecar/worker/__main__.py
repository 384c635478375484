"""Entry point of the passthrough worker: ``python3 -m meshdev.sidecar.worker FD QUEUE``, started by the agent.

FD is its end of a pair of unix sockets, QUEUE that of another one, from which it takes the sockets for its connections
to the app. It ends with the agent: the kernel removes the agent's nft table then, and new
connections meet the app. Of the agent's descriptors it may inherit the table's, and keeps it open as Envoy does
(sidecar/agent/firewall.py says what for).
"""

import gc
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path

from meshdev.errors import ProtocolError
from meshdev.pump.loop import Loop
from meshdev.sidecar.worker.channel import AgentChannel
from meshdev.sidecar.worker.worker import PassthroughWorker

log = logging.getLogger("meshdev.sidecar.worker")


def main() -> int:
    """Serve until the agent is gone, or SIGTERM; connections that are open then are reset. Logs to stderr."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    os.set_blocking(2, False)  # what an agent that stands still does not read is lost; connections go on
    logging.raiseExceptions = False
    _begin_above_inherited()
    loop = Loop()
    signal.signal(signal.SIGTERM, lambda *_: loop.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the agent decides
    ours, queue = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    worker = PassthroughWorker(loop, resource.getrlimit(resource.RLIMIT_NOFILE)[0], queue)
    channel = AgentChannel(ours, loop, worker)
    gc.freeze()  # modules and classes stay, and need not be looked at again
    try:
        loop.run()
    except ProtocolError as error:
        log.critical("%s", error.message)
        return error.exit_code
    finally:
        channel.close()
        worker.close()
        queue.close()
        loop.close()
    return 0


def _begin_above_inherited() -> None:
    """Give connections higher descriptors than that of the agent's nft table: it must be the last to be closed.

    Where we are killed, the kernel closes the highest one first. The ends of connections that come after the table's
    would not be translated, and their clients would wait for ever.
    """
    inherited = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    while os.open(os.devnull, os.O_RDONLY) < inherited:
        pass


if __name__ == "__main__":
    sys.exit(main())
