"""The packet loop: timers, descriptors, other threads, and its end."""

import os
import socket
import threading
import weakref

import pytest

from meshdev.pump.loop import READABLE, WRITABLE, Loop
from tests.loops import Clock, one_round, open_descriptors, until


def test_timers_run_when_due_in_order() -> None:
    clock, said = Clock(), list[str]()
    loop = Loop(clock)
    loop.call_later(2, lambda: said.append("two"))
    loop.call_later(1, lambda: said.append("one"))
    loop.call_later(1, lambda: said.append("one again"))
    one_round(loop)
    assert said == []
    clock.now += 1
    one_round(loop)
    assert said == ["one", "one again"]
    clock.now += 5
    one_round(loop)
    assert said == ["one", "one again", "two"]
    loop.close()


def test_a_cancelled_timer_neither_runs_nor_keeps_what_it_held() -> None:
    class Something:
        def due(self) -> None:
            raise AssertionError

    clock, something = Clock(), Something()
    loop, held = Loop(clock), weakref.ref(something)
    timer = loop.call_later(5, something.due)
    timer.cancel()
    del something
    assert held() is None
    clock.now += 6
    one_round(loop)
    timer.cancel()
    loop.close()


def test_a_timer_wakes_a_waiting_loop() -> None:
    loop = Loop()
    loop.call_later(0.01, loop.stop)
    loop.run()
    loop.close()


def test_other_threads_post_into_the_loops_thread() -> None:
    loop, seen = Loop(), list[tuple[int, int]]()

    def poster(number: int) -> None:
        for index in range(100):
            loop.post(lambda: seen.append((number, threading.get_ident())))
            assert index < 100

    threads = [threading.Thread(target=poster, args=(number,)) for number in range(4)]
    runner = threading.Thread(target=loop.run)
    runner.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loop.post(loop.stop)
    runner.join(10)
    assert not runner.is_alive()
    assert len(seen) == 400
    assert {ident for _, ident in seen} == {runner.ident}
    loop.close()


def test_stop_before_run_is_not_lost() -> None:
    loop = Loop()
    loop.stop()
    loop.run()
    loop.close()


def test_what_was_posted_too_late_runs_when_the_loop_is_closed_and_nothing_later() -> None:
    loop, said = Loop(), list[str]()
    loop.stop()
    loop.post(lambda: said.append("late"))
    loop.run()
    assert said == []
    loop.close()
    assert said == ["late"]
    loop.post(lambda: said.append("too late"))
    loop.stop()
    loop.close()
    assert said == ["late"]


def test_close_frees_the_loops_descriptors_and_nobody_elses() -> None:
    before = open_descriptors()
    left, right = socket.socketpair()
    loop = Loop()
    loop.register(left.fileno(), READABLE, lambda _: None)
    loop.close()
    assert os.fstat(left.fileno())
    left.close()
    right.close()
    assert open_descriptors() == before


def test_an_exception_of_a_callback_ends_the_run() -> None:
    loop = Loop()
    nothing: dict[str, None] = {}
    loop.post(lambda: nothing["a bug"])
    with pytest.raises(KeyError):
        loop.run()
    loop.close()


def test_events_are_level_triggered_and_can_be_changed() -> None:
    left, right = socket.socketpair()
    loop, seen = Loop(), list[int]()
    loop.register(left.fileno(), 0, seen.append)
    right.send(b"x")
    one_round(loop)
    assert seen == []
    loop.modify(left.fileno(), READABLE)
    one_round(loop)
    one_round(loop)
    assert seen == [READABLE, READABLE]
    loop.modify(left.fileno(), WRITABLE)
    one_round(loop)
    assert seen[2:] == [WRITABLE]
    loop.close()
    left.close()
    right.close()


def test_a_callback_forgotten_within_the_round_is_not_called_even_when_its_number_is_used_again() -> None:
    """Two descriptors are ready; whichever comes first closes the other and gives its number to a new one."""
    pairs = [socket.socketpair() for _ in range(2)]
    loop, old_calls, new_calls = Loop(), list[int](), list[bytes]()
    fresh: list[socket.socket] = []

    def replace(mine: int) -> None:
        if fresh:
            old_calls.append(mine)
            return
        other = pairs[1 - mine][0]
        number = other.fileno()
        loop.unregister(number)
        made, peer = socket.socketpair()
        other.close()
        os.dup2(made.fileno(), number)
        made.close()
        fresh.extend((socket.socket(fileno=number), peer))
        fresh[0].setblocking(False)
        loop.register(number, READABLE, on_fresh)

    def on_fresh(_events: int) -> None:
        new_calls.append(fresh[0].recv(10))  # BlockingIOError where the event was the old descriptor's

    for index, (ours, peer) in enumerate(pairs):
        loop.register(ours.fileno(), READABLE, lambda _, index=index: replace(index))  # type: ignore[misc]  # its default has no type
        peer.send(b"old")
    one_round(loop)
    assert old_calls == []
    assert new_calls == []
    fresh[1].send(b"new")
    until(loop, lambda: new_calls)
    assert new_calls == [b"new"]
    loop.close()
    for sock in (*fresh, *pairs[0], *pairs[1]):
        sock.close()
