"""The laptop's DNS: what its files say, and which way of reaching our forwarder fits (docs/design/0005).

A decision is a function of an Env, with a one-line trace: the test table shows input, way and why.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from meshdev.wire import values
from meshdev.wire.helper.limits import MAX_NAMES, MAX_UPSTREAMS, Integration
from meshdev.wire.values import IPAddress

#: Where systemd-resolved listens for programs that read resolv.conf: systemd-resolved.service(8).
STUBS: Final = frozenset({IPv4Address("127.0.0.53"), IPv4Address("127.0.0.54")})
#: resolv.conf(5): without a nameserver line the one on this machine is asked.
_DEFAULT_NAMESERVER: Final = IPv4Address("127.0.0.1")
_LARGEST: Final = 64 * 1024
#: Begins every resolv.conf of ours, and so tells it from one that somebody else wrote meanwhile.
MARKER: Final = (
    "# meshdev: DNS goes through the cluster; `meshdev disconnect` or `meshdev restore` puts the former file back\n"
)
#: Begins each line of the former file in ours.
_KEPT: Final = b"#| "
_DOMAIN: Final = re.compile(r'(\d+) "([^"]*)" (?:true|false)')
_LINE: Final = re.compile(rb"[^\n]*\n|[^\n]+")


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """/etc/resolv.conf: nameservers in order, search list, options as they were written."""

    nameservers: tuple[IPAddress, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def asked(self) -> tuple[IPAddress, ...]:
        """Whom programs ask: at least one server."""
        return self.nameservers or (_DEFAULT_NAMESERVER,)


@dataclass(frozen=True, slots=True)
class Env:
    """What the decision depends on. ``firewall``: None when nftables can redirect, else why it cannot."""

    resolv_conf: ResolvConf
    resolved: bool
    firewall: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The way, and the trace of how it was found."""

    way: Integration
    why: str


def decide(env: Env) -> Decision:
    """resolved where programs ask it · a redirect of port 53 where the kernel can · else resolv.conf in place."""
    servers = env.resolv_conf.asked
    stub = all(server in STUBS for server in servers)
    trace = f"nameservers={','.join(map(str, servers))} stub={_yes(stub)} resolved={_yes(env.resolved)}"
    # resolved alone is not enough: where resolv.conf names other servers, many programs never ask it.
    if stub and env.resolved:
        return Decision("resolved", trace)
    if env.firewall is None:
        return Decision("redirect", f"{trace} nft=yes")
    return Decision("file", f"{trace} nft=no ({env.firewall})")


def parse_resolv_conf(text: str) -> ResolvConf:
    """What resolv.conf(5) lets a program see; lines that mean nothing are skipped, as resolvers do."""
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
                search = tuple(dict.fromkeys(filter(None, map(_name, names))))
            case ["options", *words]:
                options += [word for word in words if word.isascii() and word.isprintable()]
    return ResolvConf(tuple(nameservers)[:MAX_UPSTREAMS], search[:MAX_NAMES], tuple(options[:MAX_NAMES]))


def render_resolv_conf(content: bytes, nameserver: IPAddress | None, search: tuple[str, ...]) -> bytes:
    """A resolv.conf with *search* before the former search list, that asks *nameserver* alone; None: whom it did.

    The former *content* is kept in it as comments: /run, and the journal with it, does not outlive the machine's power.
    """
    former = parse_resolv_conf(content.decode(errors="replace"))
    names = search_list(search, former.search)
    lines = [f"nameserver {server}\n" for server in ([nameserver] if nameserver else former.nameservers)]
    if names:
        lines.append(f"search {' '.join(names)}\n")
    if former.options:
        lines.append(f"options {' '.join(former.options)}\n")
    return (MARKER + "".join(lines)).encode() + b"".join(_KEPT + line for line in _LINE.findall(content))


def search_in_force(conf: ResolvConf, hostname: str) -> tuple[str, ...]:
    """The search list that resolvers use: without one, the domain of the machine's own name (resolv.conf(5))."""
    domain = _name(hostname.partition(".")[2])
    return conf.search or ((domain,) if domain else ())


def search_first(text: str, ours: tuple[str, ...]) -> str:
    """The resolv.conf *text* with *ours* at the beginning of each search list that has them; nothing else changed.

    systemd-resolved writes the search domains of all links in the order of a hash table.
    """

    def ordered(line: str) -> str:
        words = line.split()
        if words[:1] != ["search"]:
            return line
        names = [name for name in ours if name in words] + [name for name in words[1:] if name not in ours]
        return " ".join(["search", *names]) + line[len(line.rstrip()) :]

    return "".join(map(ordered, text.splitlines(keepends=True)))


def former_content(content: bytes) -> bytes:
    """The former content, of one that :func:`render_resolv_conf` made."""
    return b"".join(line.removeprefix(_KEPT) for line in _LINE.findall(content) if line.startswith(_KEPT))


def search_list(ours: tuple[str, ...], former: tuple[str, ...]) -> tuple[str, ...]:
    """The cluster's names first, then the laptop's own, each once."""
    return tuple(dict.fromkeys((*ours, *former)))


def claimed_domains(domains: str, ours: frozenset[int]) -> frozenset[str]:
    """The domains of links other than *ours* in resolved's property ``Domains`` (a(isb)), as busctl prints it."""
    return frozenset(name.lower().rstrip(".") for link, name in _DOMAIN.findall(domains) if int(link) not in ours)


def routing_domains(search: tuple[str, ...], domains: tuple[str, ...], elsewhere: frozenset[str]) -> tuple[str, ...]:
    """The routing-only domains of our link: *domains* less those in *search*, and less what is another's already.

    The cluster's own domain, which ends the search list, and ``svc`` are asked for here in any case.
    """
    return tuple(
        name
        for name in domains
        if name not in search
        and (name not in elsewhere or name == "svc" or any(entry.endswith(f".{name}") for entry in search))
    )


def _address(text: str) -> IPAddress | None:
    try:
        return values.address(text)
    except ValueError:
        return None


def _name(text: str) -> str | None:
    try:
        name = values.name(text.lower().removesuffix("."))
    except ValueError:
        return None
    return None if name == "." else name


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"
