"""What goes wrong with records, or takes too long, costs records and nothing else."""

import pytest

from meshdev.errors import ProtocolError
from meshdev.sidecar.worker import open_record
from meshdev.sidecar.worker import recorder as module
from meshdev.sidecar.worker.open_record import OpenRecord
from meshdev.sidecar.worker.port import PassthroughPort
from meshdev.wire.access import RECORDS_PER_SECOND, AccessRecords
from tests.sidecar.worker.test_recorder import ALL, Connection, World, head, world

__all__ = ["world"]


@pytest.mark.parametrize("broken", ["describe", "made"])
def test_an_error_loses_records_and_is_nobody_elses(
    world: World, broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: OpenRecord) -> None:
        raise ZeroDivisionError

    world.recorder.watch(ALL)
    open_still = world.begin()
    with monkeypatch.context() as patch:
        for each in (module, open_record):
            patch.setattr(each, broken, fails)
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
    describe = open_record.describe

    def slow(record: OpenRecord) -> None:
        if record.head is not None:
            world.spent += 0.01
        describe(record)

    for each in (module, open_record):
        monkeypatch.setattr(each, "describe", slow)
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


def test_connections_that_last_keep_no_request_from_being_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_OPEN", 3)
    world.recorder.watch(ALL)
    lasting = [Connection(world.port) for _ in range(4)]
    for each in lasting[:2]:
        world.recorder.begin_bytes(each)
    assert world.recorder.begin(lasting[2], head("/upgraded")) is not None
    world.recorder.begin_rest(lasting[2], "upgraded", new=False)
    world.recorder.begin_bytes(lasting[3])
    assert world.recorder._dropped == 1
    for _ in range(2):
        made = [world.begin(head(f"/{number}")) for number in range(4)]
        assert [each is not None for each in made] == [True, True, True, False]
        for record in made[:3]:
            assert record is not None
            record.end()
    for one in lasting:
        world.recorder.end_all(one)
    found = world.records()
    assert [each.path for each in found] == ["/0", "/1", "/2"] * 2 + ["", "", "/upgraded"]
    assert (world.recorder._opened, world.recorder._lasting) == (0, 0)


def test_of_connections_that_are_too_many_the_kernel_is_asked_nothing(world: World) -> None:
    asked = []

    class Asked:
        def __init__(self) -> None:
            self.port: PassthroughPort = world.port
            self.address = ("10.244.0.9", 41000)

        @property
        def carried(self) -> tuple[int, int]:
            asked.append(self)
            return (0, 0)

        def watch(self, *, on: bool) -> None:
            pass

    world.recorder.watch(ALL)
    for _ in range(2 * RECORDS_PER_SECOND):
        world.recorder.begin_bytes(Asked(), new=False)
    assert len(asked) == world.recorder._dropped == RECORDS_PER_SECOND
