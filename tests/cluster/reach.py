"""Which Services this machine does not reach, as a program for a node's network.

    python tests/cluster/reach.py ADDRESS:PORT/PROTOCOL...

kube-proxy learns of a ready pod after the Deployment's status says so, each node's at a time of its own. Until then
what is sent to the Service is refused.
"""

import socket
import sys
from collections.abc import Iterable
from typing import Final

_SECONDS: Final = 1.0
#: A DNS query for the root's name servers (RFC 1035, section 4.1): CoreDNS answers it, and so does an echo.
_DATAGRAM: Final = bytes.fromhex("4d44 0000 0001 0000 0000 0000 00 0002 0001")


def unreached(services: Iterable[str]) -> list[str]:
    """Those of SERVICES whose TCP connection or datagram was not answered."""
    return [service for service in services if not _reached(service)]


def _reached(service: str) -> bool:
    place, _, protocol = service.rpartition("/")
    address, _, port = place.rpartition(":")
    kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.settimeout(_SECONDS)
        try:
            sock.connect((address, int(port)))
            if kind is socket.SOCK_DGRAM:
                sock.send(_DATAGRAM)
                sock.recv(512)
        except OSError:
            return False
    return True


if __name__ == "__main__":
    if missing := unreached(sys.argv[1:]):
        sys.exit(f"not reached: {', '.join(missing)}")
