"""Two TUN devices joined back to back, for tests: what is written to one is read from the other."""

import socket

from meshdev.tun.device import TunDevice
from meshdev.tun.offload import PROBES


class MemoryQueue:
    """One end of a SOCK_SEQPACKET pair (see :class:`~meshdev.tun.device.TunQueue`). Owns the socket.

    Unlike a device, a full peer makes a write raise BlockingIOError instead of dropping, and a closed peer reads as
    an empty packet. Detaching only clears ``attached`` and drops pending packets.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._sock = sock
        self.attached = True

    def fileno(self) -> int:
        """The descriptor, or -1 after :meth:`close`."""
        return self._sock.fileno()

    def attach(self) -> None:
        """Attach again."""
        self.attached = True

    def detach(self) -> None:
        """Detach, dropping pending packets."""
        self.attached = False
        try:
            while self._sock.recv(1 << 17):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close this end."""
        self._sock.close()


def memory_pair(queues: int = 1) -> tuple[TunDevice, TunDevice]:
    """Two devices; queue *n* of one is joined to queue *n* of the other."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(queues)]
    return (
        TunDevice("memory0", tuple(MemoryQueue(pair[0]) for pair in pairs), PROBES[0]),
        TunDevice("memory1", tuple(MemoryQueue(pair[1]) for pair in pairs), PROBES[0]),
    )
