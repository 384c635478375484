"""DNS by resolv.conf in place: the last way, where nftables cannot redirect."""

from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from meshdev.errors import DnsError
from meshdev.helper.dns import Ear, write_in_place
from meshdev.helper.journal import RESOLV_CONF, Journal
from meshdev.helper.sockets import DNS_PORT
from meshdev.host.dns import MARKER, ResolvConf, parse_resolv_conf, render_resolv_conf
from meshdev.host.journal import RestoreFile

#: Nobody else listens there: resolved has .53 and .54, Docker .11, dnsmasq .1.
_CANDIDATES: Final = tuple(IPv4Address(f"127.0.0.{host}") for host in (153, 154, 155))


class FileDns:
    """See :class:`~meshdev.helper.dns.DnsWay`."""

    def __init__(self, journal: Journal, path: Path = RESOLV_CONF) -> None:
        self._journal = journal
        self._path = path
        self._ear: Ear | None = None
        self._entry: RestoreFile | None = None
        self._search: tuple[str, ...] = ()

    def listen(self) -> list[Ear]:
        """Port 53 of a loopback address: resolv.conf has no room for a port."""
        if self._ear is None:
            self._ear = _first_free()
        return [self._ear]

    def activate(self, search: tuple[str, ...], domains: tuple[str, ...]) -> None:  # noqa: ARG002 -- see DnsWay
        """Journal the former file, then write ours into it."""
        self._search = search
        self._write(again=self._entry is not None)

    def refresh(self) -> str | None:
        """Somebody (a DHCP client) wrote another file: that is the former one now."""
        if self._entry is None or _is_ours(self._read()):
            return None
        self.withdraw()  # ours may still stand where the name led before: it may be a link
        self._write(again=False)
        return f"{self._path} was written by another program"

    def forget_answers(self) -> None:
        """There is no cache on this way."""

    def withdraw(self) -> None:
        """Write the former file back unless somebody else wrote one meanwhile."""
        if self._entry is not None:
            restore_file(self._entry)
            self._journal.remove(self._entry)
            self._entry = None

    def former(self) -> ResolvConf:
        """The file as it was before us."""
        content = self._entry.former if self._entry is not None else self._read()
        found = parse_resolv_conf(content.decode(errors="replace"))
        return ResolvConf(found.asked, found.search, found.options)

    def close(self) -> None:
        """Close the listener."""
        if self._ear is not None:
            self._ear.close()

    def _write(self, *, again: bool) -> None:
        if self._ear is None:
            raise DnsError("set_dns without dns_sockets")
        path = self._path.resolve()
        if not again:
            self._entry = RestoreFile(str(path), self._read())
            self._journal.add(self._entry)
        former = self._entry.former if self._entry is not None else b""
        write_in_place(path, render_resolv_conf(former, self._ear.at.address, self._search))

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise DnsError(f"{self._path} cannot be read: {error.strerror}") from error


def restore_file(entry: RestoreFile) -> None:
    """Put the former content back where ours (or half of it) stands; another's is left alone."""
    path = Path(entry.path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise DnsError(f"{path} cannot be read: {error.strerror}") from error
    if _is_ours(content) and content != entry.former:
        write_in_place(path, entry.former)


def _is_ours(content: bytes) -> bool:
    """Ours, or what a machine that died while writing left of it."""
    return content.startswith(MARKER.encode()) or MARKER.encode().startswith(content)


def _first_free() -> Ear:
    problem = ""
    for address in _CANDIDATES:
        try:
            return Ear(address, DNS_PORT)
        except OSError as error:
            problem = f"{address}: {error.strerror}"
    raise DnsError(
        f"no free loopback address for port 53 ({problem})",
        hint="a DNS server on this machine listens on all addresses: let it listen on one only, or install nftables",
    )
