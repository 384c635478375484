"""The agents of a claim at the tunnel container: told to control as they are, and nothing of a session of before."""

from pathlib import Path

from meshdev.wire.control import INTERCEPT_PROTOCOL
from meshdev.wire.intercepts import AgentKeys, Withdraw
from meshdev.wire.manager import Claimed, Withdrawn
from tests.manager.claims import Listener, intercept, spec
from tests.manager.standin import Manager
from tests.manager.test_intercepts import Ann, relays_of

B = spec("b")
ONE, TWO = "1" * 64, "2" * 64


def agents(control: Listener) -> AgentKeys:
    message = control.hear()
    assert isinstance(message, AgentKeys), message
    return message


def test_the_agents_of_a_claim_are_told_to_control(manager: Manager, tmp_path: Path) -> None:
    with Ann(manager) as ann, Listener(tmp_path) as control:
        ann.say(AgentKeys(B.id, 0, (ONE,), 1))  # of a claim that is not there
        ann.relays(intercept(B, 2))
        claim = control.claimed()
        ann.say(AgentKeys(B.id, 1, (ONE, TWO), 3), AgentKeys(B.id, 1, (ONE, TWO), 4), AgentKeys(B.id, 0, (ONE,), 5))
        assert [agents(control), agents(control)] == [
            AgentKeys(claim.id, 1, (ONE, TWO)),
            AgentKeys(claim.id, 0, (ONE,)),
        ]
        ann.say(AgentKeys(B.id, 1, (), 6), AgentKeys(B.id, 1, (TWO,), 6))
        assert agents(control) == AgentKeys(claim.id, 1, ())
        with Listener(tmp_path) as second:  # who begins anew hears it after its claim
            told = [each for each in second.hear_all() if isinstance(each, Claimed | AgentKeys)]
            assert told == [claim, AgentKeys(claim.id, 1, ()), AgentKeys(claim.id, 0, (ONE,))]


def test_a_claim_that_is_withdrawn_reaches_nobody_until_it_comes_back(manager: Manager, tmp_path: Path) -> None:
    with Ann(manager) as ann, Listener(tmp_path) as control:
        ann.relays(intercept(B, 1))
        claim = control.claimed()
        ann.say(AgentKeys(B.id, 0, (ONE,), 2))
        assert agents(control).keys == (ONE,)
        ann.say(Withdraw(B.id, 3), AgentKeys(B.id, 0, (TWO,), 4))
        ann.hear()
        assert [control.hear(), control.hear()] == [Withdrawn(claim.id), AgentKeys(claim.id, 0, ())]
        ann.relays(intercept(B, 5))
        assert [control.hear(), control.hear()] == [claim, AgentKeys(claim.id, 0, (ONE,))]


def test_a_session_of_before_is_told_to_be_upgraded(manager: Manager) -> None:
    """Its sidecars would look for a token in a Secret; it goes on without intercepts."""
    with Ann(manager, newest=INTERCEPT_PROTOCOL - 1) as ann:
        error = ann.relays(intercept(B, 1)).error
        assert error is not None
        assert error.code == "version"
        assert error.reason.endswith("speaks 2: install a newer meshdev on this machine")
        assert relays_of(manager) == {}
        assert manager.holders() == ["ann"]
