"""Intercepts at the tunnel container: relays, silence, and what control and sessions hear; all of it bounded."""

import random
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from meshdev.errors import FirewallError
from meshdev.intercept.spec import Port
from meshdev.manager.tunnel import control_socket
from meshdev.manager.tunnel.claims import LINGER_SECONDS, MAX_CHANGES, MAX_INTERCEPTS, MAX_RELAYS
from meshdev.wire import manager as wire
from meshdev.wire.control import Close, ManagerIdentity, decode, encode
from meshdev.wire.frames import PING, PONG, frame
from meshdev.wire.intercepts import Intercept, Issued, Local, Relay, Relays, Report, Withdraw
from meshdev.wire.manager import Allow, Claimed, ListeningPort, ManagerAddress, Seen, Synced, Withdrawn
from meshdev.wire.modes import PROXY
from meshdev.wire.watching import ClaimRecords
from tests.manager.claims import HTTP, Listener, intercept, reported, spec
from tests.manager.standin import POD, Manager, Visitor, hello

FIRST = IPv4Address("10.244.0.20")
SECOND = IPv4Address("10.244.0.21")
B = spec("b")
DATAGRAMS = spec("d", Port(9090, "udp", 9090), mode=PROXY)


class Ann(Visitor):
    """A session that answers nothing by itself."""

    def __init__(self, manager: Manager, name: str = "ann", **changes: object) -> None:
        super().__init__(manager)
        self.issued: list[Issued] = []
        self.records: list[ClaimRecords] = []
        self.address = self.say(hello(name, **changes)).welcome().address

    def hear(self) -> Relays | Report:
        """The next message that is no heartbeat, nor about the manager itself; certificates and records are kept."""
        while (message := self.hear_once()) is None:
            pass
        return message

    def hear_once(self) -> Relays | Report | None:
        """The next message, if it is such a one."""
        kind, body = self.frame()
        message = decode(kind, body) if kind not in {PING, PONG} else None
        if isinstance(message, Issued):
            self.issued.append(message)
            return None
        if isinstance(message, ClaimRecords):
            self.records.append(message)
            return None
        if isinstance(message, ManagerIdentity):
            return None
        assert message is None or isinstance(message, Relays | Report), message
        return message

    def relays(self, message: Intercept) -> Relays:
        self.say(message)
        heard = self.hear()
        assert isinstance(heard, Relays)
        assert heard.id == message.id
        return heard

    def quit(self) -> None:
        self.say(Close("bye", ""))
        assert self.gone() or True


def relays_of(manager: Manager) -> dict[tuple[str, int], IPv4Address]:
    return manager.ask(lambda: {relay: address for relay, (address, _) in manager.network.relays.items()})


def allowed(manager: Manager, relay: int) -> set[IPv4Address]:
    return manager.ask(lambda: set(manager.network.relays["udp", relay][1]))


def test_an_intercept_gets_relays_and_is_told_to_control(manager: Manager, tmp_path: Path) -> None:
    one = spec("b", HTTP, Port(9090, "udp", 9090), mode=PROXY)
    with Listener(tmp_path) as control, Ann(manager) as ann:
        assert control.pod == ManagerAddress(POD.address)
        assert control.hear_all() == [Synced()]
        assert control.hear() == Seen("joined", "ann", ann.address)
        heard = ann.relays(intercept(one, 1))
        assert heard == Relays(one.id, (Relay(8080, "tcp", 20000), Relay(9090, "udp", 20001)))
        assert relays_of(manager) == {("tcp", 20000): ann.address, ("udp", 20001): ann.address}
        claim = control.claimed()
        assert (claim.spec, claim.holder, claim.up) == (intercept(one, 1).spec, "ann", ())
        assert claim.relays == heard.relays
        assert claim.id != one.id
        ann.say(Local(one.id, 8080, "tcp", True, 2), Local(one.id, 9090, "udp", True, 3))
        ups = [control.hear(), control.hear()]
        assert [each.up for each in ups if isinstance(each, Claimed)] == [
            (ListeningPort(8080, "tcp"),),
            (ListeningPort(8080, "tcp"), ListeningPort(9090, "udp")),
        ]
        ann.say(Withdraw(one.id, 4))
        assert ann.hear() == Relays(one.id)
        assert control.hear() == Withdrawn(claim.id)


