"""The decision table of meshdev.dns.policy, line by line."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import dns.message
import dns.name
import dns.opcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.dns.known import Known, domains
from meshdev.dns.policy import ABSENT, FORMER_ONLY, NEGATIVE_WINDOW, QueryPlan, Zone, domain_of
from meshdev.wire.dns import Query, parse_query

ZONE = Zone.of("cluster.local", "ns")
#: Nobody says which namespaces and Services there are.
NOTHING = Known(namespaces=frozenset({b"ns"}))
#: All is known, of the laptop too.
ALL = Known(
    namespaces=frozenset({b"ns", b"x", b"dev", b"internal", b"office", b"localhost"}),
    complete=True,
    services=frozenset({b"b", b"db", b"test", b"store", b"wpad", b"www", b"onion"}),
    foreign=domains(["example.test", "office."]),
    reserved=domains(["api.test", "gate", "kubernetes"]),
)
ROUTES = [IPv4Network("10.96.0.0/16"), IPv4Network("10.244.0.0/24")]


def inside(address: IPv4Address) -> bool:
    return any(address in route for route in ROUTES)


def query(name: str, rdtype: str = "A", rdclass: str = "IN") -> Query:
    parsed = parse_query(dns.message.make_query(name, rdtype, rdclass).to_wire())
    assert parsed is not None
    return parsed


def traced(plan: QueryPlan) -> str:
    """A plan in one line, ``…`` for the cluster's domain."""
    names = " ".join(name.to_text().replace(".cluster.local.", ".…") for name in plan.names) or "-"
    if plan.absent:
        return "absent"
    if not plan.former:
        return f"{names} | never"
    if plan.former_wins:
        return f"{names} | beside"
    return f"{names} | {plan.head_start * 1000:.0f} {plan.window * 1000:.0f}" if plan.names else "only"


@dataclass(frozen=True)
class Row:
    name: str
    plan: str
    why: str
    rdtype: str = "A"
    known: Known = NOTHING


