"""The stream ``dashboard``: a page at 127.0.0.1, served for as long as its command runs.

This module is imported only where it is wanted: the HTTP server takes 2 MB.
"""

import asyncio
import logging
import secrets
from typing import Final

from meshdev.dashboard import server
from meshdev.session.api import Exchange
from meshdev.session.dashboard_feed import Observed, SessionFeed
from meshdev.session.local_listener import ADDRESS, local_listener
from meshdev.wire.session_dashboard import DashboardRequest, DashboardServed
from meshdev.wire.session_intercepts import Left

log = logging.getLogger(__name__)

#: Bytes of the token: it is guessed at over the network, if at all.
_TOKEN_BYTES: Final = 32


async def stream(observed: Observed, closing: asyncio.Event, request: DashboardRequest, exchange: Exchange) -> None:
    """Serve it until the client goes away, or the connection is about to end (*closing*).

    Raises LaptopError where the port is taken.
    """
    with local_listener(request.port or 0, "the dashboard", "--port") as listener:
        port: int = listener.getsockname()[1]
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        feed = SessionFeed(observed)
        running = asyncio.ensure_future(feed.run())
        ends = [asyncio.ensure_future(each) for each in (exchange.closed(), closing.wait())]
        try:
            async with server.serving(listener, feed, token):
                log.info("the dashboard is served at port %d", port)
                exchange.send(DashboardServed(f"http://{ADDRESS}:{port}/#token={token}"))
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
