"""The container *tunnel* as the container *control* sees it."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from meshdev.manager.control.link import ContainerLink
from meshdev.manager.control.watches import WaitingRecords
from meshdev.manager.outbox import Outbox
from meshdev.wire import manager
from meshdev.wire.intercepts import Agents
from meshdev.wire.manager import MAX_DATAGRAM, Claimed, ManagerAddress, Seen, Synced, ToTunnel, Withdrawn
from meshdev.wire.watching import WatchClaim

log = logging.getLogger(__name__)

#: The other container's socket, in the folder both mount (its own side: meshdev.manager.tunnel.control_socket).
TUNNEL_SOCKET: Final = Path("/run/meshdev/tunnel.sock")


class TunnelClient(ContainerLink[ToTunnel | WaitingRecords]):
    """*on_connected* is called first, then *snapshot* is sent; *on_message* gets all but what is for the log."""

    def __init__(
        self,
        path: Path,
        on_connected: Callable[[], None],
        on_message: Callable[[ManagerAddress | Claimed | Agents | Withdrawn | WatchClaim | Synced], None],
        snapshot: Callable[[], Iterable[tuple[str, ToTunnel]]],
    ) -> None:
        super().__init__("tunnel", path, MAX_DATAGRAM)
        self._on_connected = on_connected
        self._on_message = on_message
        self._snapshot = snapshot

    def begin(self) -> Outbox[ToTunnel | WaitingRecords]:
        """See :class:`ContainerLink`."""
        self._on_connected()
        return Outbox(self._snapshot())

    def receive(self, datagram: bytes) -> None:
        """See :class:`ContainerLink`."""
        message = manager.decode_to_control(datagram)
        if isinstance(message, Seen):
            log.info("%s %s %s", message.event, message.holder, message.address)
        else:
            self._on_message(message)

    def encode(self, message: ToTunnel | WaitingRecords) -> bytes:
        """See :class:`ContainerLink`. What is left of a queue has its turn behind what waits already."""
        if not isinstance(message, WaitingRecords):
            return manager.encode(message)
        records = message.take()
        if message:
            self.send_latest(message.name, message)
        return manager.encode(records)
