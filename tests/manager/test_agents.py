"""The agents of a claim at the tunnel container: told to control as they are, and nothing of a session of before."""

import itertools
from pathlib import Path

import pytest

from meshdev.identity.fingerprints import fingerprint
from meshdev.manager.tunnel import claims, control_socket, naming
from meshdev.manager.tunnel.claims import MAX_INTERCEPTS
from meshdev.manager.tunnel.held import HeldIntercept
from meshdev.wire.control import INTERCEPT_PROTOCOL, decode, encode_body
from meshdev.wire.frames import ISSUED
from meshdev.wire.intercepts import (
    AGENT_PARTS,
    AgentKeys,
    Agents,
    AttestedAgent,
    Issued,
    Relays,
    Report,
    Withdraw,
)
from meshdev.wire.manager import CertificateIssued, Claimed, Withdrawn
from tests.manager.claims import Listener, intercept, reported, spec
from tests.manager.standin import Manager, Visitor, hello
from tests.manager.test_intercepts import Ann, relays_of

B = spec("b")
ONE, TWO = (AttestedAgent(f"DER {digit}".encode(), digit * 64, f"b-{digit}", f"u-{digit}") for digit in "12")


def agents(control: Listener) -> Agents:
    message = control.hear()
    assert isinstance(message, Agents), message
    return message


def test_the_agents_of_a_claim_are_told_to_control(manager: Manager, tmp_path: Path) -> None:
    with Ann(manager) as ann, Listener(tmp_path) as control:
        ann.say(Agents(B.id, 0, (ONE,), 1))  # of a claim that is not there
        ann.relays(intercept(B, 2))
        claim = control.claimed()
        ann.say(Agents(B.id, 1, (ONE, TWO), 3), Agents(B.id, 1, (ONE, TWO), 4), Agents(B.id, 0, (ONE,), 5))
        assert [agents(control), agents(control)] == [
            Agents(claim.id, 1, (ONE, TWO)),
            Agents(claim.id, 0, (ONE,)),
        ]
        ann.say(Agents(B.id, 1, (), 6), Agents(B.id, 1, (TWO,), 6))
        assert agents(control) == Agents(claim.id, 1, ())
        with Listener(tmp_path) as second:  # who begins anew hears it after its claim
            told = [each for each in second.hear_all() if isinstance(each, Claimed | Agents)]
            assert told == [claim, Agents(claim.id, 1, ()), Agents(claim.id, 0, (ONE,))]


def test_a_claim_that_is_withdrawn_reaches_nobody_until_it_comes_back(manager: Manager, tmp_path: Path) -> None:
    with Ann(manager) as ann, Listener(tmp_path) as control:
        ann.relays(intercept(B, 1))
        claim = control.claimed()
        ann.say(Agents(B.id, 0, (ONE,), 2))
        assert agents(control).agents == (ONE,)
        ann.say(Withdraw(B.id, 3), Agents(B.id, 0, (TWO,), 4))
        ann.hear()
        assert [control.hear(), control.hear()] == [Withdrawn(claim.id), Agents(claim.id, 0, ())]
        ann.relays(intercept(B, 5))
        assert [control.hear(), control.hear()] == [claim, Agents(claim.id, 0, ())], "it names its agents anew"
        ann.say(Agents(B.id, 0, (ONE,), 6))
        assert agents(control) == Agents(claim.id, 0, (ONE,))


