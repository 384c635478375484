"""Ports of this machine at which a session serves what was asked for, for programs of this machine alone."""

import errno
import socket
from typing import Final

from meshdev.errors import LaptopError

ADDRESS: Final = "127.0.0.1"
_WAYS_OUT: Final = {
    errno.EADDRINUSE: "another program has that port: choose another one with {flag}",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose another one with {flag}",
    errno.EACCES: "choose a port of 1024 or above with {flag}",
}


def local_listener(port: int, what: str, flag: str, address: str = ADDRESS) -> socket.socket:
    """Listen there; port 0 is any. Raises LaptopError that says what cannot be served, and which flag helps."""
    six = ":" in address
    try:
        return socket.create_server((address, port), family=socket.AF_INET6 if six else socket.AF_INET)
    except OSError as error:
        raise LaptopError(
            f"{what} cannot be served at {f'[{address}]' if six else address}:{port}: {error.strerror}",
            hint=_WAYS_OUT.get(error.errno or 0, "choose another port with {flag}, or leave it out").format(flag=flag),
        ) from error
