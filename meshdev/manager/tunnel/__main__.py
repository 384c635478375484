"""Entry point of the container *tunnel*: ``python3 -m meshdev.manager.tunnel``."""

import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from meshdev.capabilities import CAP_NET_ADMIN, keep_only
from meshdev.config import TUNNEL_PORT
from meshdev.errors import MeshdevError, UsageError
from meshdev.manager.alive import BEAT_SECONDS, beat
from meshdev.manager.tunnel.control_socket import ControlSocket
from meshdev.manager.tunnel.network import KernelNetwork
from meshdev.manager.tunnel.server import TunnelServer
from meshdev.pump.loop import READABLE, Loop
from meshdev.telemetry import endpoint
from meshdev.tun.linux import ensure_node

log = logging.getLogger("meshdev.manager.tunnel")

#: Exists while carriers are taken: what the readiness probe looks at.
READY: Final = Path("/run/meshdev/ready")
#: Time for CLOSE to reach the laptops, in seconds.
DRAIN_SECONDS: Final = 0.5


def main() -> int:
    """Serve until SIGTERM; then drain."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    _soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard_limit, 8192), hard_limit))
    READY.unlink(missing_ok=True)
    loop = Loop()
    try:
        ensure_node()
        keep_only({CAP_NET_ADMIN})  # MKNOD was for the node
        network = KernelNetwork(_receivers())
        pod = network.pod()
    except MeshdevError as error:
        log.critical("%s", error.message)
        return error.exit_code
    listener = socket.create_server(("127.0.0.1", TUNNEL_PORT), backlog=128)
    control = ControlSocket(loop)
    server = TunnelServer(
        loop,
        listener,
        network,
        pod,
        name=os.environ.get("POD_NAME", socket.gethostname()),
        namespace=os.environ.get("POD_NAMESPACE", ""),
        control=control,
    )

    def drain() -> None:
        READY.unlink(missing_ok=True)
        server.drain()
        loop.call_later(DRAIN_SECONDS, loop.stop)

    def ended(_events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(reader, 64)
            drain()

    # By a descriptor: a handler alone runs when the loop wakes, and a signal just before the poll does not wake it.
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    loop.register(reader, READABLE, ended)
    READY.touch()
    _beat(loop)
    log.info("the tunnel listens on 127.0.0.1:%d; pod %s, MTU %d", TUNNEL_PORT, pod.address, pod.mtu)
    loop.run()
    server.close()
    control.close()
    loop.close()
    return 0


def _receivers() -> tuple[int, ...]:
    """The ports that control sends spans and logs to: what this container's own environment says, which only who may
    change the Deployment sets. Nothing where a variable is wrong: control's log says so."""
    try:
        where = endpoint.from_environment(os.environ)
    except UsageError:
        return ()
    return tuple(sorted({each.port for each in where.all()}))


def _beat(loop: Loop) -> None:
    beat("tunnel")
    loop.call_later(BEAT_SECONDS, lambda: _beat(loop))


if __name__ == "__main__":
    sys.exit(main())