def test_all_there_is_may_be_more_than_waits_for_control(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent as fast as control reads, and what changes meanwhile is heard as it is in the end."""
    monkeypatch.setattr(control_socket, "MAX_WAITING", 64)
    claimed = [spec(f"x{number}") for number in range(MAX_INTERCEPTS)]
    with Ann(manager) as ann, Listener(tmp_path) as control:
        control.hear_all()
        control.sock.close()
        orders = itertools.count(1)
        for one in claimed:
            ann.relays(intercept(one, next(orders)))
            ann.say(*(Agents(one.id, part, (ONE,), next(orders)) for part in range(AGENT_PARTS)))
        withdrawn, changed = claimed[-1].id, claimed[-2].id
        with Listener(tmp_path) as late:
            manager.until(lambda: manager.control._connections[-1]._waits)
            ann.say(Withdraw(withdrawn, next(orders)), Agents(changed, 3, (TWO,), next(orders)))
            assert ann.hear() == Relays(withdrawn)
            manager.ask(lambda: None)
            heard = late.hear_all()
        claims = {each.id for each in heard if isinstance(each, Claimed)}
        parts = {(each.id, each.part): each.agents for each in heard if isinstance(each, Agents)}
        left = [held.alias for _, held in manager.server._claims._by_alias.values() if held.id != withdrawn]
        assert claims == set(left)
        assert {key: value for key, value in parts.items() if key[0] in claims} == {
            (alias, part): (TWO,) if (alias, part) == (left[-1], 3) else (ONE,)
            for alias in left
            for part in range(AGENT_PARTS)
        }


@pytest.mark.parametrize("limit", ["MAX_AGENTS", "MAX_AGENTS_IN_ALL"])
def test_the_agents_that_are_kept_are_bounded(
    limit: str, manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, limit, 1)
    with Ann(manager) as ann, Listener(tmp_path) as control:
        ann.relays(intercept(B, 1))
        control.claimed()
        ann.say(Agents(B.id, 0, (ONE, TWO), 2), Agents(B.id, 1, (TWO,), 3), Agents(B.id, 0, (ONE,), 4))
        assert agents(control).agents == (TWO,), "of the others there are too many"
        ann.say(Agents(B.id, 1, (), 5), Agents(B.id, 0, (ONE,), 6))
        assert [agents(control).agents, agents(control).agents] == [(), (ONE,)]


def held(manager: Manager) -> HeldIntercept:
    """The first that there is."""
    return next(each for _, each in manager.server._claims._by_alias.values())


def test_agents_are_named_no_faster_than_control_takes_them(
    timed: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "MAX_NAMED", 4)
    monkeypatch.setattr(naming, "NAMED_PER_SECOND", 2.0)
    with Ann(timed) as ann, Ann(timed, "bob") as bob, Listener(tmp_path) as control:
        ann.relays(intercept(B, 1))
        claim = control.claimed()
        ann.say(Agents(B.id, 0, (ONE, TWO), 2), Agents(B.id, 1, (ONE,), 3))
        ann.say(Agents(B.id, 2, (ONE, TWO), 4), Agents(B.id, 2, (TWO,), 5), Agents(B.id, 1, (ONE, TWO), 6))
        assert [agents(control), agents(control)] == [
            Agents(claim.id, 0, (ONE, TWO)),
            Agents(claim.id, 1, (ONE,)),
        ]
        timed.until(lambda: [*held(timed).overdue] == [2, 1])
        bob.relays(intercept(B, 1))
        control.claimed()
        bob.say(Agents(B.id, 0, (ONE, TWO), 2))
        assert agents(control).id != claim.id, "each session has its own rate"
        timed.pass_time(0.5)
        assert [agents(control), agents(control)] == [
            Agents(claim.id, 2, (TWO,)),
            Agents(claim.id, 1, (ONE, TWO)),
        ], "the newest of each"
        ann.say(Agents(B.id, 3, (ONE, TWO), 7))
        timed.until(lambda: [*held(timed).overdue] == [3])
        ann.say(Withdraw(B.id, 8))
        assert control.hear() == Withdrawn(claim.id)
        assert {agents(control) for _ in range(4)} == {Agents(claim.id, part, ()) for part in range(4)}


def issued(alias: str, agent: AttestedAgent, certificate: bytes = b"DER") -> CertificateIssued:
    """As control says it."""
    request = fingerprint(agent.request)
    return CertificateIssued(alias, request, encode_body(Issued(B.id, request, certificate)))


def heard(visitor: Visitor) -> Issued:
    """The next certificate."""
    while (frame := visitor.frame())[0] != ISSUED:
        pass
    message = decode(*frame)
    assert isinstance(message, Issued)
    return message


def test_certificates_of_agents_reach_their_session_and_again_when_its_carrier_is_lost(
    manager: Manager, tmp_path: Path
) -> None:
    with Ann(manager, carriers=2) as ann, Listener(tmp_path) as control, Visitor(manager) as second:
        ann.relays(intercept(B, 1))
        claim = control.claimed()
        ann.say(Agents(B.id, 0, (ONE, TWO), 2))
        assert agents(control).agents == (ONE, TWO)
        for message in (issued(claim.id, ONE), issued(claim.id, TWO), issued(claim.id, ONE, b"next")):
            control.say(message)
        assert [heard(ann).certificate for _ in range(3)] == [b"DER", b"DER", b"next"]
        second.say(hello("ann", carrier=1, carriers=2)).welcome()
        ann.close()
        again = {each.request: each.certificate for each in (heard(second), heard(second))}
        assert again == {fingerprint(ONE.request): b"next", fingerprint(TWO.request): b"DER"}


def test_certificates_of_agents_that_are_not_named_are_not_kept(manager: Manager, tmp_path: Path) -> None:
    def kept() -> list[set[str]]:
        return [set(held.issued) for _, held in manager.server._claims._by_alias.values()]

    with Ann(manager) as ann, Listener(tmp_path) as control:
        ann.relays(intercept(B, 1))
        claim = control.claimed()
        ann.say(Agents(B.id, 0, (ONE, TWO), 2))
        for message in (issued("0" * 32, ONE), issued(claim.id, ONE), issued(claim.id, TWO)):
            control.say(message)
        manager.until(lambda: len(kept()[0]) == 2)
        ann.say(Agents(B.id, 1, (ONE,), 3), Agents(B.id, 0, (), 4))
        manager.until(lambda: kept() == [{fingerprint(ONE.request)}])
        control.say(issued(claim.id, TWO, b"late"))
        control.say(reported(claim.id, Report(B.id, "b-1", "joined")))
        ann.hear()
        assert [each.certificate for each in ann.issued] == [b"DER", b"DER"]
        ann.say(Withdraw(B.id, 5))
        manager.until(lambda: kept() == [set()])


def test_a_session_of_before_is_told_to_be_upgraded(manager: Manager) -> None:
    """It knows agents by tokens; it goes on without intercepts."""
    with Ann(manager, newest=INTERCEPT_PROTOCOL - 1) as ann:
        error = ann.relays(intercept(B, 1)).error
        assert error is not None
        assert error.code == "version"
        assert error.reason.endswith("speaks 3: install a newer meshdev on this machine")
        ann.say(AgentKeys(B.id, 0, ("1" * 64,), 2))  # it says so all the same, which ends nothing
        assert ann.relays(intercept(B, 3)).error == error
        assert relays_of(manager) == {}
        assert manager.holders() == ["ann"]
