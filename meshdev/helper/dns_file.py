"""DNS by resolv.conf in place: the last way, where nftables cannot redirect."""

from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from meshdev.errors import DnsError
from meshdev.helper.dns import ListenerPair
from meshdev.helper.journal import RESOLV_CONF, Journal
from meshdev.helper.resolv_conf import OwnResolvConf
from meshdev.helper.sockets import DNS_PORT
from meshdev.host.dns import ResolvConf

#: Nobody else listens there: resolved has .53 and .54, Docker .11, dnsmasq .1.
_CANDIDATES: Final = tuple(IPv4Address(f"127.0.0.{host}") for host in (153, 154, 155))


class FileDns:
    """See :class:`~meshdev.helper.dns.DnsIntegration`."""

    def __init__(self, journal: Journal, path: Path = RESOLV_CONF) -> None:
        self._file = OwnResolvConf(journal, path)
        self._ear: ListenerPair | None = None
        self._search: tuple[str, ...] = ()

    def listen(self) -> list[ListenerPair]:
        """Port 53 of a loopback address: resolv.conf has no room for a port."""
        if self._ear is None:
            self._ear = _first_free()
        return [self._ear]

    def activate(self, search: tuple[str, ...], domains: tuple[str, ...]) -> None:  # noqa: ARG002 -- see DnsIntegration
        """Journal the former file, then write ours into it."""
        if self._ear is None:
            raise DnsError("set_dns without dns_sockets")
        self._search = search
        self._file.write(self._ear.at.address, search)

    def refresh(self) -> str | None:
        """Somebody (a DHCP client) wrote another file: that is the former one now."""
        if not self._file.replaced():
            return None
        self.activate(self._search, ())
        return f"{self._file.path} was written by another program"

    def forget_answers(self) -> None:
        """There is no cache on this way."""

    def withdraw(self) -> None:
        """Write the former file back unless somebody else wrote one meanwhile."""
        self._file.withdraw()

    def former(self) -> ResolvConf:
        """The file as it was before us."""
        return self._file.former()

    def close(self) -> None:
        """Close the listener."""
        if self._ear is not None:
            self._ear.close()


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
