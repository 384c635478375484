"""How the agent leaves, and what holds whatever comes in which order."""

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshdev.sidecar.agent import lifecycle
from meshdev.sidecar.agent.actions import ReadStats, SetDraining
from meshdev.sidecar.agent.lifecycle import Phase
from meshdev.sidecar.envoy.bootstrap import DRAIN_SECONDS
from meshdev.sidecar.envoy.stats import Stats
from meshdev.wire.agent import Redirect, Want, Wanted
from meshdev.wire.passthrough import PortClaims
from tests.sidecar.agent.world import ALL, BYTES, HTTP, LISTENERS, RAW, WEB, World


@pytest.mark.parametrize(
    ("event", "seconds", "reason"),
    [
        (lambda world: world.hear(Want(())), lifecycle.UNWANTED_SECONDS, "nobody intercepted anything for 30 s"),
        (lambda world: world.do(world.life.on_lost(world.now)), lifecycle.LOST_SECONDS, "the manager is lost for 60 s"),
    ],
)
def test_it_leaves_after_its_time(world: World, event: Callable[[World], None], seconds: float, reason: str) -> None:
    event(world)
    world.wait(seconds - 1)
    assert world.life.phase is Phase.RUNNING
    world.wait(2)
    assert (world.life.phase, world.life.reason) == (Phase.LEAVING, reason)
    assert world.redirected == {}


@pytest.mark.parametrize(
    ("attested", "reason"),
    [(True, "the manager is lost for 60 s"), (False, "no session has attested this sidecar for 60 s")],
)
def test_a_manager_that_never_came_is_lost_too(fresh: World, attested: bool, reason: str) -> None:
    if attested:
        fresh.do(fresh.life.on_attested())
    fresh.wait(lifecycle.LOST_SECONDS - 1)
    assert fresh.life.phase is Phase.RUNNING
    fresh.wait(2)
    assert (fresh.life.phase, fresh.life.reason) == (Phase.ENDED, reason)


def test_unwanted_and_lost_it_waits_for_nobody(world: World) -> None:
    world.hear(Want(()))
    world.do(world.life.on_lost(world.now))
    world.wait(lifecycle.IDLE_SECONDS + 1)
    assert world.life.reason == "nobody intercepts anything, and the manager is lost for 5 s"


def test_wanted_again_it_stays(world: World) -> None:
    world.hear(Want(()))
    world.wait(lifecycle.UNWANTED_SECONDS - 1)
    world.hear(Want((HTTP,)), Redirect((WEB,)))
    world.wait(lifecycle.UNWANTED_SECONDS * 2)
    assert (world.life.phase, world.redirected) == (Phase.RUNNING, {WEB: 15800})


def test_terminating_it_serves_until_the_app_stops_listening(world: World) -> None:
    world.do(world.life.on_terminate(world.now))
    assert world.life.phase is Phase.TERMINATING
    assert world.life.tick_seconds < lifecycle.LOOK_SECONDS
    assert world.answer() == SetDraining(True)
    assert all(claims.draining for claims in world.claims.values())
    world.wait(10)
    assert world.redirected == LISTENERS
    world.listening = ALL - {WEB, RAW}
    world.wait(0.1)
    assert (world.life.phase, world.life.reason, world.redirected) == (Phase.LEAVING, "the app has ended", {})
    assert world.claims == dict.fromkeys((WEB, RAW), PortClaims(draining=True))


@pytest.mark.parametrize("wanted", [(HTTP,), ()])
def test_terminating_ports_drain_that_are_wanted_no_more(world: World, wanted: tuple[Wanted, ...]) -> None:
    """Their connections go on through the passthrough proxy."""
    world.hear(Want(wanted))
    world.do(world.life.on_terminate(world.now))
    assert world.claims.keys() == {WEB, RAW}
    assert all(claims.draining for claims in world.claims.values())


def test_terminating_without_an_app_that_listens_it_leaves_at_once(fresh: World) -> None:
    fresh.do(fresh.life.on_terminate(fresh.now))
    assert fresh.life.phase is Phase.ENDED


def test_nobody_wants_it_so_envoy_drains_until_somebody_does(world: World) -> None:
    world.hear(Want(()))
    assert world.answer() == SetDraining(True)
    world.wait(1)
    assert world.unanswered == []
    world.hear(Want((HTTP,)))
    assert world.answer() == SetDraining(False)


