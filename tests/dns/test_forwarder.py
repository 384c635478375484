"""What a stub resolver on the laptop sees, and who else was asked."""

import asyncio
import time

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest

from meshdev.dns import former
from meshdev.errors import RouteError
from tests.dns.conftest import KUBE, WORLD, Laptop, connected
from tests.dns.servers import FakeServer, lines

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
    if len(name.split(".")) != 3 or name.endswith("svc"):
        assert laptop.world.seen == [], "names of the cluster stay in the cluster"


@pytest.mark.parametrize("name", ["b", "b.ns", "b.ns.svc", "b.ns.svc.cluster.local", "db-0.db", "b.other"])
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


class TestRoutes:
    """Addresses are routed before an answer leaves."""

    async def test_before_the_answer(self) -> None:
        async with connected(Laptop(route_seconds=0.2)) as laptop:
            start = time.monotonic()
            await laptop.stub.ask("b")
            assert time.monotonic() - start >= 0.2
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
        async with connected(Laptop(FakeServer(KUBE, delay=0.3))) as laptop:
            assert lines(await laptop.stub.ask("db-0.db.other"))[1] == "db-0.db.other. 30 IN A 192.0.2.5"

    async def test_a_no_of_the_former_resolver_waits_for_the_cluster(self) -> None:
        async with connected(Laptop(FakeServer(KUBE, delay=0.6))) as laptop:
            assert B in lines(await laptop.stub.ask("b"))
            assert B in lines(await laptop.stub.ask("b.ns"))


