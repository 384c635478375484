"""What waits for a session whose laptop reads slowly: what is kept for it, and no more."""

import contextlib
import logging
import secrets
from pathlib import Path

import pytest

from meshdev.manager.tunnel import session as sessions
from meshdev.wire.control import Close
from meshdev.wire.intercepts import MAX_PART, Agents, AttestedAgent, Report, Withdraw
from tests.manager.claims import Listener, intercept, reported, spec
from tests.manager.standin import Manager
from tests.manager.test_agents import agents, issued
from tests.manager.test_intercepts import Ann

B = spec("b")
TURNS = 20


@pytest.fixture
def _slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is sent at once, and then nothing."""
    monkeypatch.setattr(sessions, "MAX_SENT", 10)
    monkeypatch.setattr(sessions, "SENT_PER_SECOND", 0.001)


def waiting(manager: Manager) -> int:
    return manager.ask(lambda: len(next(iter(manager.server._sessions.values()))._outbox))


def to_its_end(carrier: Ann) -> None:
    with contextlib.suppress(EOFError):
        while carrier.frame():
            pass


def part(turn: int) -> tuple[AttestedAgent, ...]:
    return tuple(AttestedAgent(b"%d %d" % (turn, number), "1" * 64, "b", "u") for number in range(MAX_PART))


@pytest.mark.usefixtures("_slow")
def test_only_certificates_of_agents_that_are_named_wait(manager: Manager, tmp_path: Path) -> None:
    with Ann(manager) as ann, Listener(tmp_path) as control:
        ann.relays(intercept(B, 1))
        claim = control.claimed()
        for turn in range(TURNS):
            ann.say(Agents(B.id, 0, part(turn), turn + 2))
            assert agents(control).agents == part(turn)
            for one in part(turn):
                control.say(issued(claim.id, one))
            control.say(reported(claim.id, Report(B.id, f"b-{turn}", "joined")))
            held = manager.server._claims._by_alias[claim.id][1]
            manager.until(lambda held=held, turn=turn: len(held.reports) == turn + 1)  # type: ignore[misc]  # a default in a lambda
        assert MAX_PART < waiting(manager) <= MAX_PART + TURNS
        ann.say(Withdraw(B.id, TURNS + 2))
        manager.until(lambda: not held.issued)
        assert waiting(manager) <= TURNS + 1, "reports, and the answer"


@pytest.mark.usefixtures("_slow")
def test_only_reports_that_are_kept_wait(manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshdev.manager.tunnel.reports.MAX_REPORTS", 5)
    with Ann(manager) as ann, Listener(tmp_path) as control:
        ann.relays(intercept(B, 1))
        claim = control.claimed()
        for number in range(100):
            control.say(reported(claim.id, Report(B.id, f"b-{number}", "joined")))
        held = manager.server._claims._by_alias[claim.id][1]
        manager.until(lambda: any(each.pod == "b-99" for each in held.reports))
        assert waiting(manager) == 5
        ann.say(Close("bye", ""))
        manager.until(lambda: not manager.server._sessions)


@pytest.mark.usefixtures("_slow")
def test_a_session_for_which_too_many_answers_wait_is_ended(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(sessions, "MAX_WAITING", 100)
    with Ann(manager, "eve", carriers=2) as eve, Ann(manager) as ann:
        eve.relays(intercept(B, 1))
        with Ann(manager, "eve", carrier=1, carriers=2) as second:
            eve.say(*(Withdraw(secrets.token_hex(16), order) for order in range(2, 200)))
            for each in (eve, second):
                to_its_end(each)
        assert "carrier 0 of eve ended: 101 messages wait for the laptop" in caplog.messages
        assert manager.ask(lambda: [len(each._outbox) for each in manager.server._sessions.values()]) == [0, 0]
        assert ann.relays(intercept(B, 1)).error is None
        with Ann(manager, "eve") as again:
            assert again.address == eve.address, "it may come back"


def test_what_is_sent_again_is_no_reason_to_end_a_session(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ann(manager) as ann, Listener(tmp_path) as control:
        ann.relays(intercept(B, 1))
        claim = control.claimed()
        for number in range(50):
            control.say(reported(claim.id, Report(B.id, f"b-{number}", "joined")))
            ann.hear()
    monkeypatch.setattr(sessions, "MAX_WAITING", 10)
    (session,) = manager.server._sessions.values()
    manager.until(lambda: session.carriers == 0)
    monkeypatch.setattr(session._rate, "_tokens", 5.0)
    monkeypatch.setattr(session._rate, "_per_second", 0.001)
    with Ann(manager) as again:
        again.say(Withdraw(secrets.token_hex(16), 2))
        manager.until(lambda: session.last_order == 2)
        assert (waiting(manager), session.carriers) == (51 + 1 - 5, 1)
