"""`python -m tests.cluster.wan`: DNS on the one public address, the web on the other, until it is killed."""

import threading

from tests.cluster import addresses as plan
from tests.cluster.sample.app import App
from tests.cluster.sample.http1 import Request, Response, Server, Takeover
from tests.cluster.sample.listeners import Listener
from tests.cluster.wan import dns

_GREETING = b"wan: hello from the rest of the world\n"


def _site(request: Request) -> Response | Takeover:
    """`/` greets, `/whoami` is the visitor's address, the rest is as in the sample."""
    if request.path == "/":
        return Response(_GREETING)
    if request.path == "/whoami":
        return Response(request.client.encode())
    return App("wan")(request)


def main() -> None:
    """Serve."""
    names = dns.Server(str(plan.WAN_DNS), plan.WAN_ZONE, str(plan.WAN_WEB))
    Listener(80, Server(_site).serve, str(plan.WAN_WEB))
    udp, tcp = names.servers
    threading.Thread(target=tcp.serve_forever, daemon=True).start()
    udp.serve_forever()


if __name__ == "__main__":
    main()
