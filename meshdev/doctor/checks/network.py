"""This machine's network."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from meshdev.config import ADDRESS_POOLS
from meshdev.doctor.checks.facts import DoctorFacts
from meshdev.doctor.runner import DoctorCheck, NotExaminedError
from meshdev.doctor.verdicts import network
from meshdev.doctor.verdicts.finding import Finding
from meshdev.doctor.verdicts.network import DnsFacts, FirewallFacts, RangeFacts, TranslationFacts, Vpn, VpnFacts
from meshdev.errors import FirewallError, MeshdevError, RouteError
from meshdev.helper.dns import Watched
from meshdev.helper.dns_resolved import resolved_answers
from meshdev.helper.journal import RESOLV_CONF, is_ours
from meshdev.helper.translations import TranslationFinder
from meshdev.host import dns
from meshdev.host.journal import TABLE_PREFIX
from meshdev.host.translations import TRANSLATED
from meshdev.netlink.links import KernelLink, links_dump, parse_link
from meshdev.netlink.lookups import parse_rule, rules_dump
from meshdev.netlink.sock import Netlink
from meshdev.nft import Nftables
from meshdev.session.surroundings import OURS
from meshdev.wire.session_api import Status

GROUP: Final = "Network of this machine"
#: Of asking systemd, each time.
_SYSTEMD_SECONDS: Final = 2.0
_UFW: Final = Path("/etc/ufw/ufw.conf")
_UFW_ON: Final = re.compile(r"^\s*ENABLED\s*=\s*[\"']?yes", re.MULTILINE | re.IGNORECASE)
#: The kernel's own tables: local, main, default.
_USUAL_TABLES: Final = frozenset({253, 254, 255})
_BY_NAME: Final = (("tailscale", "Tailscale"), ("wg", "WireGuard"), ("zt", "ZeroTier"), ("ppp", "PPP"))


def checks(facts: DoctorFacts) -> tuple[DoctorCheck, ...]:
    """Without the API server some of these compare with less."""

    async def names() -> Finding:
        status = await facts.status.needed()
        return network.dns(await asyncio.to_thread(_dns, status.state != "disconnected"))

    async def ranges() -> Finding:
        return network.ranges(RangeFacts(await _ranges(facts), await facts.laptop.needed()))

    async def vpns() -> Finding:
        laptop, needed = await facts.laptop.needed(), (*await _ranges(facts), *ADDRESS_POOLS)
        others, rules = await asyncio.to_thread(_vpns)
        return network.vpns(VpnFacts(others, laptop.routes, needed, rules))

    async def translations() -> Finding:
        cluster = await _ranges(facts)
        status = await facts.status.needed()
        return network.translations(await asyncio.to_thread(_translations, cluster, status))

    async def firewall() -> Finding:
        return network.firewall(await asyncio.to_thread(_firewall))

    return (
        DoctorCheck("dns", GROUP, names, needs=[facts.status]),
        DoctorCheck("address-ranges", GROUP, ranges, needs=[facts.laptop], uses=[facts.ranges]),
        DoctorCheck("vpn", GROUP, vpns, needs=[facts.laptop], uses=[facts.ranges]),
        DoctorCheck("dnat", GROUP, translations, needs=[facts.status], uses=[facts.ranges]),
        DoctorCheck("firewall", GROUP, firewall),
    )


async def _ranges(facts: DoctorFacts) -> tuple[IPv4Network, ...]:
    """Empty where they are not known."""
    try:
        return await facts.ranges.get()
    except (MeshdevError, NotExaminedError):
        return ()


def _dns(connected: bool) -> DnsFacts:
    conf = Watched(RESOLV_CONF).read()
    resolved = set(conf.asked) <= dns.STUBS and resolved_answers()
    return DnsFacts(
        decision=dns.decide(dns.Env(conf, resolved, _nftables()[0])),
        exists=RESOLV_CONF.exists(),
        ours=is_ours(RESOLV_CONF),
        connected=connected,
        writable=not (RESOLV_CONF.exists() and os.statvfs(RESOLV_CONF).f_flag & os.ST_RDONLY),
    )


def _nftables() -> tuple[str | None, tuple[str, ...] | None]:
    """Why it cannot be used, or None; and the chains of others that drop, None where they may not be read."""
    try:
        library = Nftables()
    except FirewallError as error:
        return error.message, None
    try:
        if os.geteuid() != 0:
            return None, None
        chains = network.dropping_chains(library.show("list chains"))
        return None, tuple(each for each in chains if f" {TABLE_PREFIX}" not in each)
    except FirewallError as error:
        return error.message, None
    finally:
        library.close()


def _firewall() -> FirewallFacts:
    unusable, dropping = _nftables()
    managers = ["ufw"] if _ufw_is_on() else []
    if shutil.which("systemctl") and _is_active("firewalld"):
        managers.append("firewalld")
    return FirewallFacts(unusable, managers, dropping)


def _ufw_is_on() -> bool:
    try:
        return _UFW_ON.search(_UFW.read_text(errors="replace")) is not None
    except OSError:
        return False


def _is_active(unit: str) -> bool:
    try:
        done = subprocess.run(
            ["systemctl", "is-active", "--quiet", unit],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SYSTEMD_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _vpns() -> tuple[list[Vpn], list[int]]:
    """Devices of other VPNs that are up, and the tables that policy rules consult before the main one."""
    try:
        with Netlink() as netlink:
            links = [link for body in netlink.dump(links_dump()) if (link := parse_link(body))]
            rules = [rule for body in netlink.dump(rules_dump()) if (rule := parse_rule(body))]
    except OSError as error:
        raise RouteError(f"the kernel does not list its devices: {error.strerror}") from error
    found = [Vpn(link.name, kind) for link in links if link.up and (kind := vpn_kind(link))]
    return found, sorted({rule.table for rule in rules} - _USUAL_TABLES)


def vpn_kind(link: KernelLink) -> str:
    """What that device is to people; empty for one that is no VPN's, or ours."""
    if OURS.fullmatch(link.name):
        return ""
    if link.kind == "wireguard":
        return "WireGuard"
    named = next((kind for prefix, kind in _BY_NAME if link.name.startswith(prefix)), "")
    if link.kind in {"tun", "ppp"} or named:
        return (named or "TUN device") if link.tunnel else ""
    return ""


def _translations(cluster: Sequence[IPv4Network], status: Status) -> TranslationFacts:
    if os.geteuid() == 0:
        return TranslationFacts(TranslationFinder().find(cluster), cluster)
    if status.state in {"connected", "degraded"}:
        return TranslationFacts([note for note in status.notes if TRANSLATED in note], cluster, session=True)
    return TranslationFacts(None, cluster)
