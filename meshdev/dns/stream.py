"""DNS over TCP: messages with a length in front (RFC 1035 section 4.2.2), in both directions of a stream."""

import asyncio
from typing import Final

#: How long a peer may leave sent bytes unread before its connection is given up.
_DRAIN_SECONDS: Final = 10.0


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """The next message; raises EOFError where the stream ends, OSError where it breaks. Has no deadline of its own."""
    length = int.from_bytes(await reader.readexactly(2), "big")
    return await reader.readexactly(length)


async def write_message(writer: asyncio.StreamWriter, wire: bytes) -> None:
    """Sends one message as a whole; raises OSError where the stream is broken, TimeoutError where nobody reads."""
    writer.write(len(wire).to_bytes(2, "big") + wire)
    async with asyncio.timeout(_DRAIN_SECONDS):
        await writer.drain()
