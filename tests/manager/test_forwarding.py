"""Reports of agents, from control through the tunnel container to the session: as they are, not too many."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from meshdev.manager.tunnel.session import MAX_SENT, SENT_PER_SECOND
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.frames import PING, PONG, REPORT
from meshdev.wire.intercepts import Report
from meshdev.wire.manager import PodReport
from tests.manager.claims import Listener, intercept, reported
from tests.manager.standin import Manager
from tests.manager.test_intercepts import Ann, B


def test_reports_reach_the_session_under_its_own_name_for_it(manager: Manager, tmp_path: Path) -> None:
    with Ann(manager) as ann, Listener(tmp_path) as control:
        ann.relays(intercept(B, 1))
        claim = control.claimed()
        control.say(reported("f" * 32, Report(B.id, "stranger", "joined")))
        control.say(reported(claim.id, Report(B.id, "b-1", "acked", counts=InterceptCounts(3), up=1)))
        assert ann.hear() == Report(B.id, "b-1", "acked", counts=InterceptCounts(3), up=1)


def test_a_report_is_forwarded_byte_for_byte(manager: Manager, tmp_path: Path) -> None:
    """What this manager's tunnel container does not know reaches a session that does."""
    body = '{"state":"of a later version","slow":7, "text":"é"}'.encode()
    with Ann(manager) as ann, Listener(tmp_path) as control:
        ann.relays(intercept(B, 1))
        control.say(PodReport(control.claimed().id, "b-1", False, body))
        kinds = {PING, PONG}
        assert next(it for it in iter(ann.frame, None) if it[0] not in kinds) == (REPORT, body)


def test_a_flood_of_reports_reaches_the_session_no_faster_than_it_may(timed: Manager, tmp_path: Path) -> None:
    with Ann(timed) as ann, Listener(tmp_path) as control:
        ann.relays(intercept(B, 1))
        claim = control.claimed()
        bodies: list[bytes] = []

        def hear() -> None:
            while not bodies or bodies[-1] != b"last":
                kind, body = ann.frame()
                if kind == REPORT:
                    bodies.append(body)

        with ThreadPoolExecutor(1) as threads:
            heard = threads.submit(hear)
            for number in range(3 * MAX_SENT):
                control.say(PodReport(claim.id, "b-1", False, b"%d" % number))
            control.say(PodReport(claim.id, "b-2", False, b"last"))
            timed.until(lambda: len(timed.server._claims._by_alias[claim.id][1].reports) == 2)
            while not heard.done():
                timed.pass_time(0.5)
        assert len(bodies) < MAX_SENT + SENT_PER_SECOND
        assert b"%d" % (3 * MAX_SENT - 1) in bodies


def test_a_session_that_never_reads_reports_is_bounded(manager: Manager, tmp_path: Path) -> None:
    with Ann(manager) as ann, Listener(tmp_path) as control:
        ann.relays(intercept(B, 1))
        claim = control.claimed()
        for number in range(5000):
            control.say(reported(claim.id, Report(B.id, f"b-{number % 2000}", "nacked", "x" * 800)))
        manager.until(lambda: "b-1999" in manager.server._claims._by_alias[claim.id][1].reports._by_pod)
        held = manager.ask(lambda: manager.server._claims._by_alias[claim.id][1])
        assert manager.ask(lambda: len(held.reports)) <= 1024
        assert manager.holders() == ["ann"]
        assert ann.frame()[0] != PING or ann.frame()