def test_the_same_again_changes_nothing_and_is_answered_again(manager: Manager, tmp_path: Path) -> None:
    with Ann(manager) as ann, Listener(tmp_path) as control:
        first = ann.relays(intercept(B, 1))
        control.claimed()
        assert ann.relays(intercept(B, 2)) == first
        ann.say(Local(B.id, 8080, "tcp", False, 3), Local(B.id, 8080, "tcp", True, 4))
        claim = control.claimed()
        assert claim.up == (ListeningPort(8080, "tcp"),)


def test_a_changed_match_keeps_its_relay_changed_ports_get_new_ones(manager: Manager, tmp_path: Path) -> None:
    with Ann(manager) as ann, Listener(tmp_path) as control:
        first = ann.relays(intercept(B, 1))
        control.claimed()
        assert ann.relays(intercept(spec("b", value="2"), 2)) == first
        claim = control.claimed()
        assert '"2"' in claim.spec
        other = ann.relays(intercept(spec("b", Port(8081, "tcp", 1)), 3))
        assert other.relays == (Relay(8081, "tcp", 20001),)
        assert relays_of(manager) == {("tcp", 20001): ann.address}
        manager.until(lambda: ("tcp", 20001) in manager.network.relays)


def test_a_session_that_changes_its_claims_all_the_time_is_refused(manager: Manager) -> None:
    with Ann(manager) as ann, Ann(manager, "bob") as bob:
        heard = [
            ann.relays(intercept(spec("b", Port(8080 + number % 2, "tcp", 1)), number + 1))
            for number in range(MAX_CHANGES + 50)
        ]
        refused = [each.error.code for each in heard if each.error]
        assert len(refused) > 20
        assert set(refused) == {"limit"}
        assert len(relays_of(manager)) <= 1
        assert bob.relays(intercept(B, 1)).error is None


def test_what_was_overtaken_is_skipped(manager: Manager, tmp_path: Path) -> None:
    with Ann(manager) as ann, Listener(tmp_path) as control:
        ann.relays(intercept(B, 5))
        control.claimed()
        ann.say(Withdraw(B.id, 4), Local(B.id, 8080, "tcp", True, 5), Local(B.id, 8080, "tcp", True, 6))
        claim = control.claimed()
        assert claim.up == (ListeningPort(8080, "tcp"),)


def test_a_withdrawn_intercept_keeps_its_relays_a_while_and_may_come_back(timed: Manager, tmp_path: Path) -> None:
    with Ann(timed) as ann, Listener(tmp_path) as control:
        first = ann.relays(intercept(B, 1))
        control.claimed()
        ann.say(Withdraw(B.id, 2))
        assert ann.hear() == Relays(B.id)
        assert isinstance(control.hear(), Withdrawn)
        with Listener(tmp_path) as late:
            assert late.hear_all() == [Synced()]
        assert ann.relays(intercept(B, 3)) == first
        assert isinstance(control.hear(), Claimed)
        ann.say(Withdraw(B.id, 4))
        assert ann.hear() == Relays(B.id)
        for second in range(round(LINGER_SECONDS) + 1):
            ann.say(frame(PING, b"%8d" % second))
            timed.pass_time(1)
        assert relays_of(timed) == {}
        assert ann.relays(intercept(B, 5)).relays == (Relay(8080, "tcp", 20001),)


def test_relays_go_with_their_session(manager: Manager, tmp_path: Path) -> None:
    with Listener(tmp_path) as control:
        control.hear_all()
        with Ann(manager) as ann:
            ann.relays(intercept(B, 1))
            ann.say(Close("bye", ""))
            manager.until(lambda: not manager.network.relays)
        assert isinstance(control.hear(), Seen)
        claim, gone = control.hear(), control.hear()
        assert isinstance(claim, Claimed)
        assert gone == Withdrawn(claim.id)
        assert manager.holders() == []


def test_one_id_of_two_sessions_is_two_intercepts(manager: Manager, tmp_path: Path) -> None:
    with Ann(manager) as ann, Ann(manager, "eve") as eve, Listener(tmp_path) as control:
        ours, theirs = ann.relays(intercept(B, 1)), eve.relays(intercept(B, 1))
        assert ours.relays != theirs.relays
        assert control.claimed().id != control.claimed().id
        eve.say(Withdraw(B.id, 2))
        eve.hear()
        assert ann.relays(intercept(B, 2)) == ours


def test_control_says_who_may_use_a_relay(manager: Manager, tmp_path: Path) -> None:
    with Ann(manager) as ann, Listener(tmp_path) as control:
        ann.relays(intercept(DATAGRAMS, 1))
        for message, expected in (
            (Allow(20000, (FIRST,), True), {FIRST}),
            (Allow(20000, (SECOND,), True), {FIRST, SECOND}),
            (Allow(20000, (SECOND,), False), {SECOND}),
            (Allow(20001, (FIRST,), False), {SECOND}),
            (Allow(20000, (), False), set()),
        ):
            control.say(message)
            manager.until(lambda expected=expected: manager.network.relays["udp", 20000][1] == expected)  # type: ignore[misc]  # a default in a lambda


