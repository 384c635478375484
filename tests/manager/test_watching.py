"""Watches and records at the tunnel container: passed on, of one's own intercepts only, in order, and bounded."""

from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from meshdev.manager.tunnel import claims
from meshdev.manager.tunnel.claims import MAX_WATCHES
from meshdev.manager.tunnel.session import MAX_RECORDS_BYTES, MAX_RECORDS_WAITING
from meshdev.wire.access import MAX_RECORDS, AccessRecord, AccessRecords, Watch
from meshdev.wire.control import encode_body
from meshdev.wire.intercepts import Withdraw
from meshdev.wire.manager import RecordsOfClaim
from meshdev.wire.watching import ClaimRecords, WatchClaim
from tests.manager.claims import Listener, intercept, spec
from tests.manager.standin import Manager
from tests.manager.test_intercepts import Ann

B = spec("b")
ALL = Watch(on=True, all=True)
RECORD = AccessRecord(1, IPv4Address("10.244.1.1"), 80, "HTTP/2", "laptop", 250, "GET", "b", "/a", 200)


def records(before: int, path: str = "/a", number: int = 1) -> ClaimRecords:
    one = AccessRecord(1, RECORD.source, 80, "HTTP/2", "laptop", 250, "GET", "b", path, 200)
    return ClaimRecords(B.id, "b-1", AccessRecords((one,) * number), before)


def hear_until(ann: Ann, wanted: Callable[[], object]) -> None:
    while not wanted():
        ann.hear_once()


def watched(control: Listener) -> list[WatchClaim]:
    """Up to the next claim."""
    found = []
    while isinstance(message := control.hear(), WatchClaim):
        found.append(message)
    return found


def test_a_watch_is_passed_on_under_the_name_that_control_knows(manager: Manager, tmp_path: Path) -> None:
    with Listener(tmp_path) as control, Ann(manager) as ann:
        ann.relays(intercept(B, 1))
        alias = control.claimed().id
        ann.say(WatchClaim(B.id, ALL))
        assert control.hear() == WatchClaim(alias, ALL)
        ann.say(WatchClaim(B.id, Watch()))
        assert control.hear() == WatchClaim(alias, Watch())


def test_nobody_watches_what_is_not_his(manager: Manager, tmp_path: Path) -> None:
    with Listener(tmp_path) as control, Ann(manager) as ann, Ann(manager, "eve") as eve:
        ann.relays(intercept(B, 1))
        alias = control.claimed().id
        other = spec("e")
        eve.relays(intercept(other, 1))
        control.claimed()
        eve.say(WatchClaim(B.id, ALL), WatchClaim(alias, ALL), WatchClaim(other.id, ALL))
        heard = control.hear()
        assert isinstance(heard, WatchClaim)
        assert heard.id != alias
        eve.say(Withdraw(other.id, 2), WatchClaim(other.id, ALL))
        eve.hear()
        ann.say(intercept(spec("b", value="2"), 2))
        assert watched(control) == []


def test_a_session_that_says_it_all_the_time_is_bounded(manager: Manager, tmp_path: Path) -> None:
    with Listener(tmp_path) as control, Ann(manager) as ann:
        ann.relays(intercept(B, 1))
        control.claimed()
        ann.say(*(WatchClaim(B.id, Watch(on=True, all=bool(number % 2))) for number in range(1000)))
        ann.say(intercept(spec("b", value="2"), 2))
        assert len(watched(control)) <= MAX_WATCHES + claims.WATCHES_PER_SECOND


def test_records_come_in_order_and_none_replaces_another(manager: Manager, tmp_path: Path) -> None:
    with Listener(tmp_path) as control, Ann(manager) as ann:
        ann.relays(intercept(B, 1))
        alias = control.claimed().id
        sent = [records(number) for number in range(50)]
        for each in sent:
            control.say(RecordsOfClaim(alias, encode_body(each)))
        control.say(RecordsOfClaim("0" * 32, encode_body(records(99))))
        hear_until(ann, lambda: len(ann.records) == 50)
        assert ann.records == sent


def test_a_session_that_reads_nothing_keeps_nobody_up_and_learns_what_it_lost(manager: Manager, tmp_path: Path) -> None:
    with Listener(tmp_path) as control, Ann(manager) as ann:
        ann.relays(intercept(B, 1))
        alias = control.claimed().id
        for number in range(1500):
            control.say(RecordsOfClaim(alias, encode_body(records(number, "x" * 500))))
        session = next(iter(manager.server._sessions.values()))
        assert manager.ask(lambda: len(session._records)) <= MAX_RECORDS_WAITING
        assert manager.ask(lambda: sum(map(len, session._records)) == session._record_bytes)
        control.say(RecordsOfClaim(alias, encode_body(records(1500, "/last"))))
        hear_until(ann, lambda: len(ann.records) > 1 and ann.records[-1].before > 400)
        numbers = [each.before for each in ann.records]
        assert numbers == sorted(numbers)
        assert manager.ask(lambda: session.carriers) == 1


def test_what_waits_for_a_session_that_reads_nothing_is_bounded_in_bytes_too(manager: Manager, tmp_path: Path) -> None:
    with Listener(tmp_path) as control, Ann(manager) as ann:
        ann.relays(intercept(B, 1))
        alias = control.claimed().id
        session = next(iter(manager.server._sessions.values()))
        most = 0
        for number in range(1000):
            control.say(RecordsOfClaim(alias, encode_body(records(number, "x" * 500, MAX_RECORDS))))
            if number % 50 == 49:
                most = max(most, manager.ask(lambda: sum(map(len, session._records))))
        assert MAX_RECORDS_BYTES // 2 < most <= MAX_RECORDS_BYTES
        hear_until(ann, lambda: len(ann.records) > 100)
        manager.ask(session._flush)
        assert manager.ask(lambda: sum(map(len, session._records)) == session._record_bytes)
