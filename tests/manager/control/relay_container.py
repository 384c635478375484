"""A container *relay* that asks for a certificate, and keeps what control sends it as the real one does."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from meshdev.identity.keys import KeyPair
from meshdev.wire.relay import (
    MAX_DATAGRAM,
    RelayEndpoint,
    RelayIdentity,
    RelayRemoved,
    RelaySigningRequest,
    RelaysSynced,
    decode_to_relay,
    encode,
)


class RelayContainer:
    """Of each connection ``log`` has the messages; ``endpoints`` are those of all."""

    def __init__(self, path: Path) -> None:
        self.pair = KeyPair.generate()
        self.identity: RelayIdentity | None = None
        self.endpoints: dict[int, RelayEndpoint] = {}
        self.log: list[list[object]] = []
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._server.bind(str(path))
        self._server.listen(2)
        self._connection: socket.socket | None = None

    def permitted(self) -> dict[int, set[str]]:
        """Keys by relay."""
        return {relay: set(endpoint.keys) for relay, endpoint in self.endpoints.items()}

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._connection, _ = await loop.sock_accept(self._server)
            with self._connection as connection:
                await loop.sock_sendall(connection, encode(RelaySigningRequest(self.pair.request())))
                self.log.append([])
                with contextlib.suppress(OSError):
                    while datagram := await loop.sock_recv(connection, MAX_DATAGRAM):
                        self._take(decode_to_relay(datagram))

    def _take(self, message: object) -> None:
        self.log[-1].append(message)
        match message:
            case RelayIdentity():
                self.identity = message
            case RelayEndpoint(relay=relay):
                self.endpoints[relay] = message
            case RelayRemoved(relay=relay):
                self.endpoints.pop(relay, None)
            case RelaysSynced():
                sent = {each.relay for each in self.log[-1] if isinstance(each, RelayEndpoint)}
                self.endpoints = {relay: one for relay, one in self.endpoints.items() if relay in sent}

    def lose(self) -> None:
        """End the connection."""
        assert self._connection is not None
        self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.close()


@contextlib.asynccontextmanager
async def relay_container(path: Path) -> AsyncIterator[RelayContainer]:
    made = RelayContainer(path)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait([task])
        made.close()