def test_control_that_goes_leaves_the_relays_as_they_are(manager: Manager, tmp_path: Path) -> None:
    with Ann(manager) as ann:
        ann.relays(intercept(DATAGRAMS, 1))
        with Listener(tmp_path) as control:
            control.say(Allow(20000, (FIRST,), False))
            manager.until(lambda: manager.network.relays["udp", 20000][1])
        manager.until(lambda: not manager.control._connections)
        assert allowed(manager, 20000) == {FIRST}
        with Listener(tmp_path) as control:
            assert [type(each) for each in control.hear_all()] == [Claimed, Synced]


def test_everything_is_told_again_when_the_carrier_that_heard_it_is_lost(manager: Manager, tmp_path: Path) -> None:
    with Ann(manager, carriers=2) as ann, Listener(tmp_path) as control:
        relays = ann.relays(intercept(B, 1))
        claim = control.claimed()
        control.say(reported(claim.id, Report(B.id, "b-1", "acked")))
        assert ann.hear() == Report(B.id, "b-1", "acked")
        with Visitor(manager) as second:
            second.say(hello("ann", carrier=1, carriers=2)).welcome()
            ann.close()
            assert [second.message() for _ in range(2)] == [relays, Report(B.id, "b-1", "acked")]


def test_within_the_grace_everything_stays(timed: Manager, tmp_path: Path) -> None:
    with Ann(timed) as ann:
        relays = ann.relays(intercept(B, 1))
        ann.say(Local(B.id, 8080, "tcp", True, 2))
    timed.until(lambda: not any(timed.network.attached(ann.address)))
    timed.pass_time(8)
    with Visitor(timed) as again, Listener(tmp_path) as control:
        assert again.say(hello("ann")).welcome().address == ann.address
        assert again.message() == relays
        timed.pass_time(1)
        assert timed.ask(lambda: timed.network.silent) == set()
        claims = [each for each in control.hear_all() if isinstance(each, Claimed)]
        assert [each.up for each in claims] in ([()], [(ListeningPort(8080, "tcp"),)])


def test_a_silent_session_is_refused_after_a_second_and_cut_after_five(timed: Manager, tmp_path: Path) -> None:
    with Ann(timed) as ann, Listener(tmp_path) as control:
        ann.relays(intercept(B, 1))
        ann.say(Local(B.id, 8080, "tcp", True, 2))
        control.claimed()
        assert control.claimed().up == (ListeningPort(8080, "tcp"),)
        timed.ask(lambda: None)
        timed.pass_time(0.5)
        assert timed.ask(lambda: set(timed.network.silent)) == set()
        timed.pass_time(1)
        assert timed.ask(lambda: set(timed.network.silent)) == {ann.address}
        assert control.claimed().up == ()
        assert timed.ask(lambda: list(timed.network.cuts)) == []
        timed.pass_time(3)
        assert timed.ask(lambda: list(timed.network.cuts)) == []
        ann.say(frame(PING, b"12345678"))
        session = timed.server._claims._holders["616e6e".ljust(32, "0")].session
        timed.until(lambda: timed.loop.clock() - session.last_received < 1)
        timed.pass_time(0.5)
        assert control.claimed().up == (ListeningPort(8080, "tcp"),)
        assert timed.ask(lambda: set(timed.network.silent)) == set()
        timed.pass_time(5.5)
        assert timed.ask(lambda: list(timed.network.cuts)) == [ann.address]
        timed.pass_time(15)
        assert timed.ask(lambda: (set(timed.network.silent), dict(timed.network.relays))) == (set(), {})


def test_a_manager_that_was_stopped_itself_takes_nobody_for_silent(timed: Manager) -> None:
    with Ann(timed) as ann:
        ann.relays(intercept(B, 1))
        assert timed.clock is not None
        timed.clock.now += 3
        timed.ask(lambda: None)
        ann.say(frame(PING, b"12345678"))
        timed.until(
            lambda: (
                timed.loop.clock() - timed.server._claims._holders["616e6e".ljust(32, "0")].session.last_received < 1
            )
        )
        timed.pass_time(0.5)
        assert timed.ask(lambda: set(timed.network.silent)) == set()


