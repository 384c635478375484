"""DNS integration by systemd-resolved: our forwarder is the server of the TUN device. Removed with the device.

Through busctl, which comes with systemd wherever resolved can run; resolvectl is a package of its own on some systems.
Source: org.freedesktop.resolve1(5).
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from meshdev.errors import DnsError
from meshdev.helper.bus import BUS, SystemBus
from meshdev.helper.dns import ListenerPair, Watched, listener_at
from meshdev.helper.in_place import replace_content
from meshdev.helper.sockets import DNS_PORT
from meshdev.host.dns import STUBS, claimed_domains, routing_domains, search_first
from meshdev.tun.linux import NAME_PATTERN
from meshdev.wire.dbus import link_path
from meshdev.wire.resolv_conf import ResolvConf

#: The servers of all links, for programs that bypass the stub: systemd-resolved.service(8).
_UPLINKS: Final = Path("/run/systemd/resolve/resolv.conf")
#: The stub, for programs that read resolv.conf: systemd-resolved.service(8).
_STUB: Final = Path("/run/systemd/resolve/stub-resolv.conf")
_SECONDS: Final = 2
_AF_INET: Final = "2"
_OURS: Final = NAME_PATTERN.partition("%")[0]
_SERVICE: Final = "org.freedesktop.resolve1"
#: What decides where queries go. resolved does not signal their changes, so they are polled.
_COMPARED: Final = ("DNS", "Domains", "DefaultRoute", "DNSOverTLS", "DNSSEC")


class ResolvedDns:
    """See :class:`~meshdev.helper.dns.DnsIntegration`. *link* gives the index of the device and our address."""

    def __init__(self, link: Callable[[], tuple[int, IPv4Address]]) -> None:
        self._link = link
        self._file = Watched(_UPLINKS)
        self._listener: ListenerPair | None = None
        self._applied: tuple[IPv4Address, tuple[str, ...], tuple[str, ...]] | None = None
        self._touched: int | None = None
        self._search: tuple[str, ...] = ()
        self._names: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self._ordered: tuple[int, int] | None = None
        self._unordered = False
        self._bus = SystemBus()
        self._settings: tuple[bytes, ...] = ()

    def listen(self) -> list[ListenerPair]:
        """Port 53 of the session's address; another address, another listener."""
        _, address = self._link()
        self._listener = listener_at(address, DNS_PORT, self._listener)
        return [self._listener]

    def activate(self, search: tuple[str, ...], domains: tuple[str, ...]) -> None:
        """Set server and domains of our link, the domains last."""
        index, address = self._link()
        if self._applied == (address, search, domains):
            return
        fresh = self._applied is None or self._applied[0] != address or self._read(index) != self._settings
        self._names = (search, domains)
        self._touched, self._search = index, search  # from the first call on there is something to revert
        number = str(index)
        if fresh:  # else every new namespace would make resolved probe its server again
            self._set_up(number, address)
        _call("SetLinkDefaultRoute", "ib", number, "true" if "." in domains else "false")
        routed = routing_domains(search, domains, _claimed_elsewhere())
        names = [(name, "false") for name in search] + [(name, "true") for name in routed]
        _call("SetLinkDomains", "ia(sb)", number, str(len(names)), *(word for pair in names for word in pair))
        self._settings = self._read(index)
        self._applied = (address, search, domains)
        self._order()

    def refresh(self) -> str | None:
        """resolved follows the network by itself, but another program may have changed our settings or restarted it."""
        self._order()
        if self._touched is None or (self._applied is not None and self._read(self._touched) == self._settings):
            return None
        self._applied = None
        self.activate(*self._names)
        return "the settings of our link were changed in systemd-resolved, or lost by it"

    def forget_answers(self) -> None:
        """resolved keeps even SERVFAIL, for 10 s (CACHE_TTL_STRANGE_RCODE_USEC of resolved-dns-cache.c)."""
        self._bus.call(_SERVICE, "/org/freedesktop/resolve1", f"{_SERVICE}.Manager", "FlushCaches")

    def withdraw(self) -> None:
        """Revert all settings of our link; those of a removed one are gone already."""
        self._applied = None
        if self._touched is not None:
            try:
                _call("RevertLink", "i", str(self._touched))
            except DnsError:
                if self._touched in dict(socket.if_nameindex()):
                    raise
            self._touched, self._search = None, ()

    def former(self) -> ResolvConf:
        """The servers of the other links."""
        found = self._file.read()
        ours = STUBS if self._listener is None else STUBS | {self._listener.at.address}
        return ResolvConf(
            tuple(server for server in found.nameservers if server not in ours),
            tuple(name for name in found.search if name not in self._search),
        )

    def close(self) -> None:
        """Close the listener."""
        if self._listener is not None:
            self._listener.close()
        self._bus.close()

    def _set_up(self, number: str, address: IPv4Address) -> None:
        _call("SetLinkDNS", "ia(iay)", number, "1", _AF_INET, "4", *map(str, address.packed))
        # The forwarder speaks plain DNS and does not sign; a different default of the laptop must not apply here.
        _call("SetLinkDNSOverTLS", "is", number, "no")
        _call("SetLinkDNSSEC", "is", number, "no")
        # Nothing in the cluster answers multicast queries.
        _call("SetLinkLLMNR", "is", number, "no")
        _call("SetLinkMulticastDNS", "is", number, "no")

    def _order(self) -> None:
        """Put the cluster's search domains before those of other links, for programs that read resolv.conf.

        resolved rewrites the file with each change of a link, the removal of ours among them: there is nothing to undo.
        """
        try:
            status = _STUB.stat()
            if (status.st_ino, status.st_mtime_ns) == self._ordered:
                return
            status = _order_file(_STUB, self._search)
        except OSError as error:
            if not self._unordered:
                print(f"helper: the order of search domains is left to resolved: {error}", file=sys.stderr, flush=True)
            self._unordered = True
        else:
            self._ordered = (status.st_ino, status.st_mtime_ns)

    def _read(self, index: int) -> tuple[bytes, ...]:
        """resolved's properties of the link, encoded: compared with those right after our calls."""
        return self._bus.properties(_SERVICE, link_path(index), f"{_SERVICE}.Link", _COMPARED)


