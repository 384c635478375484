"""Whether a program listens on the local ports of intercepts, and where connections are forwarded then."""

import asyncio
import contextlib
import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal

from meshdev.isolation.network import THIS_NETWORK, NetworkSockets
from meshdev.netlink import diag
from meshdev.netlink.sock import Netlink
from meshdev.session.copier import Copier, Program, open_copier
from meshdev.wire.ports import TRANSPORTS, Transport

log = logging.getLogger(__name__)

#: The kernel does not announce sockets that come and go: it is polled. One question takes some 50 µs.
LOOK_SECONDS: Final = 0.05

_ANY: Final = IPv4Address(0)
_IPV4: Final = IPv4Address("127.0.0.1")
_IPV6: Final = IPv6Address("::1")
_PROTOCOLS: Final[dict[Transport, int]] = {"tcp": diag.TCP, "udp": diag.UDP}
#: A listener, or a socket of UDP that is bound and not connected.
_OPEN: Final[dict[Transport, int]] = {"tcp": diag.LISTEN, "udp": diag.UNCONNECTED}
#: Nobody listens; a kernel without IPv6.
_NOBODY: Final = frozenset({errno.ENOENT, errno.EINVAL, errno.EAFNOSUPPORT})

#: "any": a socket of UDP that is bound to no address. Its answers come from the address that is routed back.
Family = Literal["ipv4", "ipv6", "any"]
#: By what the loopback of this machine is answered at a port; IPv4 first. Raises OSError where the kernel fails.
Look = Callable[[int, Transport], Family | None]


@dataclass(frozen=True, slots=True)
class LocalTarget:
    """Where the helper forwards connections; 0.0.0.0 stands for the session's own address."""

    address: IPv4Address
    port: int


Changed = Callable[[LocalTarget | None], None]


@dataclass(eq=False, slots=True)
class _Watcher:
    changed: Changed
    notified: bool = False


@dataclass(eq=False, slots=True)
class _Port:
    number: int
    transport: Transport
    target: LocalTarget | None = None
    copier: Copier | None = None
    program: Program | None = None
    """Where the copier copies to."""
    watchers: list[_Watcher] = field(default_factory=list)


class LocalPorts:
    """The watched ports of one session. Nothing is asked while nothing is watched. Needs no privilege.

    Listeners count that take what is sent to 127.0.0.1 of the programs' network; one of ``::1`` only, and one in
    another network than the relays', gets a copier in front, which runs as long as that listener exists.
    """

    def __init__(
        self,
        network: NetworkSockets = THIS_NETWORK,
        programs: NetworkSockets = THIS_NETWORK,
        look: Callable[[], AbstractContextManager[Look]] | None = None,
    ) -> None:
        """*network*: where relays end. *programs*: where the programs listen."""
        self._network = network
        self._programs = programs
        self._look = look or partial(kernel_look, programs)
        self._ports: dict[tuple[int, Transport], _Port] = {}
        self._some = asyncio.Event()

    async def run(self) -> None:
        """Look until cancelled; connections through copiers are reset then."""
        with self._look() as look:
            async with asyncio.TaskGroup() as connections:
                try:
                    while True:
                        await self._some.wait()
                        for port in list(self._ports.values()):
                            await self._refresh(port, look, connections)
                        await asyncio.sleep(LOOK_SECONDS)
                finally:
                    for port in self._ports.values():
                        _close(port)

    def watch(self, port: int, transport: Transport, changed: Changed) -> Callable[[], None]:
        """Have *changed* called at the next look and whenever its argument changes; None: nobody listens.

        Returns what ends that; a second call of it does nothing.
        """
        watched = self._ports.setdefault((port, transport), _Port(port, transport))
        watcher = _Watcher(changed)
        watched.watchers.append(watcher)
        self._some.set()

        def stop() -> None:
            with contextlib.suppress(ValueError):
                watched.watchers.remove(watcher)
            if not watched.watchers and self._ports.get((port, transport)) is watched:
                del self._ports[port, transport]
                _close(watched)
            if not self._ports:
                self._some.clear()

        return stop

    async def _refresh(self, port: _Port, look: Look, connections: asyncio.TaskGroup) -> None:
        before = port.target
        try:
            port.target = await self._find(port, look(port.number, port.transport), connections)
        except OSError as error:
            log.debug("cannot find who listens on %d/%s: %s", port.number, port.transport, error)
        for watcher in list(port.watchers):
            if watcher in port.watchers and (not watcher.notified or port.target != before):
                watcher.notified = True
                watcher.changed(port.target)

    async def _find(self, port: _Port, family: Family | None, connections: asyncio.TaskGroup) -> LocalTarget | None:
        if family is None or (family != "ipv6" and self._programs is self._network):
            _close(port)
            return LocalTarget(_ANY if family == "any" else _IPV4, port.number) if family else None
        program = Program(self._programs, "::1" if family == "ipv6" else "127.0.0.1", port.number)
        if port.copier is None or port.program != program:
            _close(port)
            port.copier = await open_copier(self._network, program, port.transport, connections)
            port.program = program
            if not port.watchers:  # stopped meanwhile
                _close(port)
                return None
        return LocalTarget(_IPV4, port.copier.port)


def _close(port: _Port) -> None:
    if port.copier is not None:
        port.copier.close()
        port.copier = None


@contextmanager
def kernel_look(network: NetworkSockets = THIS_NETWORK) -> Iterator[Look]:
    """Looks at the sockets of that network.

    Where the kernel does not list a protocol's sockets everything counts as open: at a closed port connections are
    refused.
    """
    with contextlib.ExitStack() as undo:
        netlink: Netlink | None = None
        try:
            netlink = undo.enter_context(Netlink(diag.NETLINK_SOCK_DIAG, network.open_socket))
        except OSError as error:
            log.warning("the kernel does not list who listens: %s", error)
        known = {each for each in TRANSPORTS if netlink is not None and _answers(netlink, each)}

        def look(port: int, transport: Transport) -> Family | None:
            if netlink is None or transport not in known:
                return "ipv4"
            found = _open(netlink, _IPV4, port, transport)
            if found is not None:
                return "any" if transport == "udp" and found.local.is_unspecified else "ipv4"
            return "ipv6" if _open(netlink, _IPV6, port, transport) is not None else None

        yield look


def _answers(netlink: Netlink, transport: Transport) -> bool:
    try:
        netlink.dump(diag.sockets_dump(diag.AF_INET, _PROTOCOLS[transport], ()))
    except OSError as error:
        log.warning("the kernel does not list who listens by %s: %s", transport, error)
        return False
    return True


def _open(netlink: Netlink, address: IPv4Address | IPv6Address, port: int, transport: Transport) -> diag.Socket | None:
    """The socket that takes what is sent there."""
    try:
        bodies = netlink.dump(diag.socket_at(address, port, _PROTOCOLS[transport]))
    except OSError as error:
        if error.errno in _NOBODY:
            return None
        raise
    return next(
        (found for body in bodies if (found := diag.parse_socket(body)) and found.state == _OPEN[transport]), None
    )
