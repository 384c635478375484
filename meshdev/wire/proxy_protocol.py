"""The header by which a proxy says whose connection it passes on: PROXY protocol, version 2.

Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2.2.
"""

import struct
from ipaddress import IPv4Address
from typing import Final

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
#: Version 2, command PROXY; AF_INET, SOCK_STREAM; bytes of the two ends.
_TCP4: Final = struct.pack("!BBH", 0x21, 0x11, 12)
SIZE: Final = len(_SIGNATURE) + len(_TCP4) + 12


def header(client: tuple[str, int], local: tuple[str, int]) -> bytes:
    """Of a connection over IPv4 from *client* to *local*; :data:`SIZE` bytes.

    Raises ValueError where one of them is no IPv4 address.
    """
    ends = IPv4Address(client[0]).packed + IPv4Address(local[0]).packed
    return _SIGNATURE + _TCP4 + ends + struct.pack("!HH", client[1], local[1])
