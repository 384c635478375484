"""Two connections joined to one: bytes, half-closes and resets of each are handed on to the other."""

import asyncio
import socket
import struct
from typing import Final

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]

#: Read at a time; at most two such chunks of each direction are held.
CHUNK: Final = 1 << 16
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: a close sends a reset


async def join(one: Stream, other: Stream) -> None:
    """Copy both ways until both have ended; in any case both are closed then.

    Raises an exception group of OSError where one of them broke: the other one is reset, too.
    """
    ends = [one[1], other[1]]
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_copy(one[0], other[1]))
            both.create_task(_copy(other[0], one[1]))
        for end in ends:
            end.close()
            await end.wait_closed()
        ends.clear()
    finally:
        for end in ends:
            reset(end)


def reset(writer: asyncio.StreamWriter) -> None:
    """Cut a connection: its peer must not take what was cut off for the whole."""
    sock: socket.socket = writer.get_extra_info("socket")
    if sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
