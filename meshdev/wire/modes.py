"""The modes of an intercept. Their differences are declared here once; no other module asks for a mode by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from meshdev.wire.codecs import InvalidValueError, Parsed

ModeName = Literal["proxy", "mesh"]


@dataclass(frozen=True, order=True)
class Mode:
    """What an intercept of this mode takes from the workload's pods, and what it needs for that."""

    name: ModeName
    help: str
    """What it takes, as help for people."""
    summary: str
    """What its command does, in a line."""
    needs_match: bool
    """It takes the requests that match, and needs a match; otherwise it takes everything and accepts no match."""
    carries_udp: bool
    """Datagrams, too. They contain no requests that could be matched."""
    takes_bytes: bool
    """Whole connections, whatever their protocol; otherwise one request at a time, of connections that speak HTTP."""
    exclusive: bool
    """No other intercept can be on the same workload."""

    def __str__(self) -> str:
        return self.name


PROXY: Final = Mode(
    "proxy",
    "Route all traffic of this workload.",
    "Route all traffic of a workload to this machine.",
    needs_match=False,
    carries_udp=True,
    takes_bytes=True,
    exclusive=True,
)
MESH: Final = Mode(
    "mesh",
    "Route matching requests of this workload.",
    "Route matching requests of a workload to this machine.",
    needs_match=True,
    carries_udp=False,
    takes_bytes=False,
    exclusive=False,
)
#: In the order of the commands' help.
MODES: Final[Mapping[str, Mode]] = MappingProxyType({mode.name: mode for mode in (PROXY, MESH)})


def mode(name: str) -> Mode:
    """The mode of that name. Raises ValueError."""
    try:
        return MODES[name]
    except KeyError:
        raise InvalidValueError from None


#: For the field of a message: it travels as its name.
MODE: Final = Parsed(mode)
