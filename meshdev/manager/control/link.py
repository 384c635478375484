"""A SEQPACKET unix socket of another of the manager's containers, connected to again and again.

Only the newest message of each key waits, so that a container that is slow or away costs nothing, and is sent what is
true when it is back.
"""

import asyncio
import contextlib
import logging
import socket
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final, Generic, TypeVar

from meshdev.errors import ProtocolError
from meshdev.manager.outbox import Outbox

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 0.2

M = TypeVar("M")


class ContainerLink(ABC, Generic[M]):
    """One connection at a time to *container*, whose socket is at *path*. *limit* is that of a datagram, in bytes."""

    def __init__(self, container: str, path: Path, limit: int) -> None:
        self._container = container
        self._path = path
        self._limit = limit
        self._outbox: Outbox[M] = Outbox()

    @abstractmethod
    def begin(self) -> Outbox[M]:
        """A connection is there; what is sent first."""

    @abstractmethod
    def receive(self, datagram: bytes) -> None:
        """What the container sends. Raises ProtocolError: then it is connected to again."""

    @abstractmethod
    def encode(self, message: M) -> bytes:
        """One datagram."""

    def send_latest(self, key: str, message: M) -> None:
        """It replaces what waits under the same *key*."""
        self._outbox.put(key, message)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._talk()
            except (OSError, ProtocolError) as error:
                log.debug("the %s container is not there: %s", self._container, error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _talk(self) -> None:
        """One connection, until the other container closes it."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as sock:
            await loop.sock_connect(sock, str(self._path))
            log.info("following the %s container", self._container)
            self._outbox = self.begin()
            sending = asyncio.create_task(self._send(sock))
            try:
                while datagram := await loop.sock_recv(sock, self._limit):
                    self.receive(datagram)
                    await asyncio.sleep(0)  # the next one may be there: it would be taken before anybody else's turn
            finally:
                sending.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await sending

    async def _send(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await loop.sock_sendall(sock, self.encode(await self._outbox.get()))
