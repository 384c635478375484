"""Our resolv.conf, and the decision table of the DNS integrations."""

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.host.dns import (
    MARKER,
    Env,
    claimed_domains,
    decide,
    former_content,
    render_resolv_conf,
    routing_domains,
    search_first,
    search_in_force,
    search_list,
)
from meshdev.wire.resolv_conf import ResolvConf, parse_resolv_conf


@pytest.mark.parametrize(
    ("servers", "resolved", "firewall", "integration", "why"),
    [
        ("127.0.0.53", True, None, "resolved", "nameservers=127.0.0.53 stub=yes resolved=yes"),
        ("127.0.0.54", True, "no nft", "resolved", "nameservers=127.0.0.54 stub=yes resolved=yes"),
        # resolved's package is there, but the daemon is not: something else answers at its address.
        ("127.0.0.53", False, None, "redirect", "nameservers=127.0.0.53 stub=yes resolved=no nft=yes"),
        # resolved runs, but resolv.conf names the uplinks: dig, Go and musl never ask resolved.
        ("192.0.2.1", True, None, "redirect", "nameservers=192.0.2.1 stub=no resolved=yes nft=yes"),
        (
            "127.0.0.53 192.0.2.1",
            True,
            None,
            "redirect",
            "nameservers=127.0.0.53,192.0.2.1 stub=no resolved=yes nft=yes",
        ),
        ("192.0.2.1", False, None, "redirect", "nameservers=192.0.2.1 stub=no resolved=no nft=yes"),
        ("", False, None, "redirect", "nameservers=127.0.0.1 stub=no resolved=no nft=yes"),
        ("192.0.2.1", False, "no nft", "file", "nameservers=192.0.2.1 stub=no resolved=no nft=no (no nft)"),
    ],
)
def test_decisions(servers: str, resolved: bool, firewall: str | None, integration: str, why: str) -> None:
    conf = ResolvConf(tuple(map(ip_address, servers.split())))
    made = decide(Env(conf, resolved, firewall))
    assert (made.integration, made.why) == (integration, why)


def test_rendered() -> None:
    former = b"nameserver 192.0.2.1\nsearch home.example\noptions ndots:2\n"
    text = render_resolv_conf(former, IPv4Address("127.0.0.153"), ("ns.svc.cluster.local", "home.example")).decode()
    ours, kept = text.split("#| ", 1)
    assert ours == (MARKER + "nameserver 127.0.0.153\nsearch ns.svc.cluster.local home.example\noptions ndots:2\n")
    assert kept == "nameserver 192.0.2.1\n#| search home.example\n#| options ndots:2\n"
    assert render_resolv_conf(b"", IPv4Address("127.0.0.153"), ()).decode() == MARKER + "nameserver 127.0.0.153\n"
    assert search_list(("a", "b"), ("b", "c")) == ("a", "b", "c")


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_content_is_read_written_again_and_kept(content: bytes) -> None:
    found = parse_resolv_conf(content.decode(errors="replace"))
    ours = render_resolv_conf(content, IPv4Address("127.0.0.153"), ())
    assert former_content(ours) == content
    assert former_content(render_resolv_conf(ours, IPv4Address("127.0.0.154"), ())) == ours
    again = parse_resolv_conf(ours.decode(errors="replace"))
    assert (again.search, again.options) == (found.search, found.options)
    assert again.nameservers == (IPv4Address("127.0.0.153"),)


def test_rendered_with_the_laptops_own_servers() -> None:
    former = b"nameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch home.example\noptions ndots:2\n"
    text = render_resolv_conf(former, None, ("ns.svc.cluster.local", "home.example")).decode()
    assert text.split("#| ")[0] == (
        MARKER + "nameserver 192.0.2.1\nnameserver fe80::1%eth0\n"
        "search ns.svc.cluster.local home.example\noptions ndots:2\n"
    )
    assert former_content(text.encode()) == former


@pytest.mark.parametrize(
    ("search", "hostname", "expected"),
    [
        ("home.example", "laptop.corp.example", ("home.example",)),
        ("", "laptop.corp.example", ("corp.example",)),
        ("", "Laptop.Corp.Example.", ("corp.example",)),
        ("", "laptop", ()),
        ("", "laptop.", ()),
        ("", "laptop.$(reboot)", ()),
        ("", "", ()),
    ],
)
def test_the_search_list_in_force(search: str, hostname: str, expected: tuple[str, ...]) -> None:
    assert search_in_force(ResolvConf((), tuple(search.split())), hostname) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("search home.example ns.svc.k svc.k x\n", "search ns.svc.k svc.k home.example x\n"),
        ("# search a\nnameserver 127.0.0.53\nsearch a ns.svc.k\noptions x", None),
        ("search svc.k\tns.svc.k", "search ns.svc.k svc.k"),
        ("search a b\n", "search a b\n"),
        ("search .\n", "search .\n"),
        ("", ""),
    ],
)
def test_our_search_domains_first(text: str, expected: str | None) -> None:
    wanted = text.replace("search a ns.svc.k", "search ns.svc.k a") if expected is None else expected
    assert search_first(text, ("ns.svc.k", "svc.k")) == wanted
    assert search_first(wanted, ("ns.svc.k", "svc.k")) == wanted


@given(st.text(max_size=300))
def test_any_text_keeps_its_words(text: str) -> None:
    ordered = search_first(text, ("ns.svc.k", "svc.k"))
    assert sorted(ordered.split()) == sorted(text.split())


def test_domains_of_other_links() -> None:
    printed = 'a(isb) 4 0 "." true 2 "Corp.example." false 7 "team-1" true 9 "team-2" true\n'
    assert claimed_domains(printed, frozenset({7})) == {"", "corp.example", "team-2"}
    assert claimed_domains("a(isb) 0\n", frozenset()) == frozenset()


def test_routing_domains_leave_others_theirs() -> None:
    asked = ("cluster.local", "svc", "team-1", "team-2", "ns.svc.cluster.local", "96.10.in-addr.arpa")
    elsewhere = frozenset({"cluster.local", "svc", "team-2"})
    assert routing_domains(("ns.svc.cluster.local",), asked, elsewhere) == (
        "cluster.local",
        "svc",
        "team-1",
        "96.10.in-addr.arpa",
    )