class TestFormerServers:
    """Order and fail-over of the resolvers of before."""

    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(former, "_SERVER_SECONDS", 0.2)

    async def test_first_server_first(self) -> None:
        servers = [FakeServer(WORLD), FakeServer(WORLD)]
        async with connected(Laptop(servers=servers)) as laptop:
            for _ in range(5):
                await laptop.stub.ask("a.b.example.test")
        assert (len(servers[0].seen), len(servers[1].seen)) == (5, 0)

    @pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
    async def test_silent_server_is_passed_and_then_comes_last(self, tcp: bool) -> None:
        servers = [FakeServer(silent=True), FakeServer(WORLD)]
        async with connected(Laptop(servers=servers)) as laptop:
            for limit in (0.4, 0.1):
                start = time.monotonic()
                assert lines(await laptop.stub.ask("www.example.test", tcp=tcp))[0] == "NOERROR"
                assert time.monotonic() - start < limit
        assert len(servers[0].seen) == 1

    @pytest.mark.parametrize("code", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
    async def test_next_server_after_an_error(self, code: dns.rcode.Rcode) -> None:
        async with connected(Laptop(servers=[FakeServer(code=code), FakeServer(WORLD)])) as laptop:
            assert lines(await laptop.stub.ask("www.example.test"))[0] == "NOERROR"

    async def test_error_of_all_servers_is_handed_on(self) -> None:
        async with connected(Laptop(servers=[FakeServer(code=dns.rcode.REFUSED), FakeServer(silent=True)])) as laptop:
            assert lines(await laptop.stub.ask("www.example.test")) == ["REFUSED"]

    async def test_nobody_answers(self) -> None:
        async with connected(Laptop(servers=[FakeServer(silent=True)])) as laptop:
            assert lines(await laptop.stub.ask("www.example.test")) == ["SERVFAIL"]
            assert B in lines(await laptop.stub.ask("b")), "the cluster answers all the same"

    async def test_forged_answers_are_ignored(self) -> None:
        def forge(answer: bytes) -> list[bytes]:
            wrong_id = bytes([answer[0] ^ 1]) + answer[1:]
            wrong_name = answer[:12] + answer[12:].replace(b"\x03www", b"\x03xxx", 1)
            return [wrong_id, wrong_name, answer[:2], b"", b"\xff" * 40, answer]

        async with connected(Laptop(servers=[FakeServer(WORLD, tamper=forge)])) as laptop:
            assert lines(await laptop.stub.ask("www.example.test")) == [
                "NOERROR",
                "www.example.test. 30 IN A 192.0.2.1",
            ]

    async def test_ids_and_ports_cannot_be_guessed(self) -> None:
        async with connected(Laptop()) as laptop:
            query = dns.message.make_query("www.example.test", "A", id=1).to_wire()
            for _ in range(20):
                await laptop.stub.raw(query)
            assert len({wire[:2] for wire in laptop.world.wires}) > 15


class TestStreams:
    """TCP, truncation, pipelining, transfers."""

    @pytest.mark.parametrize("name", ["big", "big.ns.svc.cluster.local"])
    async def test_truncated_then_by_tcp(self, laptop: Laptop, name: str) -> None:
        short = await laptop.stub.ask(name)
        assert short.flags & dns.flags.TC
        whole = await laptop.stub.ask(name, tcp=True)
        assert not whole.flags & dns.flags.TC
        assert sum(len(records) for records in whole.answer if records.rdtype == 1) == 119

    async def test_pipelined_queries_are_answered_as_they_are_ready(self, laptop: Laptop) -> None:
        laptop.world.delay = 0.3
        reader, writer = await asyncio.open_connection("127.0.0.1", laptop.port)
        names = ["www.example.test", "b", "b.ns.svc", "www.example.test"]
        queries = [dns.message.make_query(name, "A", id=number) for number, name in enumerate(names)]
        for wire in (query.to_wire() for query in queries):
            writer.write(len(wire).to_bytes(2, "big") + wire)
        writer.write_eof()
        order = []
        async with asyncio.timeout(3):
            for _ in queries:
                wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                answer = dns.message.from_wire(wire)
                assert queries[answer.id].is_response(answer)
                order.append(answer.id)
            assert await reader.read() == b"", "closed once all is answered"
        writer.close()
        assert set(order[:2]) == {1, 2}

    async def test_zone_transfer_passes(self) -> None:
        def many(answer: bytes) -> list[bytes]:
            return [answer, answer, answer]

        async with connected(Laptop(world=FakeServer(WORLD, tamper=many))) as laptop:
            wire = dns.message.make_query("example.test", "AXFR").to_wire()
            reader, writer = await asyncio.open_connection("127.0.0.1", laptop.port)
            writer.write(len(wire).to_bytes(2, "big") + wire)
            async with asyncio.timeout(3):
                for _ in range(3):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    assert (await reader.readexactly(length))[:2] == wire[:2]
            writer.close()


class TestHostile:
    """Nothing that arrives ends the forwarder or hinders others."""

    async def test_garbage(self, laptop: Laptop) -> None:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=("127.0.0.1", laptop.port)
        )
        good = dns.message.make_query("b", "A").to_wire()
        for length in range(len(good)):
            transport.sendto(good[:length])
        for place in range(len(good)):
            transport.sendto(good[:place] + b"\xc0" + good[place + 1 :])
        assert lines(await laptop.stub.ask("b"))[0] == "NOERROR"
        transport.close()

    async def test_format_error(self, laptop: Laptop) -> None:
        wire = bytes.fromhex("abcd 0100 0002 0000 0000 0000")
        assert await laptop.stub.raw(wire) == bytes.fromhex("abcd 8181 0000 0000 0000 0000")
        assert await laptop.stub.stream(wire) == bytes.fromhex("abcd 8181 0000 0000 0000 0000")

    async def test_garbage_by_tcp(self, laptop: Laptop) -> None:
        for data in (b"", b"\0", b"\0\0", b"\xff\xff" + b"x" * 100, b"\0\x0c" + b"\xff" * 12):
            _, writer = await asyncio.open_connection("127.0.0.1", laptop.port)
            writer.write(data)
            writer.close()
        assert lines(await laptop.stub.ask("b", tcp=True))[0] == "NOERROR"

    async def test_idle_connections_do_not_stop_others(self, laptop: Laptop) -> None:
        writers = [(await asyncio.open_connection("127.0.0.1", laptop.port))[1] for _ in range(100)]
        assert lines(await laptop.stub.ask("b", tcp=True))[0] == "NOERROR"
        for writer in writers:
            writer.close()

    async def test_flood_is_bounded_and_others_are_answered(self) -> None:
        async with connected(Laptop(world=FakeServer(silent=True))) as laptop:
            stub = laptop.stub
            flood = []
            for number in range(600):
                wire = dns.message.make_query("a.b.c.d.test", "A", id=number).to_wire()
                flood.append(asyncio.create_task(stub.raw(wire, 30.0)))
                if number % 100 == 99:
                    await asyncio.sleep(0.02)  # or the kernel drops some before the forwarder sees them
            refused = []
            for answer in asyncio.as_completed(flood, timeout=10.0):
                refused.append(await answer)
                if len(refused) == 600 - 512:
                    break
            assert {wire[3] & 15 for wire in refused} == {dns.rcode.SERVFAIL}
            for task in flood:
                task.cancel()
            await asyncio.gather(*flood, return_exceptions=True)

    async def test_hundreds_at_once(self, laptop: Laptop) -> None:
        names = ["b", "b.ns", "b.ns.svc", "www.example.test", "no.such.name.test"]
        answers = await asyncio.gather(*(laptop.stub.ask(names[number % 5]) for number in range(300)))
        codes = [answer.rcode() for answer in answers]
        assert codes.count(dns.rcode.NOERROR) == 240
        assert codes.count(dns.rcode.NXDOMAIN) == 60

    async def test_broken_answers_of_the_cluster_pass_without_routes(self) -> None:
        def break_record(answer: bytes) -> list[bytes]:
            return [answer[:-4]]

        async with connected(Laptop(FakeServer(KUBE, tamper=break_record))) as laptop:
            wire = await laptop.stub.raw(dns.message.make_query("b.ns.svc.cluster.local", "A").to_wire())
            assert wire[3] & 15 == dns.rcode.NOERROR
            assert laptop.routed == []


async def test_sockets_are_closed_at_the_end() -> None:
    async with connected(Laptop()) as laptop:
        port = laptop.port
        await laptop.stub.ask("b")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