def _order_file(path: Path, search: tuple[str, ...]) -> os.stat_result:
    """Put *search* first in the file, which is read and written by one descriptor: should resolved rename a newer one
    there meanwhile, that one is neither overwritten nor taken for ordered. Raises OSError."""
    # The directory belongs to resolved: a link there is not followed, a pipe not waited for.
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        text = (file.read() or b"").decode(errors="surrogateescape")
        if (ordered := search_first(text, search)) != text:
            replace_content(file.fileno(), ordered.encode(errors="surrogateescape"))
        return os.fstat(file.fileno())


def _claimed_elsewhere() -> frozenset[str]:
    """The domains for which other links, or the machine's configuration, have servers of their own."""
    answer = _busctl("get-property", _SERVICE, "/org/freedesktop/resolve1", f"{_SERVICE}.Manager", "Domains")
    # Another user's connection claims the same domains, with the same right.
    ours = frozenset(index for index, name in socket.if_nameindex() if name.startswith(_OURS))
    return claimed_domains(answer, ours)


def resolved_answers() -> bool:
    """Whether systemd-resolved is on the system bus; asking does not start it."""
    if not BUS.is_socket():
        return False
    arguments = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameHasOwner")
    try:
        return _busctl("call", *arguments, "s", "org.freedesktop.resolve1").strip() == "b true"
    except DnsError:
        return False


def _call(method: str, *arguments: str) -> None:
    manager = ("org.freedesktop.resolve1", "/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager")
    _busctl("call", *manager, method, *arguments)


def _busctl(verb: str, *arguments: str) -> str:
    options = ("--system", "--auto-start=no", "--allow-interactive-authorization=no", f"--timeout={_SECONDS}")
    try:
        done = subprocess.run(
            ["busctl", *options, verb, "--", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS + 1,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DnsError(f"systemd-resolved cannot be asked: {error}") from error
    if done.returncode:
        raise DnsError(f"systemd-resolved refused {arguments[3]}: {done.stderr.strip()[:300]}")
    return done.stdout
