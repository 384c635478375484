"""Order and fail-over of the resolvers of before, and answers that somebody else made up."""

import asyncio
import time
from dataclasses import dataclass

import dns.message
import dns.rcode
import pytest

from meshdev.dns import former
from meshdev.errors import DnsError
from tests.dns.conftest import WORLD, Laptop, connected
from tests.dns.servers import Asker, FakeServer, lines, socket_pair

B = "b.ns.svc.cluster.local. 30 IN A 10.96.0.7"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(former, "_SERVER_SECONDS", 0.2)


async def test_first_server_first() -> None:
    servers = [FakeServer(WORLD), FakeServer(WORLD)]
    async with connected(Laptop(servers=servers)) as laptop:
        for _ in range(5):
            await laptop.stub.ask("a.b.example.test")
    assert (len(servers[0].seen), len(servers[1].seen)) == (5, 0)


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
async def test_silent_server_is_passed_and_then_comes_last(tcp: bool) -> None:
    servers = [FakeServer(silent=True), FakeServer(WORLD)]
    async with connected(Laptop(servers=servers)) as laptop:
        for limit in (0.4, 0.1):
            start = time.monotonic()
            assert lines(await laptop.stub.ask("www.example.test", tcp=tcp))[0] == "NOERROR"
            assert time.monotonic() - start < limit
    assert len(servers[0].seen) == 1


@pytest.mark.parametrize("code", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
async def test_next_server_after_an_error(code: dns.rcode.Rcode) -> None:
    async with connected(Laptop(servers=[FakeServer(code=code), FakeServer(WORLD)])) as laptop:
        assert lines(await laptop.stub.ask("www.example.test"))[0] == "NOERROR"


async def test_a_server_that_refuses_tcp_is_passed_for_tcp_alone() -> None:
    servers = [FakeServer(WORLD, tcp=False), FakeServer(WORLD)]
    async with connected(Laptop(servers=servers)) as laptop:
        assert lines(await laptop.stub.ask("www.example.test", tcp=True))[0] == "NOERROR"
        assert lines(await laptop.stub.ask("www.example.test"))[0] == "NOERROR"
    assert (servers[0].seen, servers[1].seen) == (["udp www.example.test. A"], ["tcp www.example.test. A"])


async def test_a_socket_that_cannot_be_made_is_no_answer() -> None:
    async with connected(Laptop(dial_error=DnsError("no marked socket"))) as laptop:
        assert lines(await laptop.stub.ask("www.example.test", tcp=True)) == ["SERVFAIL"]
        assert lines(await laptop.stub.ask("www.example.test"))[0] == "NOERROR"


@dataclass
class Cache(FakeServer):
    """A caching resolver of this machine that asks its upstream, as dnsmasq does."""

    upstream: Asker | None = None

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.respond(data, "udp")
        self.asking = asyncio.ensure_future(self._ask_on(data, addr))

    async def _ask_on(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self.upstream is not None
        self._send(data[:2] + (await self.upstream.raw(data))[2:], addr)


@pytest.mark.parametrize("upstream_silent", [False, True])
@pytest.mark.parametrize("name", ["www.example.test", "printer", "db-0.db.nosuch"])
async def test_a_cache_whose_upstream_is_redirected_too_makes_no_loop(name: str, upstream_silent: bool) -> None:
    cache, world = Cache(), FakeServer(WORLD, silent=upstream_silent)
    first, second = socket_pair(), socket_pair()
    laptop = Laptop(servers=[cache, world], here=[cache])
    cache.port = world.port = 0
    async with cache.running(), world.running():
        laptop.others = [(*first, ("127.0.0.1", cache.port)), (*second, ("127.0.0.1", world.port))]
        cache.upstream = Asker("127.0.0.1", second[0].getsockname()[1])
        stub = Asker("127.0.0.1", first[0].getsockname()[1])
        async with connected(laptop):
            answer = lines(await stub.ask(name))
    assert len(cache.seen) == 1 if not upstream_silent else len(cache.seen) <= 2
    assert answer[0] == ("SERVFAIL" if upstream_silent else lines_of(name))


def lines_of(name: str) -> str:
    """The code of the public answer."""
    return "NOERROR" if (f"{name}.", "A") in WORLD else "NXDOMAIN"


async def test_error_of_all_servers_is_handed_on() -> None:
    async with connected(Laptop(servers=[FakeServer(code=dns.rcode.REFUSED), FakeServer(silent=True)])) as laptop:
        assert lines(await laptop.stub.ask("www.example.test")) == ["REFUSED"]


async def test_nobody_answers() -> None:
    async with connected(Laptop(servers=[FakeServer(silent=True)])) as laptop:
        assert lines(await laptop.stub.ask("www.example.test")) == ["SERVFAIL"]
        assert B in lines(await laptop.stub.ask("b")), "the cluster answers all the same"


async def test_forged_answers_are_ignored() -> None:
    def forge(answer: bytes) -> list[bytes]:
        wrong_id = bytes([answer[0] ^ 1]) + answer[1:]
        wrong_name = answer[:12] + answer[12:].replace(b"\x03www", b"\x03xxx", 1)
        return [wrong_id, wrong_name, answer[:2], b"", b"\xff" * 40, answer]

    async with connected(Laptop(servers=[FakeServer(WORLD, tamper=forge)])) as laptop:
        assert lines(await laptop.stub.ask("www.example.test")) == [
            "NOERROR",
            "www.example.test. 30 IN A 192.0.2.1",
        ]


async def test_ids_and_ports_cannot_be_guessed() -> None:
    async with connected(Laptop()) as laptop:
        query = dns.message.make_query("www.example.test", "A", id=1).to_wire()
        for _ in range(20):
            await laptop.stub.raw(query)
        assert len({wire[:2] for wire in laptop.world.wires}) > 15
