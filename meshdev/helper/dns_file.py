"""DNS integration by a resolv.conf written in place: the last choice, where nftables cannot redirect."""

from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from meshdev.errors import DnsError
from meshdev.helper.dns import ListenerPair
from meshdev.helper.journal import RESOLV_CONF, Journal
from meshdev.helper.resolv_conf import OwnResolvConf
from meshdev.helper.sockets import DNS_PORT
from meshdev.wire.resolv_conf import ResolvConf

#: Not used by others: resolved listens at .53 and .54, Docker at .11, dnsmasq at .1.
_CANDIDATES: Final = tuple(IPv4Address(f"127.0.0.{host}") for host in (153, 154, 155))


class FileDns:
    """See :class:`~meshdev.helper.dns.DnsIntegration`."""

    def __init__(self, journal: Journal, path: Path = RESOLV_CONF) -> None:
        self._file = OwnResolvConf(journal, path)
        self._listener: ListenerPair | None = None
        self._search: tuple[str, ...] = ()

    def listen(self) -> list[ListenerPair]:
        """Port 53 of a loopback address: resolv.conf has no room for a port."""
        if self._listener is None:
            self._listener = _first_free()
        return [self._listener]

    def activate(self, search: tuple[str, ...], domains: tuple[str, ...]) -> None:  # noqa: ARG002 -- see DnsIntegration
        """Journal the former file, then write ours into it."""
        if self._listener is None:
            raise DnsError("set_dns without dns_sockets")
        self._search = search
        self._file.write(self._listener.at.address, search)

    def refresh(self) -> str | None:
        """Another program (a DHCP client) wrote the file: that is the former one now."""
        if not self._file.replaced():
            return None
        self.activate(self._search, ())
        return f"{self._file.path} was written by another program"

    def forget_answers(self) -> None:
        """There is no cache to flush."""

    def withdraw(self) -> None:
        """Write the former file back unless another program wrote one meanwhile."""
        self._file.withdraw()

    def former(self) -> ResolvConf:
        """The file as it was before us."""
        return self._file.former()

    def close(self) -> None:
        """Close the listener."""
        if self._listener is not None:
            self._listener.close()


def _first_free() -> ListenerPair:
    problem = ""
    for address in _CANDIDATES:
        try:
            return ListenerPair(address, DNS_PORT)
        except OSError as error:
            problem = f"{address}: {error.strerror}"
    raise DnsError(
        f"no free loopback address for port 53 ({problem})",
        hint="a DNS server on this machine listens on all addresses: let it listen on one only, or install nftables",
    )
