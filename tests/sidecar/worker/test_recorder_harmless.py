"""What goes wrong with records, or takes too long, costs records and nothing else."""

import pytest

from meshdev.errors import ProtocolError
from meshdev.sidecar.worker import recorder as module
from meshdev.sidecar.worker.recorder import OpenRecord
from meshdev.wire.access import AccessRecords
from tests.sidecar.worker.test_recorder import ALL, World, head, world

__all__ = ["world"]


@pytest.mark.parametrize("broken", ["_describe", "_made"])
def test_an_error_loses_records_and_is_nobody_elses(
    world: World, broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: OpenRecord) -> None:
        raise ZeroDivisionError

    world.recorder.watch(ALL)
    open_still = world.begin()
    with monkeypatch.context() as patch:
        patch.setattr(module, broken, fails)
        for long in (False, True):
            record = world.begin(head("/" + "x" * 3000 * long))
            if record is not None:
                record.end()
            world.wait(0.2)
    assert (world.dropped, [each for each in world.sent if each.records]) == (3, [])
    assert len(caplog.records) == 1
    assert open_still is not None
    open_still.end()
    record = world.begin(head("/next"))
    assert record is not None
    record.end()
    assert world.one().path == "/next"


def test_what_cannot_be_sent_is_not_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: AccessRecords) -> bool:
        raise ProtocolError("too long")

    world.recorder.watch(ALL)
    record = world.begin()
    assert record is not None
    with monkeypatch.context() as patch:
        patch.setattr(world.recorder, "send", fails)
        record.end()
        world.wait(0.11)
    world.wait(0.2)
    assert world.dropped >= 1
    assert not any(each.records for each in world.sent)


def test_records_take_their_share_of_the_time_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    describe = module._describe

    def slow(record: OpenRecord) -> None:
        if record.head is not None:
            world.spent += 0.01
        describe(record)

    monkeypatch.setattr(module, "_describe", slow)
    world.recorder.watch(ALL)
    begun = 0
    for _ in range(100):
        for long in (False, True):
            if (record := world.begin(head("/" + "x" * 3000 * long))) is not None:
                record.end()
            begun += 1
        world.wait(0.05)
    made = sum(len(each.records) for each in world.sent)
    assert 0.8 < world.spent < module.SHARE * 5 + 0.1
    assert made + world.dropped == begun
