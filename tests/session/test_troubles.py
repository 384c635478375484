"""What is wrong, since when, and what is new of it."""

from datetime import datetime, timedelta

from meshdev.session.troubles import Troubles


def test_a_trouble_keeps_its_beginning_until_it_is_over() -> None:
    now = datetime(2026, 11, 28, 15, 20, 31)  # noqa: DTZ001 -- as a clock on the wall
    troubles = Troubles(lambda: now)
    assert not troubles
    assert troubles.found("helper", ["it was set down"]) == (["it was set down"], [])
    assert troubles
    now += timedelta(seconds=9)
    assert troubles.found("helper", ["it was set down", "more"]) == (["more"], [])
    assert troubles.found("names", ["no names"]) == (["no names"], [])
    assert troubles.notes() == (
        "it was set down (since 15:20:31)",
        "more (since 15:20:40)",
        "no names (since 15:20:40)",
    )
    assert troubles.found("helper", []) == ([], [])  # it may have gone for a moment only
    assert len(troubles.notes()) == 3
    assert troubles.found("helper", ["more"]) == ([], ["it was set down"])
    assert troubles.found("helper", []) == ([], [])
    assert troubles.found("helper", []) == ([], ["more"])
    assert troubles.found("names", ["no names"]) == ([], [])
    troubles.forget("names")
    assert not troubles
    now += timedelta(seconds=9)
    troubles.found("helper", ["it was set down"])
    assert troubles.notes() == ("it was set down (since 15:20:49)",)
