"""The laptop's DNS: our resolv.conf, and by which DNS integration questions reach the forwarder (docs/design/0005).

The decision is a function of an Env, with a one-line trace: the test's table shows input, integration and reason.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from meshdev.wire.helper.limits import Integration
from meshdev.wire.resolv_conf import ResolvConf, domain_name, parse_resolv_conf
from meshdev.wire.values import IPAddress

#: Where systemd-resolved listens for programs that read resolv.conf: systemd-resolved.service(8).
STUBS: Final = frozenset({IPv4Address("127.0.0.53"), IPv4Address("127.0.0.54")})
#: The first line of every resolv.conf of ours, which distinguishes it from one that another program wrote.
MARKER: Final = (
    "# meshdev: DNS goes through the cluster; `meshdev disconnect` or `meshdev restore` puts the former file back\n"
)
#: Prefix of each line of the former file in ours.
_KEPT: Final = b"#| "
_DOMAIN: Final = re.compile(r'(\d+) "([^"]*)" (?:true|false)')
_LINE: Final = re.compile(rb"[^\n]*\n|[^\n]+")


@dataclass(frozen=True, slots=True)
class Env:
    """What the decision depends on. ``firewall``: None when nftables can redirect, else the reason why not."""

    resolv_conf: ResolvConf
    resolved: bool
    firewall: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The integration, and a trace of how it was chosen."""

    integration: Integration
    why: str


def decide(env: Env) -> Decision:
    """resolved where programs ask it · a redirect of port 53 where the kernel can · else resolv.conf in place."""
    servers = env.resolv_conf.asked
    stub = all(server in STUBS for server in servers)
    trace = f"nameservers={','.join(map(str, servers))} stub={_yes(stub)} resolved={_yes(env.resolved)}"
    # That resolved runs is not enough: where resolv.conf names other servers, many programs never ask it.
    if stub and env.resolved:
        return Decision("resolved", trace)
    if env.firewall is None:
        return Decision("redirect", f"{trace} nft=yes")
    return Decision("file", f"{trace} nft=no ({env.firewall})")


def render_resolv_conf(content: bytes, nameserver: IPAddress | None, search: tuple[str, ...]) -> bytes:
    """A resolv.conf with *search* before the former search list and *nameserver* as its only server.

    None: the former servers. The former *content* is kept in it as comments, because /run, and with it the journal, is
    lost when the machine loses power.
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
    """The search list that resolvers use: by default the domain of the machine's own name (resolv.conf(5))."""
    domain = domain_name(hostname.partition(".")[2])
    return conf.search or ((domain,) if domain else ())


def search_first(text: str, ours: tuple[str, ...]) -> str:
    """Move *ours* to the front of each search list of the resolv.conf *text* that has them; change nothing else.

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
    """The former content, from a file that :func:`render_resolv_conf` made."""
    return b"".join(line.removeprefix(_KEPT) for line in _LINE.findall(content) if line.startswith(_KEPT))


def search_list(ours: tuple[str, ...], former: tuple[str, ...]) -> tuple[str, ...]:
    """The cluster's names first, then the laptop's own, each once."""
    return tuple(dict.fromkeys((*ours, *former)))


def claimed_domains(domains: str, ours: frozenset[int]) -> frozenset[str]:
    """The domains of links other than *ours* in resolved's property ``Domains`` (a(isb)), as busctl prints it."""
    return frozenset(name.lower().rstrip(".") for link, name in _DOMAIN.findall(domains) if int(link) not in ours)


def routing_domains(search: tuple[str, ...], domains: tuple[str, ...], elsewhere: frozenset[str]) -> tuple[str, ...]:
    """The routing-only domains of our link: *domains* without those in *search* and those that other links claim.

    The cluster's own domain, the last of the search list, and ``svc`` are routed here in any case.
    """
    return tuple(
        name
        for name in domains
        if name not in search
        and (name not in elsewhere or name == "svc" or any(entry.endswith(f".{name}") for entry in search))
    )


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"
