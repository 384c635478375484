"""What a port carries."""

from typing import Final, Literal

from meshdev.wire.codecs import Choice

#: The kernel's two.
Transport = Literal["tcp", "udp"]
#: "http" is TCP that is known to carry requests, "tcp" that of unknown content.
Protocol = Literal["tcp", "udp", "http"]

TRANSPORTS: Final[tuple[Transport, ...]] = ("tcp", "udp")
PROTOCOLS: Final[tuple[Protocol, ...]] = ("tcp", "udp", "http")
#: For fields of messages.
TRANSPORT: Final = Choice(TRANSPORTS)
PROTOCOL: Final = Choice(PROTOCOLS)


def transport_of(protocol: Protocol) -> Transport:
    """What carries it."""
    return "udp" if protocol == "udp" else "tcp"
