"""The contract of a TUN device: what the packet pump may rely on, whoever made the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class TunQueue(Protocol):
    """One queue: a non-blocking, close-on-exec descriptor that reads and writes whole packets.

    ``os.readv`` and ``os.writev`` on :meth:`fileno` move one packet a call, each with ``VNET_HEADER_LENGTH`` bytes of
    virtio-net header in front (``tun.offload``); they raise BlockingIOError when nothing is there. A write to a device
    that is down raises OSError EIO. The buffer of a read must hold ``PACKET_LIMIT`` bytes: the rest would be lost.

    The holder owns the descriptor: whoever gets a queue closes it, and nobody else does.
    """

    def fileno(self) -> int:
        """The descriptor, or -1 after :meth:`close`."""
        ...

    def attach(self) -> None:
        """Take part in the device again after :meth:`detach`; nothing when it does already."""
        ...

    def detach(self) -> None:
        """Leave the device without closing: packets waiting in this queue are dropped, its flows go to the others.

        Needs no privilege. The descriptor stays valid; reads find nothing. With every queue detached the device drops
        what is sent to it. Nothing when already detached.
        """
        ...

    def close(self) -> None:
        """Give the descriptor back; a second call does nothing. A device whose last queue is closed is gone."""
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
