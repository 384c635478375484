"""Streams, truncation, and whatever else may arrive at the listener: nothing of it hinders others."""

import asyncio

import dns.flags
import dns.message
import dns.rcode
import pytest

from tests.dns.conftest import KUBE, WORLD, Laptop, connected
from tests.dns.servers import FakeServer, lines
from tests.waiting import until


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
                if number % 100 == 99:  # or the kernel drops some before the forwarder sees them
                    await until(lambda: len(laptop.world.seen) + sum(task.done() for task in flood) >= len(flood))
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
