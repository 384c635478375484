"""What a stub resolver on the laptop sees, and who else was asked."""

import asyncio
import time
from dataclasses import replace

import dns.message
import dns.opcode
import dns.rcode
import pytest

from meshdev.dns.known import domains
from meshdev.dns.policy import Zone
from meshdev.errors import RouteError
from tests.dns.conftest import KUBE, WORLD, Laptop, connected
from tests.dns.servers import FakeServer, lines
from tests.waiting import until

B = "b.ns.svc.cluster.local. 30 IN A 10.96.0.7"


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize(
    ("name", "rdtype", "answer"),
    [
        ("b", "A", ["b. 5 IN CNAME b.ns.svc.cluster.local.", B]),
        ("b.ns", "A", ["b.ns. 5 IN CNAME b.ns.svc.cluster.local.", B]),
        ("b.ns.svc", "A", ["b.ns.svc. 5 IN CNAME b.ns.svc.cluster.local.", B]),
        ("b.ns.svc.cluster.local", "A", [B]),
        ("B.NS", "A", ["B.NS. 5 IN CNAME B.NS.svc.cluster.local.", B.replace("b.ns", "B.NS")]),
        (
            "db-0.db",
            "A",
            ["db-0.db. 5 IN CNAME db-0.db.ns.svc.cluster.local.", "db-0.db.ns.svc.cluster.local. 30 IN A 10.244.0.9"],
        ),
        (
            "db-0.db.other",
            "A",
            [
                "db-0.db.other. 5 IN CNAME db-0.db.other.svc.cluster.local.",
                "db-0.db.other.svc.cluster.local. 30 IN A 10.244.0.10",
            ],
        ),
        (
            "b.other",
            "A",
            ["b.other. 5 IN CNAME b.other.svc.cluster.local.", "b.other.svc.cluster.local. 30 IN A 10.96.0.8"],
        ),
        (
            "_http._tcp.b.ns.svc",
            "SRV",
            [
                "_http._tcp.b.ns.svc. 5 IN CNAME _http._tcp.b.ns.svc.cluster.local.",
                "_http._tcp.b.ns.svc.cluster.local. 30 IN SRV 0 100 80 b.ns.svc.cluster.local.",
            ],
        ),
        (
            "_http._tcp.b",
            "SRV",
            [
                "_http._tcp.b. 5 IN CNAME _http._tcp.b.ns.svc.cluster.local.",
                "_http._tcp.b.ns.svc.cluster.local. 30 IN SRV 0 100 80 b.ns.svc.cluster.local.",
            ],
        ),
        ("7.0.96.10.in-addr.arpa", "PTR", ["7.0.96.10.in-addr.arpa. 30 IN PTR b.ns.svc.cluster.local."]),
    ],
)
async def test_names_of_the_cluster(laptop: Laptop, name: str, rdtype: str, answer: list[str], tcp: bool) -> None:
    assert lines(await laptop.stub.ask(name, rdtype, tcp=tcp)) == ["NOERROR", *answer]
    assert {seen.split()[0] for seen in laptop.kube.seen} == {"tcp" if tcp else "udp"}
    if name != "db-0.db":  # might be anybody's
        assert laptop.world.seen == [], "names of the cluster stay in the cluster"


@pytest.mark.parametrize("name", ["b", "b.ns", "b.ns.svc", "b.ns.svc.cluster.local", "b.other"])
@pytest.mark.parametrize("rdtype", ["AAAA", "HTTPS"])
async def test_no_such_type_is_nodata_and_asks_nobody_else(laptop: Laptop, name: str, rdtype: str) -> None:
    start = time.monotonic()
    assert lines(await laptop.stub.ask(name, rdtype)) == ["NOERROR"]
    assert time.monotonic() - start < 0.2
    assert laptop.world.seen == []


async def test_nodata_though_the_server_says_nxdomain_to_aaaa() -> None:
    class Old(FakeServer):
        def respond(self, wire: bytes, way: str) -> bytes | None:
            answer = super().respond(wire, way)
            if answer is None or "AAAA" not in self.seen[-1]:
                return answer
            return answer[:3] + bytes([answer[3] & 0xF0 | dns.rcode.NXDOMAIN]) + answer[4:]

    async with connected(Laptop(kube=Old(KUBE))) as laptop:
        assert lines(await laptop.stub.ask("b", "AAAA")) == ["NOERROR"]
        assert laptop.world.seen == []


