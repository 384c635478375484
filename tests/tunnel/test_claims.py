"""What the laptop tells of its intercepts: to the real tunnel server, through carriers that end, to a new manager."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.identity.fingerprints import fingerprint
from meshdev.intercept import spec as specs
from meshdev.session.records import PodRecord, RecordFeed
from meshdev.tunnel.claims import ClaimMessage, Claims
from meshdev.tunnel.pool import Pool
from meshdev.wire.access import AccessRecord, AccessRecords, Watch
from meshdev.wire.control import ManagerIdentity, encode_body
from meshdev.wire.intercepts import (
    MAX_AGENTS,
    Agents,
    AttestedAgent,
    Intercept,
    Issued,
    Local,
    Relay,
    Relays,
    Report,
    Withdraw,
)
from meshdev.wire.manager import ListeningPort, RecordsOfClaim
from meshdev.wire.watching import ClaimRecords, WatchClaim
from tests.manager.claims import Listener, reported, spec
from tests.manager.standin import Manager, running
from tests.tunnel.standin import Laptop, dial
from tests.tunnel.standin import Relay as Wire
from tests.waiting import until

B = spec("b")
TEXT = specs.encode(B)
WATCH = Watch(on=True, all=True)
RECORD = AccessRecord(1, IPv4Address("10.244.1.1"), 80, "HTTP/2", "laptop", 250, "GET", "b", "/a", 200)


@asynccontextmanager
async def up(laptop: Laptop, wire: Wire, heard: list[Relays | Report]) -> AsyncIterator[Pool]:
    pool = laptop.pool(lambda: dial(wire.address))
    for name in ("b", "gone", *(f"n{number}" for number in range(20))):
        pool.claims.listen(spec(name).id, heard.append)
    async with pool.running():
        await pool.start()
        task = asyncio.create_task(pool.run())
        try:
            await until(lambda: sum(each.up for each in pool.carriers()) == 2)
            yield pool
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.mark.usefixtures("nothing_left")
async def test_a_claim_gets_its_relays_and_is_withdrawn(
    laptop: Laptop, manager: Manager, relay: Wire, tmp_path: Path
) -> None:
    heard: list[Relays | Report] = []
    with Listener(tmp_path) as control:
        async with up(laptop, relay, heard) as pool:
            pool.claims.declare(B.id, TEXT)
            pool.claims.local(B.id, 8080, "tcp", True)
            await until(lambda: heard)
            assert heard == [Relays(B.id, (Relay(8080, "tcp", 20000),))]
            claims = [control.claimed(), control.claimed()]
            assert [claim.up for claim in claims] == [(), (ListeningPort(8080, "tcp"),)]
            control.say(reported(claims[0].id, Report(B.id, "b-1", "acked")))
            await until(lambda: heard[-1] == Report(B.id, "b-1", "acked"))
            pool.claims.withdraw(B.id)
            await until(lambda: heard[-1] == Relays(B.id))
            assert manager.holders() == ["ann@laptop"]


async def test_pods_that_are_left_out_are_told_to_control(
    laptop: Laptop, manager: Manager, relay: Wire, tmp_path: Path
) -> None:
    heard: list[Relays | Report] = []
    with Listener(tmp_path) as control:
        async with up(laptop, relay, heard) as pool:
            pool.claims.declare(B.id, TEXT)
            await until(lambda: heard)
            assert control.claimed().excluded == ()
            pool.claims.exclude(B.id, ("b-2",))
            assert (await asyncio.to_thread(control.claimed)).excluded == ("b-2",)
            pool.claims.exclude("another", ("b-2",))
            relay.cut()  # what is told again on the next carrier is the same
            pool.claims.local(B.id, 8080, "tcp", True)
            assert (await asyncio.to_thread(control.claimed)).excluded == ("b-2",)
            assert manager.holders() == ["ann@laptop"]


async def test_a_lost_carrier_loses_no_word(laptop: Laptop, manager: Manager, relay: Wire, tmp_path: Path) -> None:
    heard: list[Relays | Report] = []
    with Listener(tmp_path) as control:
        async with up(laptop, relay, heard) as pool:
            for number in range(20):
                one = spec(f"n{number}")
                pool.claims.declare(one.id, specs.encode(one))
                pool.claims.local(one.id, 8080, "tcp", number % 2 == 0)
                if number % 5 == 0:
                    relay.cut()
                await asyncio.sleep(0)
            await until(lambda: len({each.id for each in heard if isinstance(each, Relays) and each.relays}) == 20)
            await until(lambda: len(manager.network.relays) == 20)
            states: dict[str, bool] = {}
            while sum(states.values()) < 10 or len(states) < 20:
                claim = await asyncio.to_thread(control.claimed)
                states[claim.id] = bool(claim.up)
            assert sum(states.values()) == 10


async def test_a_new_manager_is_told_everything(laptop: Laptop, manager: Manager, relay: Wire, tmp_path: Path) -> None:
    heard: list[Relays | Report] = []
    gone = spec("gone")
    async with up(laptop, relay, heard) as pool:
        for one in (B, gone):
            pool.claims.declare(one.id, specs.encode(one))
            pool.claims.local(one.id, 8080, "tcp", True)
        await until(lambda: len(heard) == 2)
        pool.claims.withdraw(gone.id)
        await until(lambda: heard[-1] == Relays(gone.id))
        heard.clear()
        folder = tmp_path / "second"
        folder.mkdir()
        with running(folder) as second, Listener(folder) as control:
            relay.target = second.address
            manager.ask(manager.server.close)
            relay.cut()
            claim = await asyncio.to_thread(control.claimed)
            while not claim.up:
                claim = await asyncio.to_thread(control.claimed)
            assert claim.spec == TEXT
            await until(lambda: Relays(B.id, (Relay(8080, "tcp", 20000),)) in heard)
            assert len(second.network.relays) == 1
            await pool.leave()


def said(claims: Claims) -> list[ClaimMessage]:
    words: list[ClaimMessage] = []
    claims.use(words.append)
    return words


def test_what_is_told_anew_is_the_state_not_the_story() -> None:
    claims = Claims()
    claims.declare(B.id, "{}")
    claims.local(B.id, 80, "tcp", True)
    claims.local(B.id, 80, "tcp", False)
    claims.declare(B.id, TEXT, reset_older=True)
    claims.local("0" * 32, 80, "tcp", True)
    claims.declare("1" * 32, TEXT)
    claims.withdraw("1" * 32)
    claims.withdraw("2" * 32)
    told: list[ClaimMessage] = [
        Withdraw("1" * 32, 1),
        Intercept(B.id, TEXT, True, 2),
        Local(B.id, 80, "tcp", False, 3),
    ]
    assert said(claims) == told
    claims.use(None)
    claims.on_message(Relays("1" * 32))
    assert [type(message) for message in said(claims)] == [Intercept, Local]


def test_nothing_is_told_twice_without_need() -> None:
    claims = Claims()
    words = said(claims)
    claims.declare(B.id, TEXT)
    for up_ in (True, True, False, False):
        claims.local(B.id, 80, "tcp", up_)
    assert words == [
        Intercept(B.id, TEXT, False, 1),
        Local(B.id, 80, "tcp", True, 2),
        Local(B.id, 80, "tcp", False, 3),
    ]


def agents(start: int, stop: int, *, proof: str = "0") -> list[AttestedAgent]:
    return [
        AttestedAgent(f"{number:04}".encode(), proof * 64, f"b-{number}", f"uid-{number}")
        for number in range(start, stop)
    ]


def named(words: list[ClaimMessage]) -> set[AttestedAgent]:
    """Whom somebody knows who heard all of that."""
    parts = {word.part: word.agents for word in words if isinstance(word, Agents)}
    return {agent for part in parts.values() for agent in part}


def parts(words: list[ClaimMessage]) -> list[tuple[int, int]]:
    """Which parts were sent, and how many agents each has."""
    return [(word.part, len(word.agents)) for word in words if isinstance(word, Agents)]


def test_agents_are_told_in_parts_and_only_what_changes() -> None:
    claims = Claims()
    words = said(claims)
    claims.agents(B.id, agents(0, 1))
    assert words == [], "it is not declared"
    claims.declare(B.id, TEXT)
    claims.agents(B.id, agents(0, 1))
    claims.agents(B.id, agents(0, 1))
    assert words[1:] == [Agents(B.id, 0, tuple(agents(0, 1)), 2)]
    claims.agents(B.id, agents(0, 120))
    assert parts(words[2:]) == [(0, 48), (1, 48), (2, 24)]
    before = len(words)
    claims.agents(B.id, agents(0, 95))  # of the third part all, of the second the last
    assert named(words) == set(agents(0, 95))
    assert parts(words[before:]) == [(1, 47), (2, 0)]
    claims.agents(B.id, [*agents(0, 95), *agents(2000, 2001)])
    assert named(words) == {*agents(0, 95), *agents(2000, 2001)}
    assert len(words) == before + 3, "one part has room for it"
    claims.agents(B.id, agents(0, 5000))
    assert len(named(words)) == MAX_AGENTS


def test_a_new_proof_takes_the_place_of_the_former_one_in_one_message() -> None:
    claims = Claims()
    words = said(claims)
    claims.declare(B.id, TEXT)
    claims.agents(B.id, agents(0, 60))
    before = len(words)
    renewed = [*agents(0, 3), *agents(3, 4, proof="1"), *agents(4, 60)]
    claims.agents(B.id, renewed)
    assert parts(words[before:]) == [(0, 48)]
    assert named(words) == set(renewed)


def test_who_begins_anew_is_told_whom_a_claim_reaches_and_nobody_else() -> None:
    claims = Claims()
    claims.declare(B.id, TEXT)
    claims.agents(B.id, agents(0, 60))
    claims.agents(B.id, agents(0, 10))
    words = said(claims)
    assert [type(word) for word in words] == [Intercept, Agents, Agents], "also that a part is empty now"
    assert named(words) == set(agents(0, 10))
    claims.withdraw(B.id)
    claims.agents(B.id, agents(0, 20))
    assert [type(word) for word in said(claims)] == [Withdraw]


def test_the_managers_certificate_is_the_one_that_it_named_last() -> None:
    claims = Claims()
    assert claims.manager_certificate.value is None
    for certificate in (b"first", b"second"):
        claims.on_message(ManagerIdentity(certificate))
        assert claims.manager_certificate.value == certificate


async def test_the_certificate_of_an_agent_is_the_one_that_was_issued_last() -> None:
    claims, (one, two) = Claims(), agents(0, 2)
    claims.declare(B.id, TEXT)
    claims.agents(B.id, [one])
    waiting = asyncio.ensure_future(claims.issued(B.id, one.request))
    for request, certificate in ((two.request, b"not named"), (one.request, b"first")):
        await asyncio.sleep(0)
        assert not waiting.done()
        claims.on_message(Issued(B.id, fingerprint(request), certificate))
    assert await waiting == b"first"
    claims.on_message(Issued("9" * 32, fingerprint(one.request), b"of no claim"))
    claims.on_message(Issued(B.id, fingerprint(one.request), b"next"))
    claims.agents(B.id, [one, two])
    assert await claims.issued(B.id, one.request) == b"next"
    claims.agents(B.id, [two])
    claims.agents(B.id, [one, two])
    for agent in (one, two):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(claims.issued(B.id, agent.request), 0.01)


async def test_what_a_former_manager_issued_counts_no_more() -> None:
    claims, (one,) = Claims(), agents(0, 1)
    claims.declare(B.id, TEXT)
    claims.agents(B.id, [one])
    claims.on_message(ManagerIdentity(b"first"))
    claims.on_message(Issued(B.id, fingerprint(one.request), b"DER"))
    claims.on_message(ManagerIdentity(b"first"))
    assert await claims.issued(B.id, one.request) == b"DER"
    claims.on_message(ManagerIdentity(b"second"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(claims.issued(B.id, one.request), 0.01)


@given(st.lists(st.sets(st.integers(0, 1500), max_size=1200), max_size=6), st.integers(0, 1))
def test_whatever_changes_the_parts_are_the_whole(states: list[set[int]], renewed: int) -> None:
    claims = Claims()
    words = said(claims)
    claims.declare(B.id, TEXT)
    for turn, state in enumerate(states):
        proof = str(turn * renewed)
        wanted = {agent for number in state for agent in agents(number, number + 1, proof=proof)}
        claims.agents(B.id, wanted)
        assert named(words) <= wanted
        assert len(named(words)) == min(len(wanted), MAX_AGENTS)
    assert named(said(claims)) == named(words)


def test_what_is_watched_is_said_at_once_and_on_every_carrier() -> None:
    claims, words = Claims(), list[ClaimMessage]()
    claims.watch(B.id, WATCH)
    assert said(claims) == [], "it is not claimed yet"
    claims.declare(B.id, TEXT)
    claims.use(words.append)
    assert words[1:] == [WatchClaim(B.id, WATCH)]
    claims.watch(B.id, Watch())
    assert words[2:] == [WatchClaim(B.id, Watch())]
    assert len(said(claims)) == 1
    claims.watch("1" * 32, WATCH)
    assert len(said(claims)) == 1


def test_a_claim_that_was_watched_before_is_watched_when_it_is_declared() -> None:
    claims, words = Claims(), list[ClaimMessage]()
    claims.use(words.append)
    claims.watch(B.id, WATCH)
    assert words == []
    claims.declare(B.id, TEXT)
    assert [type(each) for each in words] == [Intercept, WatchClaim]
    assert words[1] == WatchClaim(B.id, WATCH)
    claims.watch(B.id, Watch())
    claims.declare(B.id, TEXT)
    assert isinstance(words[-1], Intercept)


def test_records_go_to_whoever_wants_them() -> None:
    claims, found = Claims(), list[ClaimRecords]()
    records = ClaimRecords(B.id, "b-1", AccessRecords((), 1))
    claims.on_message(records)
    claims.on_records = found.append
    claims.on_message(records)
    assert found == [records]


async def test_records_come_through_the_tunnel(laptop: Laptop, manager: Manager, relay: Wire, tmp_path: Path) -> None:
    with Listener(tmp_path) as control:
        async with up(laptop, relay, []) as pool:
            feed = RecordFeed(pool.claims.watch)
            pool.claims.on_records = feed.on_records
            pool.claims.declare(B.id, TEXT)
            alias = (await asyncio.to_thread(control.claimed)).id
            news = asyncio.Event()
            subscription = feed.subscribe({B.id}, WATCH, news.set)
            assert await asyncio.to_thread(control.hear) == WatchClaim(alias, WATCH)
            body = encode_body(ClaimRecords(B.id, "b-1", AccessRecords((RECORD,), 2)))
            control.say(RecordsOfClaim(alias, body))
            async with asyncio.timeout(10):
                await news.wait()
            assert subscription.take() == ([PodRecord(B.id, "b-1", RECORD)], 2)
            relay.cut()  # the next carrier's manager is told again
            watched: list[WatchClaim] = []
            while not watched:
                message = await asyncio.to_thread(control.hear)
                watched += [message] if isinstance(message, WatchClaim) else []
            assert watched == [WatchClaim(alias, WATCH)]
            assert manager.holders() == ["ann@laptop"]
