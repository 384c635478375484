"""The dashboard, between its command and the session.

``dashboard`` is a stream on the session API::

    CLI → session   {"op": "dashboard", "port": null}     one line
    session → CLI   {"event": "dashboard", "url": …}      it is served
                    {"event": "left"}                     the last: the connection ends
                    {"event": "error", …}                 the last: it cannot be served

It is served until the client's end of file.
"""

from meshdev.wire.codecs import PORT, Nullable, Text
from meshdev.wire.message import field, message


@message(strict=True)
class DashboardRequest:
    """Asks for the dashboard at *port* of 127.0.0.1; None: any free one."""

    port: int | None = field(Nullable(PORT), default=None)


@message()
class DashboardServed:
    """It can be opened at *url*, which contains the token: whoever knows it may look."""

    url: str = field(Text(1024))
