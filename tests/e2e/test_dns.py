"""Names on a connected laptop, as its own programs see them, against CoreDNS (issue: section 3, DNS)."""

import json
import re
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Laptop

pytestmark = pytest.mark.cluster

#: Asks one question with a resolver of its own (dnspython), as dig does; prints what came as JSON.
_ASK = """
import json, sys, time
import dns.message, dns.query, dns.rcode, dns.resolver
name, rdtype, way = sys.argv[1:]
server = dns.resolver.Resolver().nameservers[0]
query = dns.message.make_query(name, rdtype, use_edns=0)
start = time.monotonic()
answer = (dns.query.tcp if way == "tcp" else dns.query.udp)(query, server, timeout=5)
print(json.dumps({
    "rcode": dns.rcode.to_text(answer.rcode()),
    "seconds": time.monotonic() - start,
    "records": [line for records in answer.answer for line in records.to_text().splitlines()],
}))
"""


@pytest.fixture(scope="module", params=[1], ids=["plain"])
def connected(request: pytest.FixtureRequest) -> Iterator[Laptop]:
    """Connected once for all: questions change nothing. Laptop 1 asks us, laptop 2 systemd-resolved."""
    laptop = Laptop(request.param)
    laptop.clean()
    with laptop.connected():
        yield laptop


#: resolved answers single labels to getaddrinfo alone, by the search list; a question for ``b.`` it sends nowhere
#: (ResolveUnicastSingleLabel of resolved.conf(5)).
on_both = pytest.mark.parametrize("connected", [1, 2], ids=["plain", "resolved"], indirect=True)


class Answer:
    """One answer, told by what the tests look at."""

    def __init__(self, laptop: Laptop, name: str, rdtype: str = "A", way: str = "udp") -> None:
        done = laptop.run(".venv/bin/python", "-c", _ASK, name, rdtype, way)
        assert done.returncode == 0, done.stderr
        value = json.loads(done.stdout)
        self.rcode: str = value["rcode"]
        self.seconds: float = value["seconds"]
        self.records: list[str] = value["records"]

    def data(self, rdtype: str) -> set[str]:
        """The data of the records of one type."""
        return {line.split(" ", 4)[4] for line in self.records if line.split(" ")[3] == rdtype}


def address_of(laptop: Laptop, name: str) -> str:
    """The only address of *name*, by the full name, which takes no policy to answer."""
    (address,) = Answer(laptop, name).data("A")
    return address


FORMS = [
    "b",
    "b.",
    "b.default",
    "b.default.svc",
    "b.default.svc.",
    "b.default.svc.cluster.local",
    "b.default.svc.cluster.local.",
]


@pytest.mark.parametrize("way", ["udp", "tcp"])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_service(connected: Laptop, name: str, way: str) -> None:
    expected = address_of(connected, "b.default.svc.cluster.local.")
    assert Answer(connected, name, way=way).data("A") == {expected}


@pytest.mark.parametrize("database", ["ahosts", "ahostsv4"])
@pytest.mark.parametrize("name", [form for form in FORMS if form != "b."])
@on_both
def test_glibc(connected: Laptop, name: str, database: str) -> None:
    resolves(connected, name, database)


@pytest.mark.parametrize("database", ["ahosts", "ahostsv4", "hosts"])
@pytest.mark.parametrize("name", ["b", "b."])
def test_glibc_with_single_labels(connected: Laptop, name: str, database: str) -> None:
    resolves(connected, name, database)


def resolves(connected: Laptop, name: str, database: str) -> None:
    """glibc finds the address of b by *name*."""
    expected = address_of(connected, "b.default.svc.cluster.local.")
    done = connected.run("getent", database, name)
    assert done.returncode == 0, f"{name}: {done.stderr}"
    assert {line.split()[0] for line in done.stdout.splitlines()} == {expected}


@pytest.mark.parametrize(
    "name", ["db-0.db", "db-0.db.default", "db-0.db.default.svc", "db-0.db.default.svc.cluster.local"]
)
@on_both
def test_pod_of_a_headless_service(connected: Laptop, name: str) -> None:
    expected = address_of(connected, "db-0.db.default.svc.cluster.local.")
    start = time.monotonic()
    done = connected.run("getent", "ahostsv4", name)
    assert time.monotonic() - start < 2.0
    assert {line.split()[0] for line in done.stdout.splitlines()} == {expected}


@pytest.mark.parametrize(
    "name",
    ["_http._tcp.b", "_http._tcp.b.default", "_http._tcp.b.default.svc", "_http._tcp.b.default.svc.cluster.local"],
)
@pytest.mark.parametrize("way", ["udp", "tcp"])
def test_srv(connected: Laptop, name: str, way: str) -> None:
    answer = Answer(connected, name, "SRV", way)
    assert {re.sub(r"^\d+ \d+ ", "", data) for data in answer.data("SRV")} == {"80 b.default.svc.cluster.local."}


def test_reverse(connected: Laptop) -> None:
    address = address_of(connected, "b.default.svc.cluster.local.")
    reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
    assert Answer(connected, reverse, "PTR").data("PTR") == {"b.default.svc.cluster.local."}


@pytest.mark.parametrize("name", ["b", "b.default", "b.default.svc", "b.default.svc.cluster.local", "db-0.db"])
def test_aaaa_of_a_service_is_no_data_and_quick(connected: Laptop, name: str) -> None:
    answer = Answer(connected, name, "AAAA")
    assert answer.rcode == "NOERROR"
    assert answer.data("AAAA") == set()
    assert answer.seconds < 0.2


@pytest.mark.parametrize(
    "name",
    [
        "nosuch",
        "nosuch.default",
        "nosuch.default.svc",
        "nosuch.svc.cluster.local",
        "nosuch.example.test",
        "b.nosuch.svc",
    ],
)
def test_nxdomain_is_quick(connected: Laptop, name: str) -> None:
    answer = Answer(connected, name)
    assert (answer.rcode, answer.records) == ("NXDOMAIN", [])
    assert answer.seconds < 0.5


@pytest.mark.parametrize("way", ["udp", "tcp"])
@on_both
def test_public_names_as_before(connected: Laptop, way: str) -> None:
    answer = Answer(connected, "www.example.test", way=way)
    assert answer.rcode == "NOERROR"
    assert len(answer.data("A")) == 1
    assert not any("cluster.local" in line for line in answer.records)
    assert answer.seconds < 0.2


@pytest.mark.parametrize("place", ["b", "b.default", "b.default.svc", "db-0.db:5432", "db-0.db.default:5432"])
@on_both
def test_what_is_named_is_reached(connected: Laptop, place: str) -> None:
    done = connected.run("curl", "-sS", "--max-time", "5", f"http://{place}/")
    assert done.returncode == 0, done.stderr
