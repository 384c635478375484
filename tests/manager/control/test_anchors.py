"""Which certificates become trust anchors: those of the agents' form, and of each session some."""

import pytest

from meshdev.manager.control import anchors
from meshdev.manager.control.anchors import named_agents, select
from meshdev.wire.intercepts import AttestedAgent
from tests.manager.control.identities import identity


def test_an_agent_is_named_by_its_key_in_its_sessions_words() -> None:
    one = identity()
    (named,), fault = named_agents([one.attested])
    assert fault == ""
    assert named == (one.key, one.proof, "b-1", "uid-b-1", one.certificate)


@pytest.mark.parametrize("certificate", [b"", b"DER", identity().certificate[:-1], identity().certificate + b"x"])
def test_what_is_not_an_agents_is_left_out(certificate: bytes) -> None:
    other = identity("b-2").attested
    found, fault = named_agents([AttestedAgent(certificate, "a" * 64, "bad", "u"), other])
    assert [each.pod for each in found] == ["b-2"]
    assert fault.startswith("the agent of pod bad is not taken: ")


def test_each_session_has_some_where_there_is_no_room_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchors, "MAX_ANCHORS", 4)
    many = [(f"m{number}", b"") for number in range(10)]
    few = [("f0", b""), ("f1", b"")]
    assert list(select({"eve": many, "ann": few})) == ["m0", "f0", "m1", "f1"]
    assert list(select({"ann": few})) == ["f0", "f1"]
    assert select({"ann": [("a", b"1")], "bob": [("a", b"2")]}) == {"a": b"2"}, "of a key one"
