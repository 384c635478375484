"""Many connections: ``python -m tests.e2e.idle serve ADDRESS PORT``, and ``… open ADDRESS PORT NUMBER``.

``serve`` answers requests, on all connections from one thread. ``open`` makes its connections, says so,
and at each line of its input it asks on all of them; it prints how many were answered, and leaves with its input.
"""

import resource
import selectors
import socket
import sys
from typing import Final

SECONDS: Final = 20.0
#: What is under way at a time: fewer than a listener's queue takes.
AT_ONCE: Final = 500
REQUEST: Final = b"GET / HTTP/1.1\r\nHost: odd\r\n\r\n"
RESPONSE: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def serve(address: str, port: str) -> None:
    """Until it is killed."""
    selector = selectors.DefaultSelector()
    listener = socket.create_server((address, int(port)), backlog=4096)
    selector.register(listener, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if sock is listener:
                selector.register(listener.accept()[0], selectors.EVENT_READ)
            elif _received(sock):
                sock.sendall(RESPONSE)
            else:
                selector.unregister(sock)
                sock.close()


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(len(REQUEST))
    except ConnectionResetError:
        return b""


def hold(address: str, port: str, number: str) -> None:
    """As long as there is input."""
    held = [socket.create_connection((address, int(port)), SECONDS) for _ in range(int(number))]
    print("open", flush=True)
    for _ in sys.stdin:
        answered = 0
        for first in range(0, len(held), AT_ONCE):
            some = held[first : first + AT_ONCE]
            for sock in some:
                sock.sendall(REQUEST)
            answered += sum(sock.recv(1 << 16) == RESPONSE for sock in some)
        print(answered, flush=True)


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    what, *arguments = sys.argv[1:]
    if what == "serve":
        serve(*arguments)
    else:
        hold(*arguments)
