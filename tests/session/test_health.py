"""Where packets go, judged; and the checks against a kernel and servers of the test."""

import asyncio
import resource
import socket
from ipaddress import IPv4Address, IPv4Network

import dns.message
import pytest
from dns.name import from_text

from meshdev.netlink.lookups import KernelRule, Lookup
from meshdev.session import health, surroundings
from meshdev.session.health import Health, stray
from meshdev.session.troubles import Troubles
from meshdev.wire.dns import PROBE_ADDRESS, answers, has_address, parse_query, probed, question
from tests.dns.servers import FakeServer

ADDRESS = IPv4Address("10.96.0.10")
LOOPBACK = socket.if_nametoindex("lo")


@pytest.mark.parametrize(
    ("found", "device", "said"),
    [
        (Lookup(LOOPBACK, 254), "lo", None),
        (Lookup(LOOPBACK, 254), "lo2", "packets to 10.96.0.10 leave by lo, not by lo2: "),
        (None, "meshdev0", "there is no route to 10.96.0.10"),
        (Lookup(LOOPBACK, 254), "meshdev0", "packets to 10.96.0.10 leave by lo, not by meshdev0: "),
        (Lookup(LOOPBACK, 77), "meshdev0", "packets to 10.96.0.10 leave by lo (table 77), not by meshdev0: "),
        (Lookup(1 << 20, 254), "meshdev0", "packets to 10.96.0.10 leave by nothing, not by meshdev0: "),
    ],
)
def test_where_packets_go(found: Lookup | None, device: str, said: str | None) -> None:
    text = stray(ADDRESS, found, device)
    assert text == said or (text is not None and said is not None and text.startswith(said))


def test_the_rule_is_named() -> None:
    rules = [KernelRule(0, 255), KernelRule(99, 77), KernelRule(100, 77), KernelRule(32766, 254)]
    text = stray(ADDRESS, Lookup(LOOPBACK, 77), "meshdev0", rules)
    assert text is not None
    assert text.startswith("packets to 10.96.0.10 leave by lo (table 77, ip rule 99 and 100), not by meshdev0: ")


class World:
    """Checks whose nameserver and resolver are servers of the test, on loopback."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, server: FakeServer, routes: tuple[IPv4Network, ...]) -> None:
        monkeypatch.setattr(surroundings, "DNS_PORT", server.port)
        monkeypatch.setattr(health, "_WAITS", (0.1, 0.1))
        monkeypatch.setattr(health, "_REPAIR_SECONDS", 0.01)
        self.troubles = Troubles()
        self.connected = True
        self.recovered = 0
        self.failing = False
        self.health = Health(
            self.troubles,
            device="lo",
            nameserver=IPv4Address("127.0.0.1"),
            probe=from_text("meshdev-probe.cluster.local."),
            service=from_text("kubernetes.default.svc.cluster.local."),
            routes=lambda: routes,
            connected=lambda: self.connected,
            recovered=self.recover,
            resolver=lambda: IPv4Address("127.0.0.1"),
        )

    async def recover(self) -> bool:
        """Names and nameserver answered."""
        await asyncio.sleep(0)
        self.recovered += 1
        return self.failing

    async def notes(self) -> list[str]:
        """What one round finds."""
        await self.health.check()
        return [note.partition(" (since")[0] for note in self.troubles.notes()]


KUBERNETES = {("kubernetes.default.svc.cluster.local.", "A"): ["10.96.0.1"]}
PROBE = {(f"{number}.meshdev-probe.cluster.local.", "A"): ["192.0.2.1"] for number in range(16)}


async def test_what_works_is_not_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer({**KUBERNETES, **PROBE})
    async with server.running():
        world = World(monkeypatch, server, (IPv4Network("127.0.0.0/8"),))
        assert await world.notes() == []
        assert world.recovered == 1


async def test_nothing_is_over_while_programs_questions_still_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer({**KUBERNETES, **PROBE})
    async with server.running():
        world = World(monkeypatch, server, ())
        world.troubles.report("names", ["names do not work"])
        world.failing = True
        for _ in range(3):
            assert await world.notes() == ["names do not work"]
        world.failing = False
        assert await world.notes() == ["names do not work"]
        assert await world.notes() == []


async def test_names_that_go_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(KUBERNETES)
    async with server.running():
        world = World(monkeypatch, server, ())
        assert await world.notes() == [
            "names do not work: 127.0.0.1, which resolv.conf names, answers without asking us"
        ]
        assert world.recovered == 0


async def test_a_name_that_hangs_in_the_resolver_says_nothing_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd-resolved lets all who ask for a name wait for the one query whose packet was lost."""
    server = FakeServer({**KUBERNETES, **PROBE})
    hanging: list[str] = []

    def lose(wire: bytes) -> list[bytes]:
        name = str(dns.message.from_wire(wire).question[0].name)
        if "meshdev-probe" in name and not hanging:
            hanging.append(name)
        return [] if name in hanging else [wire]

    server.tamper = lose
    async with server.running():
        world = World(monkeypatch, server, ())
        for _ in range(3):
            assert await world.notes() == []
    assert hanging


async def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer({})
    async with server.running():
        pass
    world = World(monkeypatch, server, ())
    assert await world.notes() == [
        "names do not work: 127.0.0.1, which resolv.conf names, does not answer",
        "the cluster's nameserver 127.0.0.1 does not answer through the tunnel",
    ]
    world.connected = False  # the tunnel is down: that is told otherwise
    checking = asyncio.ensure_future(world.health.run())
    while world.troubles:  # noqa: ASYNC110 -- it is over with the first round
        await asyncio.sleep(0)
    checking.cancel()


async def test_without_a_free_descriptor_it_is_no_answer_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, FakeServer({}), ())
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, former[1]))
    try:
        notes = await world.notes()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, former)
    assert any(note.startswith("names do not work") for note in notes)


async def test_routes_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    many = tuple(IPv4Network((0x7F000100 + number, 32)) for number in range(100))
    foreign = IPv4Network("192.0.2.77/32")
    server = FakeServer({**KUBERNETES, **PROBE})
    async with server.running():
        world = World(monkeypatch, server, (*many, foreign))
        rounds = [await world.notes() for _ in range(5)]
    assert [len(notes) for notes in rounds] in ([0, 0, 0, 1, 1], [0, 0, 0, 1, 0])
    assert "192.0.2.77" in rounds[3][0]


def test_the_forwarders_answer_is_what_is_looked_for() -> None:
    query = question(from_text("meshdev-probe.cluster.local."), 7)
    parsed = parse_query(query.wire)
    assert parsed is not None
    assert parsed.name == query.name
    assert answers(probed(query), query)
    assert has_address(probed(query), PROBE_ADDRESS)
    assert not has_address(probed(query)[:20], PROBE_ADDRESS)
