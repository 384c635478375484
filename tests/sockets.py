"""What tests read from sockets, and how they end them. Blocking: a deadline is that of the socket."""

import socket
import struct
import time
from collections.abc import Callable
from typing import Protocol

from tests.loops import DEADLINE_SECONDS


class Receives(Protocol):
    """A socket, or TLS on one."""

    def recv(self, size: int, /) -> bytes: ...


def everything(sock: Receives) -> bytes:
    """Until its end."""
    found = bytearray()
    while piece := sock.recv(1 << 16):
        found += piece
    return bytes(found)


def exactly(sock: Receives, size: int) -> bytes:
    """So many bytes; fewer where it ends before."""
    found = bytearray()
    while len(found) < size and (piece := sock.recv(size - len(found))):
        found += piece
    return bytes(found)


def reset(sock: socket.socket) -> None:
    """Close it with a reset (SO_LINGER of 0: socket(7))."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def is_reset(sock: socket.socket) -> bool:
    """Whether a reset is the next that comes."""
    try:
        assert sock.recv(1 << 16) == b""
    except ConnectionResetError:
        return True
    return False


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds, which another thread brings about."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)
