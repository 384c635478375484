"""Who listens in this pod, and which connections are older than the redirect."""

import logging
from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Final

from meshdev.netlink import diag
from meshdev.netlink.diag import Socket
from meshdev.netlink.sock import Netlink
from meshdev.wire.agent import PodPort
from meshdev.wire.ports import Transport

log = logging.getLogger(__name__)

_FAMILIES: Final = (diag.AF_INET, diag.AF_INET6)


class Sockets:
    """The pod's sockets. *address* is the pod's own."""

    def __init__(self, address: IPv4Address) -> None:
        self._address = address
        self._netlink = Netlink(diag.NETLINK_SOCK_DIAG)

    def close(self) -> None:
        """Close the netlink socket."""
        self._netlink.close()

    def listening(self) -> frozenset[PodPort] | None:
        """The ports that can be reached from outside; None where this kernel does not report it."""
        try:
            tcp = self._all(diag.TCP, (diag.LISTEN,))
            udp = self._all(diag.UDP, (diag.UNCONNECTED,))
        except OSError as error:
            log.warning("the kernel does not report who listens: %s", error)
            return None
        return self._reachable(tcp, "tcp") | self._reachable(udp, "udp")

    def _reachable(self, found: Iterable[Socket], transport: Transport) -> frozenset[PodPort]:
        return frozenset(
            PodPort(each.port, transport)
            for each in found
            if each.port and (each.local.is_unspecified or each.local == self._address)
        )

    def older(self, ports: Iterable[PodPort]) -> dict[PodPort, int]:
        """How many connections from outside each of these ports has itself: none of them came through Envoy."""
        found = {port: 0 for port in ports if port.transport == "tcp"}
        for each in self._direct(found):
            found[PodPort(each.port)] += 1
        return {port: count for port, count in found.items() if count}

    def close_older(self, ports: Iterable[PodPort]) -> int:
        """Reset those connections; how many it were."""
        doomed = self._direct({port: 0 for port in ports if port.transport == "tcp"})
        errors = self._netlink.execute([diag.socket_destroy(each, diag.TCP) for each in doomed])
        for error in errors:
            if error is not None:
                log.warning("an older connection could not be closed: %s", error)
        return sum(error is None for error in errors)

    def _direct(self, ports: Iterable[PodPort]) -> list[Socket]:
        wanted = {port.number for port in ports}
        if not wanted:
            return []
        try:
            found = self._all(diag.TCP, (diag.ESTABLISHED, diag.CLOSE_WAIT))
        except OSError as error:
            log.warning("the kernel does not report which connections exist: %s", error)
            return []
        return [each for each in found if each.port in wanted and not self._own(each)]

    def _own(self, sock: Socket) -> bool:
        """From this pod itself: Envoy's, or the app's with itself."""
        return sock.remote.is_loopback or sock.remote == self._address

    def _all(self, protocol: int, states: tuple[int, ...]) -> list[Socket]:
        bodies = (
            body for family in _FAMILIES for body in self._netlink.dump(diag.sockets_dump(family, protocol, states))
        )
        return [found for found in map(diag.parse_socket, bodies) if found is not None]