def test_limits_are_told(manager: Manager) -> None:
    with Ann(manager) as ann:
        for number in range(MAX_INTERCEPTS):
            assert ann.relays(intercept(spec(f"n{number}"), 1 + number)).error is None
        refused = ann.relays(intercept(spec("more"), 100))
        assert refused.error is not None
        assert (refused.error.code, str(MAX_INTERCEPTS) in refused.error.reason) == ("limit", True)
    with Ann(manager, "bob") as bob:
        many = tuple(Port(number, "tcp", number) for number in range(1, 65))
        for number in range(MAX_RELAYS // 64):
            assert bob.relays(intercept(spec(f"m{number}", *many), 1 + number)).error is None
        refused = bob.relays(intercept(spec("more"), 100))
        assert refused.error is not None
        assert refused.error.code == "limit"


def test_a_firewall_that_refuses_is_told(manager: Manager) -> None:
    with Ann(manager) as ann:
        manager.network.refusal = FirewallError("nftables refused: no")
        refused = ann.relays(intercept(B, 1))
        assert refused.error is not None
        assert (refused.error.code, refused.error.reason) == ("firewall", "nftables refused: no")
        manager.network.refusal = None
        assert ann.relays(intercept(B, 2)).error is None


@pytest.mark.parametrize("text", ["", "{}", "[" * 5000, '{"id":"' + "0" * 32 + '"}', "\ud800"[:0] + '"' * 12000])
def test_a_hostile_spec_is_refused_and_told(manager: Manager, tmp_path: Path, text: str) -> None:
    with Ann(manager) as ann, Ann(manager, "eve") as eve:
        ours = ann.relays(intercept(B, 1))
        refused = eve.relays(Intercept(B.id, text, order=1))
        assert refused.error is not None
        assert refused.error.code == "protocol"
        other = eve.relays(Intercept("9" * 32, intercept(B, 1).spec, order=2))
        assert other.error is not None
        assert ann.relays(intercept(B, 2)) == ours
        with Listener(tmp_path) as control:
            assert len([each for each in control.hear_all() if isinstance(each, Claimed)]) == 1


@pytest.mark.parametrize(
    "words", [b"{}", b"[]", b'{"allow":{}}', b'{"synced":true}', bytes(100_000), b'{"report":' * 1000]
)
def test_a_hostile_listener_is_ended_and_costs_nothing(manager: Manager, tmp_path: Path, words: bytes) -> None:
    with Ann(manager) as ann, Listener(tmp_path) as control:
        relays = ann.relays(intercept(B, 1))
        control.sock.send(words)
        while control.sock.recv(1 << 17):
            pass
        assert ann.relays(intercept(B, 2)) == relays


def test_a_claim_that_is_too_long_for_control_is_refused(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_DATAGRAM", 800)
    with Ann(manager, "eve") as eve, Ann(manager) as ann:
        assert eve.relays(intercept(B, 1)).error is None
        refused = eve.relays(intercept(spec("b", value="2" * 500), 2)).error
        assert refused is not None
        assert "longer than 800" in refused.reason
        assert ann.relays(intercept(B, 1)).error is None
        with Listener(tmp_path) as control:
            assert [each.holder for each in control.hear_all() if isinstance(each, Claimed)] == ["ann"]


def flood_of_claims(visitor: Ann) -> None:
    dice = random.Random(3)  # noqa: S311 -- the same noise in every run
    order = 0
    for _ in range(300):
        for words in (
            intercept(spec(f"x{dice.randrange(9)}"), order := order + 1),
            Withdraw("0" * 32, order := order + 1),
        ):
            visitor.say(words)


def flood_of_changes(visitor: Ann) -> None:
    visitor.say(intercept(B, 1))
    visitor.say(b"".join(encode(Local(B.id, 8080, "tcp", order % 2 == 0, order)) for order in range(2, 5000)))


@pytest.mark.parametrize("flood", [flood_of_claims, flood_of_changes])
def test_a_control_container_that_never_reads_is_bounded(
    manager: Manager, tmp_path: Path, flood: Callable[[Ann], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "MAX_WAITING", 64)
    with Listener(tmp_path), Ann(manager) as ann, Ann(manager, "eve") as eve:
        flood(eve)
        assert ann.relays(intercept(B, 1)).error is None
        outboxes = manager.ask(lambda: [len(each._outbox) for each in manager.control._connections])
        assert all(size <= 64 for size in outboxes)
        with Listener(tmp_path) as fresh:
            mine = [each for each in fresh.hear_all() if isinstance(each, Claimed) and each.holder == "ann"]
        assert len(mine) == 1
