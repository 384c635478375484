"""resolv.conf(5) as programs read it. Pure."""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from meshdev.wire import values
from meshdev.wire.helper.limits import MAX_NAMES, MAX_UPSTREAMS
from meshdev.wire.values import IPAddress

#: Without a nameserver line programs ask the one on this machine.
_DEFAULT_NAMESERVER: Final = IPv4Address("127.0.0.1")
_LARGEST: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """Nameservers in order, search list, options as written."""

    nameservers: tuple[IPAddress, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def asked(self) -> tuple[IPAddress, ...]:
        """The servers that programs ask: at least one."""
        return self.nameservers or (_DEFAULT_NAMESERVER,)


def parse_resolv_conf(text: str) -> ResolvConf:
    """Parse a resolv.conf; invalid lines are skipped, as resolvers do."""
    nameservers: dict[IPAddress, None] = {}
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text[:_LARGEST].splitlines():
        match line.split():
            case ["nameserver", server, *_]:
                address = _address(server)
                if address is not None:
                    nameservers[address] = None
            case ["search" | "domain", *names]:  # the last one counts
                search = tuple(dict.fromkeys(filter(None, map(domain_name, names))))
            case ["options", *words]:
                options += [word for word in words if word.isascii() and word.isprintable()]
    return ResolvConf(tuple(nameservers)[:MAX_UPSTREAMS], search[:MAX_NAMES], tuple(options[:MAX_NAMES]))


def domain_name(text: str) -> str | None:
    """*text* as an entry of a search list; None for the root, and for what is not a name."""
    try:
        name = values.name(text.lower().removesuffix("."))
    except ValueError:
        return None
    return None if name == "." else name


def _address(text: str) -> IPAddress | None:
    try:
        return values.address(text)
    except ValueError:
        return None
