"""``python -m tests.e2e.sniffer FILE SECONDS LIMIT``: record every frame of the network namespace it runs in.

All interfaces but lo (packet(7), unbound, ETH_P_ALL): a frame between two pods is seen on each interface that it
passes. Says "ready" once nothing is missed any more; ends when stdin does, after SECONDS, or when FILE has LIMIT bytes,
and says then whether the record is complete. FILE: a 4-byte length (network order) before each frame.
"""

import json
import select
import socket
import struct
import sys
import time
from pathlib import Path
from typing import BinaryIO, Final

from tests.e2e.captured import LENGTH, LOOPBACK, Ending

#: linux/if_ether.h, linux/if_packet.h, asm-generic/socket.h
_ETH_P_ALL: Final = 3
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_SO_RCVBUFFORCE: Final = 33
_STATISTICS: Final = struct.Struct("@II")
#: What the kernel keeps while this process gets no CPU.
_BUFFER: Final = 64 << 20
#: For what is queued when stdin ends.
_DRAIN_SECONDS: Final = 5.0
#: More than any frame with segmentation offload.
_LARGEST: Final = 1 << 18


def main(path: Path, seconds: float, limit: int) -> Ending:
    """Record until the end."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as sock, path.open("wb") as file:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        sock.setblocking(False)
        _dropped(sock)  # what was before there was room for it
        print("ready", flush=True)
        ended_by = _record(sock, file, time.monotonic() + seconds, limit)
        return Ending(ended_by, _dropped(sock))


def _dropped(sock: socket.socket) -> int:
    """Frames since the last call (packet(7), PACKET_STATISTICS)."""
    _, dropped = _STATISTICS.unpack(sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size))
    return int(dropped)


def _record(sock: socket.socket, file: BinaryIO, deadline: float, limit: int) -> str:
    """Why it ended. What had arrived by the end of stdin is recorded, also if more comes all the time."""
    size, ended_by, watched = 0, "time", [sock, sys.stdin]
    while (left := deadline - time.monotonic()) > 0:
        readable, _, _ = select.select(watched, [], [], left if sys.stdin in watched else 0)
        if sys.stdin in readable:
            watched, ended_by = [sock], "asked"
            deadline = time.monotonic() + _DRAIN_SECONDS
        if sock in readable:
            frame, where = sock.recvfrom(_LARGEST)
            if where[0] == LOOPBACK:
                continue
            size += len(frame) + LENGTH.size
            if size > limit:
                return "limit"
            file.write(LENGTH.pack(len(frame)) + frame)
        elif not readable:
            break
    return ended_by


if __name__ == "__main__":
    print(json.dumps(vars(main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))), flush=True)
