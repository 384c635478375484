"""Sockets and programs of this machine in the network of a pod.

The node is this machine, so the pod's processes are in /proc here.
"""

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_CLONE_NEWNET: Final = 0x40000000  # setns(2)


@contextmanager
def network_of(pid: int) -> Iterator[None]:
    """Sockets that this thread makes in the block are in the network namespace of *pid*. Raises OSError."""
    with open("/proc/thread-self/ns/net") as home, open(f"/proc/{pid}/ns/net") as there:  # noqa: PTH123 -- no paths
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def connect(pid: int, address: tuple[str, int], seconds: float) -> socket.socket:
    """Connect from that network; *seconds* is the limit of this and each later operation."""
    with network_of(pid):
        return socket.create_connection(address, seconds)


def command(pid: int, *argv: str) -> list[str]:
    """A command line that runs *argv* in that network."""
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "--", *argv]


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
