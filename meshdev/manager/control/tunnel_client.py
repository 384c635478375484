"""The container *tunnel* as the container *control* sees it: its socket, connected to again and again.

Only the newest message of each key waits, so that a tunnel container that is slow or away costs nothing, and is sent
what is true when it is back.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.manager.outbox import Outbox
from meshdev.wire.intercepts import AgentKeys
from meshdev.wire.manager import (
    MAX_DATAGRAM,
    Claimed,
    ManagerAddress,
    Seen,
    Synced,
    ToTunnel,
    Withdrawn,
    decode_to_control,
    encode,
)

log = logging.getLogger(__name__)

#: The other container's socket, in the folder both mount (its own side: meshdev.manager.tunnel.control_socket).
TUNNEL_SOCKET: Final = Path("/run/meshdev/tunnel.sock")
RETRY_SECONDS: Final = 0.2


class TunnelClient:
    """One connection at a time. *on_connected* is called first, then *snapshot* is sent; *on_message* gets all."""

    def __init__(
        self,
        path: Path,
        on_connected: Callable[[], None],
        on_message: Callable[[ManagerAddress | Claimed | AgentKeys | Withdrawn | Synced], None],
        snapshot: Callable[[], Iterable[tuple[str, ToTunnel]]],
    ) -> None:
        self._path = path
        self._on_connected = on_connected
        self._on_message = on_message
        self._snapshot = snapshot
        self._outbox: Outbox[ToTunnel] = Outbox()

    def send_latest(self, key: str, message: ToTunnel) -> None:
        """It replaces what waits under the same *key*."""
        self._outbox.put(key, message)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._talk()
            except (OSError, ProtocolError) as error:
                log.debug("the tunnel container is not there: %s", error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _talk(self) -> None:
        """One connection, until the other container closes it."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as sock:
            await loop.sock_connect(sock, str(self._path))
            log.info("following the tunnel container")
            self._on_connected()
            self._outbox = Outbox(self._snapshot())
            sending = asyncio.create_task(self._send(sock))
            try:
                while datagram := await loop.sock_recv(sock, MAX_DATAGRAM):
                    message = decode_to_control(datagram)
                    if isinstance(message, Seen):
                        log.info("%s %s %s", message.event, message.holder, message.address)
                    else:
                        self._on_message(message)
            finally:
                sending.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await sending

    async def _send(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await loop.sock_sendall(sock, encode(await self._outbox.get()))
