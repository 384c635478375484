"""What nft lists of other programs' rules, by real listings (nftables 1.0.6, kube-proxy 1.35, iptables 1.8.9)."""

import time
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.host.translations import Translation, concerning, nat_tables, of_flow, of_nft

ROUTES = (IPv4Network("10.96.0.0/16"), IPv4Network("10.244.0.0/24"))

#: kube-proxy in iptables mode, by iptables-nft.
IPTABLES = """# Warning: table ip nat is managed by iptables-nft, do not touch!
table ip nat {
  chain KUBE-SERVICES {
    meta l4proto tcp ip daddr 10.96.0.1  tcp dport 443 counter packets 0 bytes 0 jump KUBE-SVC-X
    meta l4proto udp ip daddr 10.96.0.10  udp dport 53 counter packets 0 bytes 0 jump KUBE-SVC-D
    meta l4proto tcp ip daddr 10.96.0.99  tcp dport 80 counter packets 0 bytes 0 jump KUBE-MARK-MASQ
  }

  chain KUBE-MARK-MASQ {
    counter packets 0 bytes 0 meta mark set mark or 0x4000
  }

  chain KUBE-SVC-X {
     counter packets 0 bytes 0 jump KUBE-SEP-X
  }

  chain KUBE-SVC-D {
     counter packets 0 bytes 0 jump KUBE-SEP-X
  }

  chain KUBE-SEP-X {
    meta l4proto tcp  counter packets 0 bytes 0 dnat to 172.30.0.2:6443
  }

  chain OUTPUT {
    type nat hook output priority -100; policy accept;
     counter packets 0 bytes 0 jump KUBE-SERVICES
  }
}
"""
#: kube-proxy in nftables mode.
KUBE_PROXY = """table ip kube-proxy {
  comment "rules for kube-proxy"
  set cluster-ips {
    type ipv4_addr
    elements = { 10.96.0.1, 10.96.0.10 }
  }

  map no-endpoint-services {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.7.7 . tcp . 80 : goto reject-chain }
  }

  map service-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.10 . udp . 53 : goto service-FY5PMXPG-kube-system/kube-dns/udp/dns,
           10.96.0.1 . tcp . 443 : goto service-2QRHZV4L-default/kubernetes/tcp/https }
  }

  chain nat-output {
    type nat hook output priority -100; policy accept;
    jump services
  }

  chain services {
    ip daddr . meta l4proto . th dport vmap @service-ips
  }

  chain service-FY5PMXPG-kube-system/kube-dns/udp/dns {
    numgen random mod 1 vmap { 0 : goto endpoint-A }
  }

  chain service-2QRHZV4L-default/kubernetes/tcp/https {
    numgen random mod 1 vmap { 0 : goto endpoint-A }
  }

  chain endpoint-A {
    meta l4proto tcp dnat to 172.30.0.2:6443
  }

  chain reject-chain {
    reject
  }
}
"""
#: Docker with a published port, libvirt, and somebody who left the cluster's range out.
HARMLESS = """table ip nat {
  chain DOCKER {
    iifname "docker0" counter packets 0 bytes 0 return
    iifname != "docker0" meta l4proto tcp tcp dport 8080 counter packets 0 bytes 0 dnat to 172.17.0.2:80
  }

  chain PREROUTING {
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr 10.96.0.0/16 accept
    ip daddr != 10.96.0.0/16 tcp dport 80 redirect to :3128
    fib daddr type local counter packets 0 bytes 0 jump DOCKER
  }

  chain POSTROUTING {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 10.96.0.0/16 ip daddr 10.96.0.0/16 counter packets 0 bytes 0 masquerade
  }
}
"""
DIRECT = """table inet mine {
  chain out {
    type nat hook output priority -100; policy accept;
    ip daddr { 10.96.0.10, 10.244.0.0/16 } udp dport 53 redirect to :5353
  }
}
"""


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        (
            IPTABLES,
            [
                (
                    "packets to 10.96.0.1 and 1 more of the cluster's addresses get another destination before they "
                    "reach the tunnel: table ip nat, chain KUBE-SERVICES (a kube-proxy on this machine?)"
                )
            ],
        ),
        (
            KUBE_PROXY,
            [
                (
                    "packets to 10.96.0.10 and 1 more of the cluster's addresses get another destination before they "
                    "reach the tunnel: table ip kube-proxy, map service-ips (a kube-proxy on this machine?)"
                )
            ],
        ),
        (HARMLESS, []),
        (
            DIRECT,
            [
                (
                    "packets to 10.96.0.10 and 1 more of the cluster's addresses get another destination before they "
                    "reach the tunnel: table inet mine, chain out"
                )
            ],
        ),
        ("", []),
    ],
)
def test_listings(listing: str, found: list[str]) -> None:
    assert list(concerning(of_nft(listing), ROUTES)) == found


def test_what_concerns_no_route_is_not_told() -> None:
    assert concerning(of_nft(IPTABLES), [IPv4Network("10.97.0.0/16")]) == ()


def test_tables_that_translate() -> None:
    chains = IPTABLES + KUBE_PROXY + DIRECT + "table ip6 nat {\n\tchain OUTPUT {\n\t\ttype nat hook output priority 0;"
    chains += "\ntable ip filter {\n\tchain OUTPUT {\n\t\ttype filter hook output priority 0; policy accept;\n"
    assert nat_tables(chains) == [("ip", "nat"), ("ip", "kube-proxy"), ("inet", "mine")]
    assert nat_tables(HARMLESS.replace("prerouting", "postrouting")) == []
    assert nat_tables("table ip a; flush ruleset {\n\t\ttype nat hook output priority 0;") == []


def test_a_connection_tells() -> None:
    sent, went = IPv4Address("10.96.0.10"), IPv4Address("172.30.0.9")
    assert of_flow(sent, 53, sent) is None
    made = of_flow(sent, 53, went)
    assert made == Translation("a connection to 10.96.0.10:53 went to 172.30.0.9", IPv4Network("10.96.0.10"))


@given(st.text(alphabet="table chain map{}ipdr 10.96/\n\t:goto jump dnat@,", max_size=300))
def test_whatever_is_listed_is_survived(text: str) -> None:
    concerning(of_nft(text), ROUTES)
    nat_tables(text)


NETWORKS = st.builds(
    lambda number, length: IPv4Network((10 << 24 | number << 8, length), strict=False),
    st.integers(0, 0xFFFF),
    st.integers(8, 32),
)


@given(st.lists(NETWORKS, max_size=8), st.lists(NETWORKS, max_size=8))
def test_all_that_overlap_are_told_and_no_others(rules: list[IPv4Network], routes: list[IPv4Network]) -> None:
    texts = concerning([Translation(f"rule {number}", each) for number, each in enumerate(rules)], routes)
    told = {text.rpartition(": ")[2] for text in texts}
    assert told == {
        f"rule {number}" for number, each in enumerate(rules) if any(each.overlaps(route) for route in routes)
    }


def test_thousands_of_rules_and_routes_take_no_time() -> None:
    """Each with each would be 20 million comparisons, 17 s in which the helper answers nobody."""
    rules = [Translation("t", IPv4Network((172 << 24 | number << 8, 24))) for number in range(10_000)]
    routes = [IPv4Network((10 << 24 | number << 9, 24)) for number in range(2000)]
    started = time.process_time()
    assert concerning(rules, routes) == ()
    assert time.process_time() - started < 1
