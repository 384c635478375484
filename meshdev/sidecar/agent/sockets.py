"""Who listens in this pod, and which connections are older than the redirect."""

import logging
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from typing import Final

from meshdev.netlink import diag
from meshdev.netlink.diag import Socket
from meshdev.netlink.sock import Netlink
from meshdev.wire.agent import PodPort
from meshdev.wire.ports import Transport

log = logging.getLogger(__name__)

_FAMILIES: Final = (diag.AF_INET, diag.AF_INET6)
#: In which a client's socket may be while the server's is open.
_CLIENTS: Final = (
    diag.SYN_SENT,
    diag.ESTABLISHED,
    diag.FIN_WAIT1,
    diag.FIN_WAIT2,
    diag.CLOSE_WAIT,
    diag.CLOSING,
    diag.LAST_ACK,
    diag.TIME_WAIT,
)


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
        """How many connections from outside each of these ports has itself: none of them was redirected."""
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
        wanted = {port.number.to_bytes(2, "big") for port in ports}
        if not wanted:
            return []
        try:
            # As bytes: there may be thousands, and this happens each second.
            bodies = self._bodies(diag.TCP, (diag.ESTABLISHED, diag.CLOSE_WAIT))
            found = [body for body in bodies if diag.ends(body)[:2] in wanted]
            # After the others: of a connection that exists by now the client's socket has been there for longer.
            here = {diag.ends(body) for body in self._bodies(diag.TCP, _CLIENTS)} if found else set()
        except OSError as error:
            log.warning("the kernel does not report which connections exist: %s", error)
            return []
        direct = [diag.parse_socket(body) for body in found if diag.mirror(body) not in here]
        return [each for each in direct if each is not None and not self._own(each)]

    def _own(self, sock: Socket) -> bool:
        """From this pod itself: Envoy's, or the app's with itself. The worker's have their clients' addresses."""
        return sock.remote.is_loopback or sock.remote == self._address

    def _all(self, protocol: int, states: tuple[int, ...]) -> list[Socket]:
        return [found for found in map(diag.parse_socket, self._bodies(protocol, states)) if found is not None]

    def _bodies(self, protocol: int, states: tuple[int, ...]) -> Iterator[memoryview]:
        for family in _FAMILIES:
            yield from self._netlink.dump(diag.sockets_dump(family, protocol, states))
