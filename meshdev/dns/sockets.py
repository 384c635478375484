"""What DNS needs of sockets: room for datagrams; on streams, messages with a length in front (RFC 1035, 4.2.2)."""

import asyncio
import socket
from typing import Final

#: How long a peer may leave sent bytes unread before its connection is given up.
_DRAIN_SECONDS: Final = 10.0

#: Room for waiting datagrams: the usual default holds 270 questions, fewer than a browser and a build ask for together.
#: The kernel gives at most net.core.rmem_max, without complaint.
_RECEIVE_BUFFER: Final = 1 << 20


def prepare(sock: socket.socket) -> None:
    """Makes a UDP socket ready for the event loop."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """The next message; raises EOFError where the stream ends, OSError where it breaks. Has no deadline of its own."""
    length = int.from_bytes(await reader.readexactly(2), "big")
    return await reader.readexactly(length)


async def write_message(writer: asyncio.StreamWriter, wire: bytes) -> None:
    """Sends one message as a whole; raises OSError where the stream is broken, TimeoutError where nobody reads."""
    writer.write(len(wire).to_bytes(2, "big") + wire)
    async with asyncio.timeout(_DRAIN_SECONDS):
        await writer.drain()
