"""The stream ``dashboard`` of the fake session: a URL at which nothing is."""

import json
import select
import socket
from collections.abc import Callable

from meshdev.errors import LaptopError
from meshdev.wire.session_api import Failed, encode_event, encode_request
from meshdev.wire.session_dashboard import DashboardRequest, DashboardServed
from meshdev.wire.session_intercepts import Left

URL = "http://127.0.0.1:8888/#token=right-token"


def serve(
    client: socket.socket, request: DashboardRequest, trace: Callable[[str], None], wanted: Callable[[str], bool]
) -> None:
    """Until the client is gone or the test says ``end``; port 1 is taken."""
    trace(f"asked {json.dumps(json.loads(encode_request(request)))}")
    if request.port == 1:
        client.sendall(encode_event(Failed.of(LaptopError("port 1 is taken", hint="another --port"))))
    else:
        client.sendall(encode_event(DashboardServed(URL)))
        while not select.select([client], [], [], 0.02)[0]:
            if wanted("end"):
                client.sendall(encode_event(Left()))
                break
        trace("nobody looks any more")
    client.close()