TABLE = [
    Row("b.default.svc.cluster.local", "b.default.svc.… | never", "a name of the cluster"),
    Row("B.Default.SVC.Cluster.LOCAL", "B.Default.SVC.Cluster.LOCAL. | never", "case is kept"),
    Row("db-0.db.default.svc.cluster.local", "db-0.db.default.svc.… | never", "pod of a headless Service"),
    Row("_http._tcp.b.ns.svc.cluster.local", "_http._tcp.b.ns.svc.… | never", "SRV", "SRV"),
    Row("10-1-2-3.ns.pod.cluster.local", "10-1-2-3.ns.pod.… | never", "pod by address"),
    Row("cluster.local", "cluster.local. | never", "the domain itself", "SOA"),
    Row("www.example.test.ns.svc.cluster.local", "www.example.test.ns.svc.… | never", "a stub's search list"),
    Row("cluster.local.example", "cluster.local.example.svc.… | beside", "the domain must be the suffix"),
    Row("notcluster.local", "only", "labels count, not letters; local is no namespace's"),
    Row("b.default.svc", "b.default.svc.… | never", "svc is the cluster's"),
    Row("b.default.SVC", "b.default.SVC.… | never", "in any case"),
    Row("db-0.db.ns.svc", "db-0.db.ns.svc.… | never", "pod of a headless Service"),
    Row("_http._tcp.b.ns.svc", "_http._tcp.b.ns.svc.… | never", "SRV", "SRV"),
    Row("b.ns.svc", "b.ns.svc.… | never", "every type of svc names", "DS"),
    Row("b.svc", "b.svc.ns.svc.… b.svc.svc.… | never", "b in a namespace named svc"),
    Row("svc", "svc.ns.svc.… | 300 300", "a Service named svc"),
    Row("b", "b.ns.svc.… | 300 300", "Service of the session's namespace"),
    Row("b", "b.ns.svc.… | 300 300", "AAAA like A", "AAAA"),
    Row("b", "b.ns.svc.… | 300 300", "browsers ask this first", "HTTPS"),
    Row("b.ns", "b.ns.ns.svc.… b.ns.svc.… | 30 300", "the connected namespace is known"),
    Row("p.b.ns", "p.b.ns.svc.… | 30 300", "pod of a headless Service there"),
    Row("b.x", "b.x.ns.svc.… b.x.svc.… | beside", "Service of another namespace, or pod of a Service"),
    Row("b.x", "b.x.svc.… | 30 300", "Service of another namespace", known=ALL),
    Row("B.X", "B.X.svc.… | 30 300", "in any case", known=ALL),
    Row("b.dev", "b.dev.svc.… | beside", "a namespace named like a public suffix", known=ALL),
    Row("b.internal", "b.internal.svc.… | beside", "or like those of private networks", known=ALL),
    Row("b.nosuch", "only", "neither namespace nor Service", known=ALL),
    Row("db-0.db", "db-0.db.ns.svc.… db-0.db.svc.… | beside", "pod of a headless Service of this one"),
    Row("db-0.db", "db-0.db.ns.svc.… | beside", "the same", known=ALL),
    Row("example.test", "example.test.ns.svc.… example.test.svc.… | beside", "the public name wins"),
    Row("db-0.test", "db-0.test.ns.svc.… | beside", "pod of Service test", known=ALL),
    Row("db-0.store", "db-0.store.ns.svc.… | beside", "a Service named like a public suffix", known=ALL),
    Row("db-0.store", "only", "where nobody knows that it is one"),
    Row("github.com", "only", "a public suffix"),
    Row("github.com", "only", "a public suffix", known=ALL),
    Row("github.com", "only", "a public suffix", "AAAA"),
    Row("_http._tcp.b", "_http._tcp.b.ns.svc.… | 300 300", "SRV of this namespace", "SRV"),
    Row("_http._tcp.b.x", "_http._tcp.b.x.svc.… | beside", "SRV of another", "SRV"),
    Row("_http._tcp.b.x", "_http._tcp.b.x.svc.… | 30 300", "SRV of another", "SRV", ALL),
    Row("_http._tcp.b.db", "only", "a pod has no SRV record of its own", "SRV", ALL),
    Row("_sip._tcp.example.com", "only", "SRV of a public name", "SRV"),
    Row("db-0.db.x", "db-0.db.x.svc.… | beside", "headless pod of another namespace"),
    Row("db-0.db.x", "db-0.db.x.svc.… | 30 300", "headless pod of another namespace", known=ALL),
    Row("a.example.dev", "a.example.dev.svc.… | beside", "could be one in namespace dev", known=ALL),
    Row("www.example.com", "only", "no namespace com"),
    Row("www.example.org", "only", "no namespace org", known=ALL),
    Row("10-244-0-9.x.pod", "10-244-0-9.x.pod.svc.… 10-244-0-9.x.pod.… | beside", "pod by address"),
    Row("10-244-0-9.x.pod", "10-244-0-9.x.pod.… | beside", "pod by address", known=ALL),
    Row("example.test", "only", "a domain of the laptop", known=ALL),
    Row("www.example.test", "only", "a name in it", known=ALL),
    Row("b.office", "only", "namespace office, and the laptop's domain", known=ALL),
    Row("office", "only", "the domain itself", known=ALL),
    Row("wpad", "only", "whoever may create a Service is not to be the laptop's proxy", known=ALL),
    Row("WPAD.x", "only", "in any case, in any namespace", known=ALL),
    Row("wpad.test", "only", "nor a pod", known=ALL),
    Row("isatap", "only", "nor the laptop's router"),
    Row("wpad.x.svc", "wpad.x.svc.… | never", "asked for by name", known=ALL),
    Row("wpad.ns.svc.cluster.local", "absent", "what a stub makes of wpad"),
    Row("Wpad.NS.svc.Cluster.local", "absent", "in any case"),
    Row("isatap.svc.cluster.local", "absent", "the next in its search list"),
    Row("localhost.cluster.local", "absent", "and the last"),
    Row("wpad.x.svc.cluster.local", "wpad.x.svc.… | never", "asked for by name"),
    Row("api.test", "only", "the API server", known=ALL),
    Row("api.test.ns.svc.cluster.local", "absent", "what a stub makes of it", known=ALL),
    Row("gate", "only", "the proxy", known=ALL),
    Row("gate.ns.svc.cluster.local", "absent", "what a stub makes of it", known=ALL),
    Row("kubernetes", "only", "an API server of that name", known=ALL),
    Row("kubernetes.default.svc.cluster.local", "kubernetes.default.svc.… | never", "is the same one", known=ALL),
    Row("default.svc.cluster.local", "default.svc.… | never", "the namespace itself"),
    Row("www.example.co.uk", "only", "no name of Kubernetes has four labels in front of svc"),
    Row("_sip._tcp.www.example.com", "only", "nor this", "SRV"),
    Row("_acme-challenge.example.com", "only", "no object is named with an underscore", "TXT"),
    Row("my_host", "only", "nor this"),
    Row("_http._tcp", "only", "a service of nothing", "SRV"),
    Row("-b", "only", "nor with a dash in front"),
    Row(r"b\.x", "only", "a dot inside a label"),
    Row(r"\000", "only", "a zero byte"),
    Row("localhost", "only", "RFC 6761"),
    Row("www.localhost", "only", "RFC 6761"),
    Row("www.localhost", "only", "even with a namespace localhost", known=ALL),
    Row("www.onion", "only", "even with a Service onion (RFC 7686)", known=ALL),
    Row("onion", "only", "RFC 7686", known=ALL),
    Row("1.0.0.127.in-addr.arpa", "only", "not inside our routes", "PTR"),
    Row("7.0.96.10.in-addr.arpa", "7.0.96.10.in-addr.arpa. | never", "inside our routes", "PTR"),
    Row("7.0.96.10.IN-ADDR.ARPA", "7.0.96.10.IN-ADDR.ARPA. | never", "in any case", "PTR"),
    Row("7.0.96.10.in-addr.arpa", "only", "only PTR", "TXT"),
    Row("96.10.in-addr.arpa", "only", "no address", "PTR"),
    Row("x.0.96.10.in-addr.arpa", "only", "no address", "PTR"),
    Row("1.7.0.96.10.in-addr.arpa", "only", "no address", "PTR"),
    Row("1.0.0.0.ip6.arpa", "only", "IPv6 is not the tunnel's", "PTR"),
    Row(".", "only", "the root", "NS"),
    Row("com", "only", "a validating stub asks this", "DS"),
    Row("example.com", "only", "and this", "DNSKEY"),
    Row("example.com", "only", "and this", "SOA"),
]


