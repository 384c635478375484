"""The contract of a DNS integration, which brings the laptop's queries to the forwarder, and what all of them share."""

import socket
from pathlib import Path
from typing import Protocol

from meshdev.errors import DnsError
from meshdev.helper.journal import RESOLV_CONF
from meshdev.helper.sockets import close_all, listeners
from meshdev.wire.helper.answers import ListenerAddress
from meshdev.wire.resolv_conf import ResolvConf, parse_resolv_conf
from meshdev.wire.values import IPAddress


class DnsIntegration(Protocol):
    """A DNS integration. Methods are idempotent; all raise DnsError or FirewallError."""

    def listen(self) -> "list[ListenerPair]":
        """The forwarder's listeners; the same sockets each time."""
        ...

    def activate(self, search: tuple[str, ...], domains: tuple[str, ...]) -> None:
        """Send the laptop's queries to the forwarder from now on."""
        ...

    def refresh(self) -> str | None:
        """Follow changes since :meth:`activate`: another network has other resolvers.

        Returns what other programs had changed and was restored, for people; else None.
        """
        ...

    def forget_answers(self) -> None:
        """Flush the caches on this machine between programs and forwarder."""
        ...

    def withdraw(self) -> None:
        """Send queries where they went before."""
        ...

    def former(self) -> ResolvConf:
        """The current DNS configuration of the laptop without us."""
        ...

    def close(self) -> None:
        """Close the sockets; after :meth:`withdraw`."""
        ...


class ListenerPair:
    """A UDP and a TCP listener at one address and port. They stay open here, so that copies can be passed again."""

    def __init__(self, address: IPAddress, port: int, *, machine_only: bool = True) -> None:
        """Bind both. Raises OSError when the address does not exist or the port is in use."""
        self._sockets = listeners(address, port, machine_only=machine_only)
        self.at = ListenerAddress(address, self._sockets[0].getsockname()[1])

    def copies(self) -> list[socket.socket]:
        """UDP, TCP; the caller owns them."""
        return [sock.dup() for sock in self._sockets]

    def close(self) -> None:
        """Close both."""
        close_all(self._sockets)


def listener_at(
    address: IPAddress, port: int, former: ListenerPair | None, *, machine_only: bool = True
) -> ListenerPair:
    """*former*, or a new listener in its place where that has another address. Raises DnsError."""
    if former is not None and former.at.address == address:
        return former
    if former is not None:
        former.close()
    try:
        return ListenerPair(address, port, machine_only=machine_only)
    except OSError as error:
        raise DnsError(f"no listener on {address}{f' port {port}' if port else ''}: {error.strerror}") from error


class Watched:
    """A resolv.conf, parsed again only after it changed."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._parsed = ResolvConf()

    def read(self) -> ResolvConf:
        """Its current content; empty where it does not exist."""
        try:
            status = self.path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                self._parsed = parse_resolv_conf(self.path.read_text(errors="replace"))
                self._seen = seen
        except OSError:
            return ResolvConf()
        return self._parsed