async def test_cluster_that_answers_every_aaaa_with_nodata_swallows_no_public_name() -> None:
    class Template(FakeServer):
        def respond(self, wire: bytes, way: str) -> bytes | None:
            answer = super().respond(wire, way)
            if answer is None or "AAAA" not in self.seen[-1]:
                return answer
            return answer[:3] + bytes([answer[3] & 0xF0]) + answer[4:]

    async with connected(Laptop(kube=Template(KUBE))) as laptop:
        assert lines(await laptop.stub.ask("www.example.test", "AAAA")) == [
            "NOERROR",
            "www.example.test. 30 IN AAAA 2001:db8::1",
        ]


@pytest.mark.parametrize("name", ["b.ns.svc", "b.ns.svc.cluster.local"])
async def test_edns_is_answered_with_edns(laptop: Laptop, name: str) -> None:
    assert (await laptop.stub.ask(name, edns=True)).edns == 0
    assert (await laptop.stub.ask(name, "AAAA", edns=True)).edns == 0
    assert (await laptop.stub.ask(name)).edns == -1


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize(
    "name", ["no", "no.ns", "no.ns.svc", "no.svc.cluster.local", "a.no.ns", "a.b.c.d.example.test"]
)
async def test_nxdomain_is_quick(laptop: Laptop, name: str, tcp: bool) -> None:
    start = time.monotonic()
    assert lines(await laptop.stub.ask(name, tcp=tcp)) == ["NXDOMAIN"]
    assert time.monotonic() - start < 0.2


async def test_other_names_pass_untouched(laptop: Laptop) -> None:
    query = dns.message.make_query("wWw.eXample.test", "A", use_edns=0, payload=1400, want_dnssec=True)
    wire = query.to_wire()
    wire = wire.replace(b"\x03www\x07example", b"\x03wWw\x07eXample")
    answer = await laptop.stub.raw(wire)
    (asked,) = laptop.world.wires
    assert asked[2:] == wire[2:]
    world = laptop.world.respond(asked, "udp")
    assert world is not None
    assert answer == wire[:2] + world[2:]


async def test_short_names_the_cluster_does_not_know_go_on(laptop: Laptop) -> None:
    assert lines(await laptop.stub.ask("printer")) == ["NOERROR", "printer. 30 IN A 192.0.2.4"]
    assert lines(await laptop.stub.ask("example.test")) == ["NOERROR", "example.test. 30 IN A 192.0.2.2"]


async def test_operations_other_than_query_pass(laptop: Laptop) -> None:
    query = dns.message.make_query("printer", "SOA")
    query.set_opcode(dns.opcode.NOTIFY)
    answer = dns.message.from_wire(await laptop.stub.raw(query.to_wire()))
    assert answer.opcode() == dns.opcode.NOTIFY
    assert laptop.world.seen == ["udp printer. SOA"]
    assert laptop.kube.seen == []


async def test_outside_reverse_names_go_on(laptop: Laptop) -> None:
    assert lines(await laptop.stub.ask("1.2.0.192.in-addr.arpa", "PTR")) == ["NXDOMAIN"]
    assert laptop.kube.seen == []


class TestFormerFirst:
    """Names that are the cluster's only where nobody else knows them."""

    @pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
    async def test_a_pod_answers_for_no_public_name(self, laptop: Laptop, tcp: bool) -> None:
        answer = await laptop.stub.ask("example.test", tcp=tcp)
        assert lines(answer) == ["NOERROR", "example.test. 30 IN A 192.0.2.2"]
        assert laptop.routed == []

    async def test_a_name_without_ipv4_is_known_all_the_same(self, laptop: Laptop) -> None:
        assert lines(await laptop.stub.ask("six.test")) == ["NOERROR"]
        assert lines(await laptop.stub.ask("six.test", "AAAA")) == ["NOERROR", "six.test. 30 IN AAAA 2001:db8::6"]

    async def test_a_former_resolver_that_is_slow_is_waited_for(self) -> None:
        async with connected(Laptop(world=FakeServer(WORLD, delay=0.6))) as laptop:
            assert lines(await laptop.stub.ask("example.test")) == ["NOERROR", "example.test. 30 IN A 192.0.2.2"]

    async def test_one_that_fails_leaves_it_to_the_cluster(self) -> None:
        async with connected(Laptop(world=FakeServer(code=dns.rcode.SERVFAIL))) as laptop:
            assert "db-0.db.ns.svc.cluster.local. 30 IN A 10.244.0.9" in lines(await laptop.stub.ask("db-0.db"))

    @pytest.mark.parametrize("name", ["wpad", "wpad.ns", "api.test", "isatap.other"])
    async def test_names_that_are_never_the_clusters(self, laptop: Laptop, name: str) -> None:
        laptop.known = replace(laptop.known, reserved=domains(["api.test"]))
        assert lines(await laptop.stub.ask(name)) == ["NXDOMAIN"]
        assert laptop.kube.seen == []

    @pytest.mark.parametrize("name", ["wpad.ns.svc.cluster.local", "api.test.ns.svc.cluster.local"])
    async def test_nor_by_a_search_list(self, laptop: Laptop, name: str) -> None:
        laptop.known = replace(laptop.known, reserved=domains(["api.test"]))
        assert lines(await laptop.stub.ask(name)) == ["NXDOMAIN"]
        assert laptop.kube.seen == laptop.world.seen == []

    async def test_public_names_are_not_told_to_the_cluster(self, laptop: Laptop) -> None:
        for name in ("github.com", "www.github.com", "github.com."):
            await laptop.stub.ask(name)
        assert laptop.kube.seen == []


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
async def test_answers_are_counted_by_whose_they_are(laptop: Laptop, tcp: bool) -> None:
    laptop.known = replace(laptop.known, reserved=domains(["api.test"]))
    for name in ("b.ns", "nothing.ns.svc", "b", "www.example.test", "nowhere.test", "wpad.ns.svc.cluster.local"):
        await laptop.stub.ask(name, tcp=tcp)
    assert laptop.answers == {"cluster": 3, "laptop": 2, "meshdev": 1}


