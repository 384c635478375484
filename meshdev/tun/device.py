"""The contract of a TUN device, on which the packet pump relies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class TunQueue(Protocol):
    """One queue: a non-blocking, close-on-exec descriptor that reads and writes whole packets.

    ``os.readv`` and ``os.writev`` on :meth:`fileno` move one packet a call, each with ``VNET_HEADER_LENGTH`` bytes of
    virtio-net header in front (``tun.offload``); they raise BlockingIOError when nothing is pending. A write to a
    device that is down raises OSError EIO. The buffer of a read must hold ``PACKET_LIMIT`` bytes: the rest is lost.

    The holder owns the descriptor: whoever receives a queue, and nobody else, closes it.
    """

    def fileno(self) -> int:
        """The descriptor, or -1 after :meth:`close`."""
        ...

    def attach(self) -> None:
        """Join the device again after :meth:`detach`; does nothing when attached."""
        ...

    def detach(self) -> None:
        """Leave the device without closing: packets waiting in this queue are dropped, its flows go to the others.

        Needs no privilege. The descriptor stays valid; reads find nothing. With every queue detached the device drops
        what is sent to it. Does nothing when detached.
        """
        ...

    def close(self) -> None:
        """Close the descriptor; a second call does nothing. The device is removed with its last queue."""
        ...


@dataclass(frozen=True, slots=True)
class TunDevice:
    """A device and its queues. Whoever holds it owns the queues; ``offload`` is the mask of TUN_F_* in force."""

    name: str
    queues: Sequence[TunQueue]
    offload: int

    def close(self) -> None:
        """Close every queue; the kernel removes the device with its addresses and routes."""
        for queue in self.queues:
            queue.close()
