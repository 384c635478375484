"""Of control's time records take no more than their share, nor those of one pod."""

from contextlib import suppress

from meshdev.manager.control.processing_time import _REMEMBERED, SHARE_OF_ALL, SHARE_OF_POD, ProcessingTime
from tests.loops import Clock


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.spent = 0.0
        self.time = ProcessingTime(self.clock, lambda: self.spent, SHARE_OF_POD, SHARE_OF_ALL)

    def take(self, key: str, seconds: float) -> float:
        with self.time.of(key):
            self.spent += seconds
        return self.time.wait(key)


def test_who_took_more_than_its_share_waits_and_others_do_not() -> None:
    world = World()
    assert world.take("a", SHARE_OF_POD) == 0
    wait = world.take("a", 0.1)
    assert abs(wait - 0.1 / SHARE_OF_POD) < 1e-6
    assert world.time.wait("b") == 0
    world.clock.now += wait + 1e-6
    assert world.time.wait("a") == 0


def test_all_of_them_have_a_share() -> None:
    world = World()
    for number in range(4):
        world.take(str(number), SHARE_OF_POD * 0.9)
    wait = world.time.wait("another")
    assert abs(wait - (4 * 0.9 * SHARE_OF_POD - SHARE_OF_ALL) / SHARE_OF_ALL) < 1e-6


def test_what_a_failing_one_takes_counts() -> None:
    world = World()
    with suppress(ZeroDivisionError), world.time.of("a"):
        world.spent += 1
        world.spent += 1 // 0
    assert world.time.wait("a") > 5


def test_who_waits_is_remembered_and_few_others() -> None:
    world = World()
    waiting = world.take("a", 0.2)
    for number in range(2 * _REMEMBERED):
        world.take(str(number), 0)
    assert world.time.wait("a") == waiting
    assert len(world.time._pods) <= _REMEMBERED
