"""The real helper finds real rules of other programs that give the cluster's packets another destination."""

import asyncio
import socket
import sys

import pytest

from tests.netns.helpers import helper
from tests.netns.laptop import Laptop

#: As kube-proxy writes them in iptables mode.
KUBE_PROXY = """
iptables-nft -t nat -N KUBE-SERVICES
iptables-nft -t nat -N KUBE-SVC-X
iptables-nft -t nat -A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment c -m tcp --dport 443 -j KUBE-SVC-X
iptables-nft -t nat -A KUBE-SVC-X -p tcp -m tcp -j DNAT --to-destination 192.0.2.1:6443
iptables-nft -t nat -A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
"""
#: As kube-proxy writes them in nftables mode.
NFTABLES = """
nft -f - <<'.'
table ip kube-proxy {
  map service-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.10 . udp . 53 : goto service-A/kube-system/dns, 10.96.0.1 . tcp . 443 : goto service-B }
  }
  chain nat-output { type nat hook output priority -100; ip daddr . meta l4proto . th dport vmap @service-ips; }
  chain service-A/kube-system/dns { meta l4proto udp dnat to 192.0.2.1:53; }
  chain service-B { meta l4proto tcp dnat to 192.0.2.1:6443; }
}
.
"""
LEGACY = "iptables-legacy -t nat -A OUTPUT -d 10.96.0.10/32 -p udp -m udp --dport 53 -j DNAT --to-destination 192.0.2.1"
HARMLESS = """
iptables-nft -t nat -N DOCKER
iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables-nft -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
iptables-nft -t nat -A POSTROUTING -d 10.96.0.0/16 -j MASQUERADE
"""


async def found(laptop: Laptop, rules: str) -> tuple[str, ...]:
    """What a helper says once those rules are there."""
    async with helper(laptop) as connection:
        await connection.set_up()
        assert await connection.client.find_translations() == ()
        await asyncio.to_thread(laptop.run, "sh", "-ec", rules)
        return await connection.client.find_translations()


@pytest.mark.parametrize(
    ("rules", "place"),
    [
        (
            KUBE_PROXY,
            "10.96.0.1 get another destination before they reach the tunnel: table ip nat, chain KUBE-SERVICES",
        ),
        (
            NFTABLES,
            (
                "10.96.0.10 and 1 more of the cluster's addresses get another destination before they reach the "
                "tunnel: table ip kube-proxy, map service-ips"
            ),
        ),
    ],
    ids=["iptables", "nftables"],
)
async def test_a_kube_proxy_is_found_and_named(laptop: Laptop, rules: str, place: str) -> None:
    (text,) = await found(laptop, rules)
    assert text.replace("10.96.0.1 and", "10.96.0.10 and") == f"packets to {place} (a kube-proxy on this machine?)"


async def test_what_concerns_others_is_not_told(laptop: Laptop) -> None:
    assert await found(laptop, HARMLESS) == ()


async def test_rules_of_the_older_iptables_are_told_by_what_they_do(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up(dns=False)
        await asyncio.to_thread(laptop.run, "sh", "-ec", LEGACY)
        assert await connection.client.find_translations() == ()
        with laptop.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"?", ("10.96.0.10", 53))
        (text,) = await connection.client.find_translations()
    assert text == (
        "packets to 10.96.0.10 get another destination before they reach the tunnel: a connection to 10.96.0.10:53 "
        "went to 192.0.2.1"
    )


def test_thousands_of_rules_are_read_once_while_they_stay_the_same(laptop: Laptop) -> None:
    code = """
import subprocess, time
from ipaddress import IPv4Network
from meshdev.helper import translations
rules = "".join(f"ip daddr 10.97.{n >> 8}.{n & 255} tcp dport 80 dnat to 192.0.2.1:80\\n" for n in range(10_000))
table = "table ip nat {\\nchain services {\\n" + rules + "}\\nchain out {\\n"
table += "type nat hook output priority -100;\\njump services\\n}\\n}\\n"
subprocess.run(["nft", "-f", "-"], input=table, text=True, check=True)
finder, routes, read, reads = translations.TranslationFinder(), [IPv4Network("10.96.0.0/15")], translations._rules, []
translations._rules = lambda: (reads.append(1), read())[1]
first = finder.find(routes)
assert len(first) == 1 and "10.97.0.0 and 9999 more" in first[0], first
for _ in range(3):
    started = time.process_time()
    assert finder.find(routes) == first
    assert time.process_time() - started < 0.1
assert finder.find([IPv4Network("10.96.0.0/16")]) == ()
assert len(reads) == 1
subprocess.run(["nft", "delete table ip nat"], check=True)
assert finder.find(routes) == ()
assert len(reads) == 2
"""
    assert laptop.run(sys.executable, "-I", "-c", code) == ""
