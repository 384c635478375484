"""A middlebox that looks into TLS: ``python -m tests.e2e.middlebox WHAT HOW SERVER:PORT CERTIFICATE`` on a laptop.

It ends TLS with its own certificate and key (one PEM file) as companies' proxies do, and passes everything on to the
server but connections whose first request asks to upgrade to WHAT (``SPDY``, ``websocket``): HOW is ``reset``,
``swallow`` (no answer ever comes) or ``after`` (the 101 passes, and nothing after it). It prints its port, and then
WHAT of each connection that it broke.
"""

import asyncio
import contextlib
import ssl
import sys
from typing import Final

from tests.e2e.connect_proxy import pass_on

_PIECE: Final = 65536


async def main(what: str, how: str, server: str, certificate: str) -> None:
    """Serve until killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    outside = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    outside.check_hostname, outside.verify_mode = False, ssl.CERT_NONE
    address, _, port = server.rpartition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            broken = f"upgrade: {what}".lower().encode() in head.lower()
            if broken:
                print(what, flush=True)
            if broken and how == "reset":
                writer.transport.abort()  # data of ours is unread then, so the kernel sends RST
                return
            if broken and how == "swallow":
                await reader.read()
                writer.close()
                return
            there, back = await asyncio.open_connection(address, int(port), ssl=outside)
            back.write(head)
            if broken:
                writer.write(await there.readuntil(b"\r\n\r\n"))
                await reader.read()
                back.close()
                writer.close()
                return
            await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
