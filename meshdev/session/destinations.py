"""Where the proxy's connections go: into the cluster by the tunnel's network, all others by the machine's own."""

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from meshdev.errors import MeshdevError
from meshdev.isolation.network import THIS_NETWORK, NetworkSockets
from meshdev.isolation.streams import SocketAddress, open_stream
from meshdev.session.streams import CHUNK, Stream
from meshdev.wire.socks import ConnectFailure, ProxyRequest
from meshdev.wire.values import IPAddress

#: For a name; the cluster's nameserver and the machine's resolver have shorter ones for each try.
_RESOLVE_SECONDS: Final = 10.0
_CONNECT_SECONDS: Final = 15.0
#: For one of several addresses, except the last one.
_NEXT_SECONDS: Final = 3.0

_FAILURES: Final = {
    errno.ECONNREFUSED: ConnectFailure.REFUSED,
    errno.ETIMEDOUT: ConnectFailure.TIMEOUT,
    errno.EHOSTUNREACH: ConnectFailure.UNREACHABLE,
    errno.ENETUNREACH: ConnectFailure.UNREACHABLE,
    errno.ENETDOWN: ConnectFailure.UNREACHABLE,
    errno.EMFILE: ConnectFailure.BUSY,
    errno.ENFILE: ConnectFailure.BUSY,
}


class DestinationError(Exception):
    """There is no connection to where a client wants to go."""

    def __init__(self, failure: ConnectFailure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Destinations:
    """Connects to hosts of the cluster and to all others."""

    resolve: Callable[[str], Awaitable[Sequence[IPv4Address] | None]]
    """The addresses of a name in the cluster, which are routed then; None where the name is not the cluster's.

    Raises DnsError where the cluster cannot be asked for a name that is its own.
    """
    inside: Callable[[IPv4Address], bool]
    """Whether an address is the cluster's."""
    network: NetworkSockets
    """The network with the tunnel in it."""
    loopback: bool = True
    """Whether clients may reach this machine's own loopback addresses: not where other machines' are served."""

    async def connect(self, request: ProxyRequest) -> Stream:
        """Connect to what *request* names. Raises DestinationError."""
        where = f"{request.host}:{request.port}"
        try:
            return await self._connect(request.host, request.address, request.port)
        except MeshdevError as error:
            raise DestinationError(ConnectFailure.UNKNOWN_NAME, f"{where}: {error.message}") from error
        except socket.gaierror as error:
            raise DestinationError(ConnectFailure.UNKNOWN_NAME, f"{where}: {error.strerror}") from error
        except TimeoutError as error:
            raise DestinationError(ConnectFailure.TIMEOUT, f"{where} does not answer") from error
        except OSError as error:
            failure = _FAILURES.get(error.errno or 0, ConnectFailure.FAILED)
            # asyncio's own text would repeat the address.
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise DestinationError(failure, f"{where}: {reason}") from error

    async def _connect(self, host: str, address: IPAddress | None, port: int) -> Stream:
        if address is None:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await self.resolve(host)
        else:
            found = (address,) if isinstance(address, IPv4Address) else None
        if found is not None and not found:
            raise DestinationError(ConnectFailure.UNKNOWN_NAME, f"the cluster has no address of {host}")
        async with asyncio.timeout(_CONNECT_SECONDS):
            if inside := [each for each in found or () if self.inside(each)]:
                return await _connect_first(self.network, [(socket.AF_INET, (str(each), port)) for each in inside])
            # A Service of type ExternalName has addresses that are not the cluster's.
            return await self._connect_outside(str(found[0]) if found else host, port)

    async def _connect_outside(self, host: str, port: int) -> Stream:
        loop = asyncio.get_running_loop()
        found = [(each[0], each[4]) for each in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        usable = [each for each in found if self.loopback or not _is_here(each[1])]
        if not usable:
            raise DestinationError(
                ConnectFailure.NOT_ALLOWED, f"{host} is this machine, which is not for clients of other machines"
            )
        return await _connect_first(THIS_NETWORK, usable)


async def _connect_first(network: NetworkSockets, candidates: Sequence[tuple[int, SocketAddress]]) -> Stream:
    """Connect to the first one that takes it: a headless Service has an address for each pod."""
    last = OSError()
    for number, (family, address) in enumerate(candidates, start=1):
        try:
            async with asyncio.timeout(_NEXT_SECONDS if number < len(candidates) else None):
                return await open_stream(network, family, address, limit=CHUNK)
        except OSError as error:  # also TimeoutError
            last = error
    raise last


def _is_here(address: SocketAddress) -> bool:
    found = ip_address(str(address[0]).partition("%")[0])
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or found
    return found.is_loopback or found.is_unspecified or found.is_link_local
