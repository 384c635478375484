"""Tunnel frames: the content of a carrier, in both directions.

::

     0        1                          4
    ┌────────┬──────────────────────────┬───────────────┐
    │ kind   │ length of the body, u24  │ body …        │
    └────────┴──────────────────────────┴───────────────┘

A PACKET's body is a ``virtio_net_hdr`` (10 bytes, linux/virtio_net.h) and an IP packet, as read from and written to the
TUN device. PING and PONG carry 8 bytes that the peer returns unchanged. Every other body is JSON
(:mod:`meshdev.wire.control`). A peer skips unknown kinds from 0x80 on.
"""

from collections.abc import Iterator
from typing import Final

from meshdev.errors import ProtocolError

PACKET: Final = 1
HELLO: Final = 2
WELCOME: Final = 3
PING: Final = 4
PONG: Final = 5
CLOSE: Final = 6
SESSIONS: Final = 7
INTERCEPT: Final = 8
RELAYS: Final = 9
WITHDRAW: Final = 10
LOCAL: Final = 11
REPORT: Final = 12
#: Of protocol 3.
AGENTS: Final = 13
ATTESTED: Final = 14
IDENTITY: Final = 15
ISSUED: Final = 16

#: Set in the kinds that a receiver may skip when it does not know them.
OPTIONAL: Final = 0x80
WATCH: Final = OPTIONAL | 17
RECORDS: Final = OPTIONAL | 18

HEADER_SIZE: Final = 4
VNET_HEADER_SIZE: Final = 10
#: An IPv4 packet's total length is a u16 (RFC 791), with the virtio header in front.
MAX_PACKET: Final = VNET_HEADER_SIZE + 65535
#: The smallest packet: an IPv4 header.
MIN_PACKET: Final = VNET_HEADER_SIZE + 20
MAX_CONTROL: Final = 65536
PING_SIZE: Final = 8

_LENGTH_MASK: Final = 0xFFFFFF


def header(kind: int, length: int) -> bytes:
    """The four bytes in front of a body of *length* bytes."""
    return (kind << 24 | length).to_bytes(HEADER_SIZE, "big")


def frame(kind: int, body: bytes) -> bytes:
    """A frame. Raises ValueError when the body is too long for its kind."""
    if len(body) > _limit(kind):
        raise ValueError(f"a frame of kind {kind} holds at most {_limit(kind)} bytes, not {len(body)}")
    return header(kind, len(body)) + body


def _limit(kind: int) -> int:
    return MAX_PACKET if kind == PACKET else MAX_CONTROL


def _checked_length(head: int) -> int:
    kind, length = head >> 24, head & _LENGTH_MASK
    if length > _limit(kind):
        raise ProtocolError(f"a tunnel frame of kind {kind} claims {length} bytes")
    if kind == PACKET and length < MIN_PACKET:
        raise ProtocolError(f"a tunnel packet of {length} bytes holds no IP header")
    if kind in (PING, PONG) and length != PING_SIZE:
        raise ProtocolError(f"a heartbeat holds {length} bytes instead of {PING_SIZE}")
    return length


class FrameDecoder:
    """Splits a byte stream into frames. Holds at most one incomplete frame (≤ 65,549 bytes)."""

    def __init__(self) -> None:
        self._stash = bytearray()

    def feed(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Kind and body of each frame that *data* completes; a body is valid until the iterator advances.

        Raises ProtocolError for a length that is invalid for its kind; the decoder must not be used after that.
        """
        offset = 0
        if self._stash:
            offset = self._fill_stash(data)
            if offset < 0:
                return
            whole, self._stash = self._stash, bytearray()
            yield whole[0], memoryview(whole)[HEADER_SIZE:]
        size = len(data)
        while size - offset >= HEADER_SIZE:
            head = int.from_bytes(data[offset : offset + HEADER_SIZE], "big")
            end = offset + HEADER_SIZE + _checked_length(head)
            if end > size:
                break
            yield head >> 24, data[offset + HEADER_SIZE : end]
            offset = end
        if offset < size:
            self._stash += data[offset:]

    def _fill_stash(self, data: memoryview) -> int:
        """Complete the incomplete frame; the bytes used of *data*, or -1 while it is still incomplete."""
        stash, used = self._stash, 0
        if len(stash) < HEADER_SIZE:
            used = min(HEADER_SIZE - len(stash), len(data))
            stash += data[:used]
            if len(stash) < HEADER_SIZE:
                return -1
        missing = HEADER_SIZE + _checked_length(int.from_bytes(stash[:HEADER_SIZE], "big")) - len(stash)
        rest = len(data) - used
        stash += data[used : used + missing]
        return used + missing if rest >= missing else -1