@pytest.mark.parametrize(
    "row", TABLE, ids=lambda row: f"{row.name} {row.rdtype} {'all' if row.known is ALL else 'nothing'} known"
)
def test_table(row: Row) -> None:
    assert traced(ZONE.plan(query(row.name, row.rdtype), inside, row.known)) == row.plan, row.why


def test_other_classes_and_operations_pass() -> None:
    assert ZONE.plan(query("version.bind", "TXT", "CH"), inside, NOTHING) == FORMER_ONLY
    update = dns.message.make_query("b", "SOA")
    update.set_opcode(dns.opcode.UPDATE)
    parsed = parse_query(update.to_wire())
    assert parsed is not None
    assert ZONE.plan(parsed, inside, NOTHING) == FORMER_ONLY


def test_signed_queries_are_never_renamed() -> None:
    def signed(name: str) -> Query:
        message = dns.message.make_query(name, "A")
        message.use_tsig({dns.name.from_text("key."): b"secret" * 6})
        parsed = parse_query(message.to_wire())
        assert parsed is not None
        return parsed

    assert ZONE.plan(signed("b"), inside, NOTHING) == FORMER_ONLY
    assert ZONE.plan(signed("b.ns.svc"), inside, NOTHING) == QueryPlan()
    assert traced(ZONE.plan(signed("b.ns.svc.cluster.local"), inside, NOTHING)) == "b.ns.svc.… | never"


def test_names_too_long_to_expand_go_on() -> None:
    long = "a" * 63
    assert ZONE.plan(query(f"{long}.{long}.{long}"), inside, NOTHING).names
    deep = Zone.of(f"{long}.local", "ns")
    assert deep.plan(query(f"{long}.{long}.{long}"), inside, NOTHING) == FORMER_ONLY


def test_negative_answers_stay_quick() -> None:
    longest = max(ZONE.plan(query(row.name), inside, row.known).window for row in TABLE)
    assert longest <= NEGATIVE_WINDOW <= 2.0


@given(
    st.lists(
        st.binary(min_size=1, max_size=63) | st.sampled_from([b"x", b"test", b"wpad", b"svc", b"Dev"]), max_size=6
    ),
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.sampled_from([NOTHING, ALL]),
)
def test_every_name_has_a_plan(labels: list[bytes], rdtype: int, rdclass: int, known: Known) -> None:
    try:
        name = dns.name.Name([*labels, b""])
    except dns.name.NameTooLong:
        return
    asked = dns.message.make_query(name, "A")
    wire = asked.to_wire()[:-4] + rdtype.to_bytes(2, "big") + rdclass.to_bytes(2, "big")
    parsed = parse_query(wire)
    assert parsed is not None
    plan = ZONE.plan(parsed, inside, known)
    assert plan.former or plan.names or plan == ABSENT
    assert all(candidate.is_subdomain(ZONE.domain) or candidate == name for candidate in plan.names)


def test_zone_in_words() -> None:
    assert ZONE.search == ("ns.svc.cluster.local", "svc.cluster.local", "cluster.local")
    assert ZONE.domains == ("cluster.local", "svc")
    assert Zone.of("cluster.local.", "ns") == ZONE


def test_domain_of_a_search_list() -> None:
    assert domain_of(["mesh.svc.k8s.example", "svc.k8s.example", "k8s.example", "corp.example"]) == "k8s.example"
    assert domain_of([]) == "cluster.local"
