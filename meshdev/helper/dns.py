"""The contract of a way to bring the laptop's DNS to the forwarder, and what the ways share."""

import socket
from pathlib import Path
from typing import Protocol

from meshdev.helper.journal import RESOLV_CONF
from meshdev.helper.sockets import close_all, listeners
from meshdev.host.dns import ResolvConf, parse_resolv_conf
from meshdev.wire.helper.answers import ListenerAddress
from meshdev.wire.values import IPAddress


class DnsIntegration(Protocol):
    """One way. A method called again does nothing needless; all raise DnsError or FirewallError."""

    def listen(self) -> "list[ListenerPair]":
        """Where the forwarder listens; the same sockets each time."""
        ...

    def activate(self, search: tuple[str, ...], domains: tuple[str, ...]) -> None:
        """From now on the laptop's questions come to the forwarder."""
        ...

    def refresh(self) -> str | None:
        """Follow what changed around us since :meth:`activate`: another network has other resolvers.

        What somebody else had taken from us and was put back, for people; else None.
        """
        ...

    def forget_answers(self) -> None:
        """Have a cache that this way passes forget what it was answered."""
        ...

    def withdraw(self) -> None:
        """From now on they go where they went before."""
        ...

    def former(self) -> ResolvConf:
        """What the laptop uses without us, as it stands now."""
        ...

    def close(self) -> None:
        """Close the sockets; after :meth:`withdraw`."""
        ...


class ListenerPair:
    """A UDP and a TCP listener at one address and port. Kept here too: a fresh copy can be handed out again."""

    def __init__(self, address: IPAddress, port: int, *, machine_only: bool = True) -> None:
        """Raises OSError when the address is not there or the port is taken."""
        self._sockets = listeners(address, port, machine_only=machine_only)
        self.at = ListenerAddress(address, self._sockets[0].getsockname()[1])

    def copies(self) -> list[socket.socket]:
        """UDP, TCP; the caller owns them."""
        return [sock.dup() for sock in self._sockets]

    def close(self) -> None:
        """Close both."""
        close_all(self._sockets)


class Watched:
    """A resolv.conf that is parsed again only when it changed."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._parsed = ResolvConf()

    def read(self) -> ResolvConf:
        """What it says now; nothing where it does not exist."""
        try:
            status = self.path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                self._parsed = parse_resolv_conf(self.path.read_text(errors="replace"))
                self._seen = seen
        except OSError:
            return ResolvConf()
        return self._parsed
