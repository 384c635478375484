"""A UDP echo; the datagram `name?` is answered by the service's name."""

import socket
import threading

_LARGEST = 65535


def start(port: int, name: str) -> None:
    """Answer datagrams on PORT until the process ends."""
    endpoint = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    endpoint.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    endpoint.bind(("::", port))
    threading.Thread(target=_serve, args=(endpoint, name.encode()), daemon=True).start()


def _serve(endpoint: socket.socket, name: bytes) -> None:
    while True:
        data, peer = endpoint.recvfrom(_LARGEST)
        try:
            endpoint.sendto(name if data == b"name?" else data, peer)
        except OSError:
            continue  # the peer is unreachable: UDP makes no promise