async def test_what_nobody_answered_has_failed() -> None:
    async with connected(Laptop(kube_gone=True, world=FakeServer(code=dns.rcode.SERVFAIL))) as laptop:
        for name in ("b.ns.svc", "www.example.test"):
            await laptop.stub.ask(name)
        assert laptop.answers == {"failed": 2}


async def test_own_probes_are_no_questions_of_programs(laptop: Laptop) -> None:
    await laptop.stub.ask(f"x.{Zone.of('cluster.local', 'ns').probe}")
    assert not +laptop.answers


async def test_a_namespace_is_confirmed_by_what_is_in_it(laptop: Laptop) -> None:
    assert "b.unlisted.svc.cluster.local. 30 IN A 10.96.0.10" in lines(await laptop.stub.ask("b.unlisted"))
    assert laptop.confirmed == [b"unlisted"]
    await laptop.stub.ask("b.unlisted.svc.cluster.local")
    await laptop.stub.ask("no.nosuch.svc.cluster.local")
    await laptop.stub.ask("no.nosuch")
    assert laptop.confirmed == [b"unlisted"] * 2


class TestIPv6:
    """The tunnel carries IPv4: addresses that nobody reaches are not handed out."""

    @pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
    @pytest.mark.parametrize("name", ["dual", "dual.ns", "dual.ns.svc", "dual.ns.svc.cluster.local"])
    async def test_addresses_of_the_cluster_are_nodata(self, laptop: Laptop, name: str, tcp: bool) -> None:
        assert lines(await laptop.stub.ask(name, "AAAA", tcp=tcp)) == ["NOERROR"]
        assert lines(await laptop.stub.ask(name, tcp=tcp))[-1] == "dual.ns.svc.cluster.local. 30 IN A 10.96.0.9"

    async def test_hints_are_left_out(self, laptop: Laptop) -> None:
        for name in ("dual", "dual.ns.svc.cluster.local"):
            answer = lines(await laptop.stub.ask(name, "HTTPS"))[-1]
            assert answer == (
                'dual.ns.svc.cluster.local. 30 IN HTTPS 1 . mandatory="port" port="8443" ipv4hint="10.96.0.9"'
            )

    async def test_what_is_outside_keeps_its_own(self, laptop: Laptop) -> None:
        for name in ("ext", "ext.ns.svc.cluster.local"):
            assert "www.example.test. 30 IN AAAA 2001:db8::1" in lines(await laptop.stub.ask(name, "AAAA"))


class TestRoutes:
    """Addresses are routed before an answer leaves."""

    async def test_before_the_answer(self) -> None:
        gate = asyncio.Event()
        async with connected(Laptop(gate=gate)) as laptop:
            answer = asyncio.create_task(laptop.stub.ask("b"))
            await until(lambda: laptop.routing)
            await laptop.stub.ask("www.example.test")  # whatever left before has arrived before
            assert not answer.done()
            gate.set()
            assert B in lines(await answer)
            assert laptop.routed == ["10.96.0.7"]

    async def test_untouched_answers_too(self, laptop: Laptop) -> None:
        await laptop.stub.ask("db-0.db.ns.svc.cluster.local")
        assert laptop.routed == ["10.244.0.9"]

    async def test_not_what_an_external_name_leads_to(self, laptop: Laptop) -> None:
        assert "www.example.test. 30 IN A 192.0.2.1" in lines(await laptop.stub.ask("ext"))
        await laptop.stub.ask("ext.ns.svc.cluster.local")
        assert laptop.routed == []

    async def test_not_what_the_former_resolver_says(self, laptop: Laptop) -> None:
        await laptop.stub.ask("www.example.test")
        assert laptop.routed == []

    async def test_failure_is_an_error_for_a_moment(self) -> None:
        async with connected(Laptop(route_error=RouteError("no"))) as laptop:
            assert lines(await laptop.stub.ask("b")) == ["SERVFAIL"]
            laptop.route_error = None
            assert lines(await laptop.stub.ask("b"))[0] == "NOERROR"


