"""Entry point of the container *relay*: ``python3 -m meshdev.manager.relay``. It has no capability and no token."""

import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
from typing import Final

from meshdev.config import RELAYS_PORT
from meshdev.identity.keys import KeyPair
from meshdev.manager.alive import BEAT_SECONDS, beat
from meshdev.manager.relay.control_socket import SOCKET_PATH, RelayControlSocket
from meshdev.manager.relay.server import RelayServer
from meshdev.pump.loop import READABLE, Loop

log = logging.getLogger("meshdev.manager.relay")

#: Descriptors, two a connection. One takes 50 KB beside its pieces, and 120 KB once it has carried a large body.
_MOST_DESCRIPTORS: Final = 8192
#: Envoys of many pods may connect at once.
_BACKLOG: Final = 1024


def main() -> int:
    """Serve until SIGTERM; open connections are reset then. Logs to stdout."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    _soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = min(hard_limit, _MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard_limit))
    loop = Loop()
    reader = _signalled()
    loop.register(reader, READABLE, lambda _events: _ended(reader, loop))
    try:
        listener = socket.create_server(("0.0.0.0", RELAYS_PORT), backlog=_BACKLOG)  # noqa: S104 -- the pod's address: Envoys come from other pods
        listener.setblocking(False)
        server = RelayServer(loop, listener, KeyPair.generate(), descriptors=descriptors)
        control = RelayControlSocket(loop, server)
        _beat(loop)
    except OSError as error:
        log.critical("the relay cannot start: %s", error)
        return 1
    log.info("workloads are served at port %d, at most %d connections", RELAYS_PORT, server.most)
    gc.freeze()  # modules and classes stay, and need not be looked at again
    loop.run()
    control.close()
    server.close()
    listener.close()
    loop.close()
    log.info("stopped")
    return 0


def _signalled() -> int:
    """A descriptor that becomes readable with SIGTERM or SIGINT: a handler alone runs when the loop wakes, and a signal
    just before the poll does not wake it."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def _ended(reader: int, loop: Loop) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(reader, 64)
        loop.stop()


def _beat(loop: Loop) -> None:
    beat("relay", SOCKET_PATH.parent)
    loop.call_later(BEAT_SECONDS, lambda: _beat(loop))


if __name__ == "__main__":
    sys.exit(main())
