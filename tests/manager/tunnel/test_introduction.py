"""The manager's certificate reaches every session that can vouch for it, whenever either comes."""

from pathlib import Path

from meshdev.wire.control import INTERCEPT_PROTOCOL, ManagerIdentity, decode
from meshdev.wire.frames import PING, PONG
from tests.manager.claims import Listener, intercept, spec
from tests.manager.standin import Manager, Visitor, hello

FIRST, SECOND = ManagerIdentity(b"first"), ManagerIdentity(b"second")


def joined(manager: Manager, name: str, **changes: int) -> Visitor:
    visitor = Visitor(manager)
    visitor.say(hello(name, **changes)).welcome()
    return visitor


def heard(visitor: Visitor) -> object:
    while (found := visitor.frame())[0] in {PING, PONG}:
        pass
    return decode(*found)


def test_sessions_are_told_as_soon_as_control_is_there_and_when_it_changes(manager: Manager, tmp_path: Path) -> None:
    with joined(manager, "ann") as ann, Listener(tmp_path) as control:
        control.say(FIRST)
        assert heard(ann) == FIRST
        control.say(FIRST)
        with joined(manager, "bob") as bob:
            assert heard(bob) == FIRST, "one that comes later"
            control.say(SECOND)
            assert [heard(ann), heard(bob)] == [SECOND, SECOND], "the same once more is not told once more"


def test_it_stays_while_control_is_away(manager: Manager, tmp_path: Path) -> None:
    with joined(manager, "ann") as ann, Listener(tmp_path) as control:
        control.say(FIRST)
        assert heard(ann) == FIRST
    with joined(manager, "bob") as bob:
        assert heard(bob) == FIRST


def test_who_lost_its_carrier_is_told_again(manager: Manager, tmp_path: Path) -> None:
    with Listener(tmp_path) as control:
        with joined(manager, "ann") as ann:
            control.say(FIRST)
            assert heard(ann) == FIRST
        with joined(manager, "ann") as again:
            assert heard(again) == FIRST


def test_a_session_of_an_older_protocol_is_not_told(manager: Manager, tmp_path: Path) -> None:
    one = spec("b")
    with joined(manager, "ann") as ann, Listener(tmp_path) as control:
        control.say(FIRST)
        assert heard(ann) == FIRST
        with joined(manager, "old", newest=INTERCEPT_PROTOCOL - 1) as old:
            old.say(intercept(one, 1))
            assert getattr(heard(old), "id", None) == one.id, "the first that it hears is the answer"
