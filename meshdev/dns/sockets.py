"""Sockets for DNS: buffers for datagrams; on streams, messages with a length prefix (RFC 1035, 4.2.2)."""

import asyncio
import socket
from typing import Final

from meshdev.wire.dns import Query, answers, message_id

#: How long a peer may leave sent bytes unread before its connection is closed.
_DRAIN_SECONDS: Final = 10.0

#: The usual default holds 270 queries, fewer than a browser and a build send together. The kernel silently limits it to
#: net.core.rmem_max.
_RECEIVE_BUFFER: Final = 1 << 20


def prepare(sock: socket.socket) -> None:
    """Prepare a UDP socket for the event loop."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, query: Query, request: bytes) -> bytes:
    """Send *request*, which is *query* under another id; its answer. Raises OSError or EOFError without one."""
    await write_message(writer, request)
    answer = await read_message(reader)
    if not (answers(answer, query) and message_id(answer) == message_id(request)):
        raise ConnectionError("the nameserver sent an answer to another query")
    return answer


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """Read a message. Raises EOFError where the stream ends, OSError where it breaks. Has no timeout of its own."""
    length = int.from_bytes(await reader.readexactly(2), "big")
    return await reader.readexactly(length)


async def write_message(writer: asyncio.StreamWriter, wire: bytes) -> None:
    """Send a message. Raises OSError where the stream is broken, TimeoutError where the peer does not read."""
    writer.write(len(wire).to_bytes(2, "big") + wire)
    async with asyncio.timeout(_DRAIN_SECONDS):
        await writer.drain()
