"""The stream ``dashboard``: a page at 127.0.0.1, served for as long as its command runs.

This module is imported only where it is wanted: the HTTP server takes 2 MB.
"""

import asyncio
import errno
import logging
import secrets
import socket
from typing import Final

from meshdev.dashboard import server
from meshdev.dashboard.security import NAMES
from meshdev.errors import LaptopError
from meshdev.session.api import Exchange
from meshdev.session.dashboard_feed import Observed, SessionFeed
from meshdev.wire.session_dashboard import DashboardRequest, DashboardServed
from meshdev.wire.session_intercepts import Left

log = logging.getLogger(__name__)

_ADDRESS: Final = NAMES[0]
#: Bytes of the token: it is guessed at over the network, if at all.
_TOKEN_BYTES: Final = 32
_WAYS_OUT: Final = {
    errno.EADDRINUSE: "another program has that port: choose another one with --port, or leave the choice to meshdev",
    errno.EACCES: "choose a port of 1024 or above with --port",
}


async def stream(observed: Observed, closing: asyncio.Event, request: DashboardRequest, exchange: Exchange) -> None:
    """Serve it until the client goes away, or the connection is about to end (*closing*).

    Raises LaptopError where the port is taken.
    """
    with _listen(request.port or 0) as listener:
        port: int = listener.getsockname()[1]
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        feed = SessionFeed(observed)
        running = asyncio.ensure_future(feed.run())
        ends = [asyncio.ensure_future(each) for each in (exchange.closed(), closing.wait())]
        try:
            async with server.serving(listener, feed, token):
                log.info("the dashboard is served at port %d", port)
                exchange.send(DashboardServed(f"http://{_ADDRESS}:{port}/#token={token}"))
                await asyncio.wait((running, *ends), return_when=asyncio.FIRST_COMPLETED)
                if closing.is_set():
                    exchange.send(Left())
        finally:
            log.info("the dashboard at port %d ends", port)
            for each in (running, *ends):
                each.cancel()
            await asyncio.wait((running, *ends))
    if running.done() and not running.cancelled():
        running.result()


def _listen(port: int) -> socket.socket:
    """Listen there, for this machine alone. Raises LaptopError."""
    try:
        return socket.create_server((_ADDRESS, port))
    except OSError as error:
        raise LaptopError(
            f"the dashboard cannot be served at {_ADDRESS}:{port}: {error.strerror}",
            hint=_WAYS_OUT.get(error.errno or 0, "try another --port"),
        ) from error