def test_an_envoy_that_refuses_to_drain_is_asked_again(world: World) -> None:
    world.hear(Want(()))
    assert world.unanswered.pop() == SetDraining(True)
    world.do(world.life.on_draining(True, failed=True))
    world.wait(lifecycle.LOOK_SECONDS)
    assert world.unanswered == [SetDraining(True)]


def test_another_envoy_drains_as_the_last_one_did(world: World) -> None:
    world.hear(Want(()))
    world.answer()
    world.end_envoy()
    world.start_envoy()
    assert world.unanswered == [SetDraining(True)]


def test_leaving_it_waits_for_what_is_under_way(world: World) -> None:
    world.do(world.life.on_failure(world.now))
    assert world.redirected == {}
    assert world.answer() == SetDraining(True)
    for _ in range(4):
        assert world.answer(Stats(busy=1)) == ReadStats()
        assert world.unanswered == [], "not at once again"
        world.wait(lifecycle.LOOK_SECONDS)
    world.answer(Stats(busy=0))
    assert world.life.phase is Phase.ENDED


def test_leaving_takes_no_longer_than_draining_may(world: World) -> None:
    world.do(world.life.on_failure(world.now))
    phases = []
    for seconds in (DRAIN_SECONDS - 1, 2):
        world.wait(seconds)
        phases.append(world.life.phase)
    assert phases == [Phase.LEAVING, Phase.ENDED]


def test_leaving_ends_with_envoy(world: World) -> None:
    world.do(world.life.on_failure(world.now))
    world.end_envoy()
    assert world.life.phase is Phase.ENDED


def test_what_the_manager_says_to_one_that_leaves_redirects_nothing(world: World) -> None:
    world.do(world.life.on_failure(world.now))
    world.hear(Want((HTTP, BYTES)), Redirect((WEB, RAW)))
    assert world.redirected == {}


# Whatever happens


def _if_asked(world: World, answer: Callable[[], object]) -> None:
    if world.unanswered:
        answer()


def _events(world: World) -> dict[str, Callable[[], None]]:
    return {
        "want": lambda: world.hear(Want((HTTP, BYTES))),
        "want one": lambda: world.hear(Want((dataclasses.replace(HTTP, reset_older=True),))),
        "want none": lambda: world.hear(Want(())),
        "redirect": lambda: world.hear(Redirect((WEB, RAW))),
        "redirect none": lambda: world.hear(Redirect(())),
        "lost": lambda: world.do(world.life.on_lost(world.now)),
        "terminate": lambda: world.do(world.life.on_terminate(world.now)),
        "envoy": world.start_envoy,
        "no envoy": world.end_envoy,
        "app": lambda: setattr(world, "listening", ALL),
        "no app": lambda: setattr(world, "listening", ALL - {WEB, RAW}),
        "kernel tells nothing": lambda: setattr(world, "listening", None),
        "count": lambda: world.do(world.life.on_count()),
        "answer": lambda: _if_asked(world, lambda: world.answer(Stats(busy=1))),
        "idle": lambda: _if_asked(world, world.answer),
        "no answer": lambda: _if_asked(world, world.fail),
        "ticks": lambda: world.wait(2),
        "time": lambda: world.wait(20),
    }


@given(st.lists(st.sampled_from(sorted(_events(World()))), max_size=40))
@settings(max_examples=300)
def test_whatever_happens_in_whichever_order(names: list[str]) -> None:
    world = World()
    phases, envoy = [world.life.phase], False
    for name in names:
        if (name == "envoy") == envoy and name in {"envoy", "no envoy"}:
            continue  # there is one at a time
        envoy = {"envoy": True, "no envoy": False}.get(name, envoy)
        _events(world)[name]()
        phases.append(world.life.phase)
        state = world.state()
        assert set(state.redirected) == world.redirected.keys()
        assert world.redirected.items() <= LISTENERS.items()
        if world.life.phase in {Phase.LEAVING, Phase.ENDED}:
            assert not world.redirected
            assert set(world.claims.values()) <= {PortClaims(draining=True)}
        assert world.unanswered.count(ReadStats()) <= 1
        assert sum(isinstance(each, SetDraining) for each in world.unanswered) <= 1
    assert phases == sorted(phases, key=lambda phase: phase.value), "there is no way back"
    world.do(world.life.on_lost(world.now))
    world.wait(lifecycle.LOST_SECONDS + DRAIN_SECONDS + 2)
    assert world.life.phase is Phase.ENDED, "without a manager it ends, whatever Envoy does"
    assert world.redirected == {}