class TestTunnelDown:
    """The cluster cannot be asked: its names fail at once, others do not notice."""

    @pytest.mark.parametrize("name", ["b.ns.svc", "b.svc", "b.ns.svc.cluster.local"])
    async def test_names_of_the_cluster_fail_quickly(self, name: str) -> None:
        async with connected(Laptop(up=False)) as laptop:
            start = time.monotonic()
            assert lines(await laptop.stub.ask(name)) == ["SERVFAIL"]
            assert time.monotonic() - start < 0.1
            assert laptop.world.seen == laptop.kube.seen == []

    async def test_others_go_on_at_once(self) -> None:
        async with connected(Laptop(up=False)) as laptop:
            start = time.monotonic()
            for name in ("www.example.test", "example.test", "printer"):
                assert lines(await laptop.stub.ask(name))[0] == "NOERROR"
            assert time.monotonic() - start < 0.1
            assert laptop.kube.seen == []

    @pytest.mark.parametrize("up", [False, True], ids=["down", "stalled"])
    async def test_no_is_not_for_keeps(self, up: bool) -> None:
        async with connected(Laptop(FakeServer(silent=True), up=up)) as laptop:
            answer = await laptop.stub.ask("b.ns")
            assert lines(answer) == ["NXDOMAIN"]
            assert answer.authority == [], "without a SOA nobody keeps it"

    async def test_public_names_are_hardly_slower_while_the_cluster_stalls(self) -> None:
        async with connected(Laptop(FakeServer(silent=True))) as laptop:
            start = time.monotonic()
            assert lines(await laptop.stub.ask("www.example.test"))[0] == "NOERROR"
            assert time.monotonic() - start < 0.25
            start = time.monotonic()
            assert lines(await laptop.stub.ask("example.test"))[0] == "NOERROR"
            assert time.monotonic() - start < 0.5

    @pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
    async def test_nameserver_gone_is_noticed_at_once(self, tcp: bool) -> None:
        async with connected(Laptop(kube_gone=True)) as laptop:
            start = time.monotonic()
            assert lines(await laptop.stub.ask("b.ns.svc", tcp=tcp)) == ["SERVFAIL"]
            assert lines(await laptop.stub.ask("printer", tcp=tcp))[0] == "NOERROR"
            assert time.monotonic() - start < 0.3


class TestSlowCluster:
    """A cluster far away still counts, by the windows of the policy."""

    async def test_within_the_window_the_cluster_wins(self) -> None:
        async with connected(Laptop(FakeServer(KUBE, delay=0.15))) as laptop:
            assert "10.96.0.8" in lines(await laptop.stub.ask("b.other"))[2]

    async def test_after_the_window_the_former_resolver_wins(self) -> None:
        async with connected(Laptop(FakeServer(KUBE, delay=0.6))) as laptop:
            assert lines(await laptop.stub.ask("db-0.db.other"))[1] == "db-0.db.other. 30 IN A 192.0.2.5"

    async def test_a_no_of_the_former_resolver_waits_for_the_cluster(self) -> None:
        async with connected(Laptop(FakeServer(KUBE, delay=0.6))) as laptop:
            assert B in lines(await laptop.stub.ask("b"))
            assert B in lines(await laptop.stub.ask("b.ns"))


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("name", ["meshdev-probe.cluster.local", "7.meshdev-probe.cluster.local"])
async def test_a_probe_is_answered_here_and_may_not_be_kept(laptop: Laptop, tcp: bool, up: bool, name: str) -> None:
    laptop.up = up
    assert lines(await laptop.stub.ask(name, "A", tcp=tcp)) == ["NOERROR", f"{name}. 0 IN A 192.0.2.1"]
    assert lines(await laptop.stub.ask(name, "AAAA", tcp=tcp)) == ["NOERROR"]
    assert (laptop.kube.seen, laptop.world.seen) == ([], [])


async def test_answers_that_a_cache_should_forget_are_counted(laptop: Laptop) -> None:
    await laptop.stub.ask("b.ns", "A")
    await laptop.stub.ask("nosuch.ns.svc", "A")
    await laptop.stub.ask("www.example.test", "A")
    assert laptop.failures == 0
    laptop.up = False
    assert lines(await laptop.stub.ask("b.ns.svc", "A")) == ["SERVFAIL"]
    assert laptop.failures == 1
