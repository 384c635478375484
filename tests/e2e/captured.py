"""Recorded frames: TCP streams put together again, and plaintext looked for in all of it. Pure."""

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

LENGTH: Final = struct.Struct(">I")
LOOPBACK: Final = "lo"

_ETHERNET: Final = 14
_IPV4: Final = b"\x08\x00"
_TCP: Final = 6
_HALF: Final = 1 << 31


@dataclass(frozen=True)
class Ending:
    """*by*: asked, time, limit. *dropped*: frames that the kernel had no room for."""

    by: str
    dropped: int

    @property
    def complete(self) -> bool:
        """Whether "not found" means that it was not sent."""
        return self.by == "asked" and not self.dropped


@dataclass(frozen=True)
class Segment:
    """The bytes of one TCP segment, and whose they are: ``10.244.0.5:40000 → 10.244.0.9:80``."""

    flow: str
    sequence: int
    data: bytes


def frames(record: bytes) -> Iterator[bytes]:
    """What the sniffer wrote; a last frame that is cut off is left out."""
    at = 0
    while at + LENGTH.size <= len(record):
        (length,) = LENGTH.unpack_from(record, at)
        at += LENGTH.size + length
        if at <= len(record):
            yield record[at - length : at]


def segment(frame: bytes) -> Segment | None:
    """The TCP segment with data in an Ethernet frame; None for everything else and for fragments."""
    packet = frame[_ETHERNET:]
    if frame[12:14] != _IPV4 or len(packet) < 20 or packet[9] != _TCP or packet[6] & 0x3F or packet[7]:
        return None
    end = int.from_bytes(packet[2:4], "big") or len(packet)  # 0: of more than 64 KiB (BIG TCP)
    tcp = packet[(packet[0] & 15) * 4 : end]
    if len(tcp) < 20 or not (data := tcp[(tcp[12] >> 4) * 4 :]):
        return None
    ends = [
        f"{IPv4Address(packet[at : at + 4])}:{int.from_bytes(tcp[port : port + 2], 'big')}"
        for at, port in ((12, 0), (16, 2))
    ]
    return Segment(" → ".join(ends), int.from_bytes(tcp[4:8], "big"), data)


def streams(recorded: Iterable[bytes]) -> dict[str, bytes]:
    """What each direction of each connection carried, in order; seen twice and sent again count once.

    A hole (before the record began, or lost) is left out. Sequence numbers may wrap once.
    """
    flows: dict[str, dict[tuple[int, int], bytes]] = defaultdict(dict)
    for each in filter(None, map(segment, recorded)):
        flows[each.flow][each.sequence, len(each.data)] = each.data
    return {flow: _joined(parts) for flow, parts in flows.items()}


def _joined(parts: dict[tuple[int, int], bytes]) -> bytes:
    first = next(iter(parts))[0]
    stream, reached = bytearray(), -_HALF
    for start, data in sorted(((at - first + _HALF) % (2 * _HALF) - _HALF, data) for (at, _), data in parts.items()):
        new = data[max(reached - start, 0) :]
        stream += new
        reached = max(reached, start + len(data))
    return bytes(stream)


def readable(recorded: Iterable[bytes], markers: Iterable[bytes]) -> dict[bytes, list[str]]:
    """Where each marker was found: flows, or "a frame" for what is no TCP. Those that were not found are left out.

    In TCP also across segments. What is encoded is not decoded: of HTTP/2 look for bodies, not for header fields, which
    may be Huffman-coded (RFC 7541 section 5.2).
    """
    kept = list(recorded)
    there = {**{f"{flow}": data for flow, data in streams(kept).items()}}
    found: dict[bytes, list[str]] = {}
    for marker in markers:
        where = sorted(flow for flow, data in there.items() if marker in data)
        if not where and any(marker in frame for frame in kept):
            where = ["a frame"]
        if where:
            found[marker] = where
    return found
