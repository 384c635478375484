"""What has passed a session's tunnel. Pure."""

from dataclasses import dataclass, fields
from typing import Self

from meshdev.pump.pump import Counters
from meshdev.tun.offload import VNET_HEADER_LENGTH
from meshdev.wire.frames import HEADER_SIZE


@dataclass(frozen=True)
class TunnelTraffic:
    """IP packets and their bytes, as the kernel hands them over and takes them: up to 64 KiB each."""

    packets_to_cluster: int = 0
    packets_to_laptop: int = 0
    bytes_to_cluster: int = 0
    bytes_to_laptop: int = 0
    dropped: int = 0
    """The laptop's kernel did not take them, or they were no packets."""
    malformed: int = 0
    """Of the dropped ones: with a header that no kernel generates."""

    @classmethod
    def of(cls, counters: Counters) -> Self:
        """What one pump counted at the laptop's end, without what it is wrapped in: only one direction has frames."""
        sent, received = counters.packets_out, counters.packets_in
        return cls(
            sent,
            received,
            max(0, counters.bytes_out - sent * (HEADER_SIZE + VNET_HEADER_LENGTH)),  # its thread goes on counting
            max(0, counters.bytes_in - received * VNET_HEADER_LENGTH),
            counters.dropped,
            counters.malformed,
        )

    def __add__(self, other: Self) -> Self:
        names = [each.name for each in fields(self)]
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in names))
