"""The agent's life cycle without a pod: events in, actions out."""

import dataclasses
from ipaddress import IPv4Address

from meshdev.sidecar.agent import lifecycle
from meshdev.sidecar.agent.actions import Announce, ReadStats
from meshdev.sidecar.agent.lifecycle import Lifecycle
from meshdev.sidecar.envoy.stats import Stats
from meshdev.wire.agent import DecidedClaim, Listen, ProbeRelays, Redirect, State, Want
from meshdev.wire.counts import Counts, PassthroughTotals
from meshdev.wire.passthrough import PortClaims
from tests.sidecar.agent.world import ALL, BYTES, FOLDER, HTTP, LISTENERS, RAW, WEB, World


def test_it_announces_listeners_then_redirects_when_told(fresh: World) -> None:
    fresh.start_envoy()
    fresh.hear(Want((HTTP,)))
    assert fresh.life.states((), fresh.now) == [Listen({WEB: 15800}, FOLDER), State(held_back=((WEB, "waiting"),))]
    assert fresh.redirected == {}
    fresh.hear(Redirect((WEB,)))
    assert fresh.redirected == {WEB: 15800}
    assert fresh.state() == State(redirected=(WEB,))


def test_a_port_is_redirected_once_the_passthrough_proxy_decides(fresh: World) -> None:
    """A connection before that passes unlooked as long as it lasts."""
    fresh.worker_hangs = True
    fresh.hear(Want((HTTP, BYTES)), Redirect((WEB,), number=1))
    assert (fresh.redirected, fresh.state().held_back) == ({}, ((RAW, "waiting"), (WEB, "waiting")))
    fresh.worker_hangs = False
    fresh.apply()
    assert (fresh.redirected, fresh.state().applied) == ({WEB: 15800}, 1)
    fresh.worker_hangs = True
    fresh.hear(Redirect((WEB, RAW), number=2))
    assert fresh.redirected == {WEB: 15800}, "what is redirected stays"
    fresh.worker_hangs = False
    fresh.apply()
    assert fresh.redirected == LISTENERS


def test_numbers_begin_anew_with_another_stream(fresh: World) -> None:
    fresh.hear(Want((HTTP,)), Redirect((WEB,), number=5))
    fresh.do(fresh.life.on_lost(fresh.now))
    assert fresh.state().applied == 0
    fresh.worker_hangs = True
    fresh.hear(Want((HTTP, BYTES)), Redirect((WEB, RAW), number=1))
    assert fresh.redirected == {WEB: 15800}


def test_before_it_is_told_anything_it_has_no_listeners_to_announce(fresh: World) -> None:
    assert fresh.life.states(((20001, "open"),), fresh.now) == [State(return_paths=((20001, "open"),))]


def test_a_listener_that_comes_later_is_seen_by_looking(world: World) -> None:
    world.listening = ALL - {WEB}
    world.wait(1)
    assert (world.redirected, world.state().held_back) == ({RAW: 15801}, ((WEB, "no-listener"),))
    world.listening = ALL
    world.wait(1)
    assert world.redirected == LISTENERS


def test_where_the_kernel_looks_the_redirect_stays_and_is_reported_as_it_is(world: World) -> None:
    world.life = Lifecycle(world.now, looks=True)
    world.listening = ALL - {WEB}
    world.hear(Want((HTTP, BYTES)), Redirect((WEB, RAW)))
    assert world.redirected == LISTENERS
    assert (world.state().redirected, world.state().held_back) == ((RAW,), ((WEB, "no-listener"),))


def test_without_an_intercept_it_does_not_look(fresh: World) -> None:
    fresh.start_envoy()
    fresh.log.clear()
    fresh.wait(2)
    assert fresh.log == []


def test_when_envoy_ends_connections_go_on_to_the_passthrough_proxy(world: World) -> None:
    world.end_envoy()
    assert world.redirected == LISTENERS
    world.start_envoy()
    world.wait(1)
    assert world.redirected == LISTENERS


def test_what_is_claimed_follows_the_manager(world: World) -> None:
    assert world.claims == {port: PortClaims(envoy=f"{FOLDER}/{port.number}") for port in (WEB, RAW)}
    world.hear(Redirect((WEB, RAW), (DecidedClaim((WEB,), "null"), DecidedClaim((RAW,), "null", whole=True))))
    web, raw = world.claims[WEB], world.claims[RAW]
    assert (web.matches, web.whole, raw.matches, raw.whole) == (("null",), False, (), True)
    world.hear(Want((HTTP,)))
    assert world.claims.keys() == {WEB}
    world.do(world.life.on_failure(world.now))
    assert world.claims == {}, "its connections go on, unlooked"


def test_bytes_are_cut_off_from_a_lost_manager_and_requests_are_not(world: World) -> None:
    world.hear(Redirect((WEB, RAW), (DecidedClaim((WEB,), "null"), DecidedClaim((RAW,), "null", whole=True))))
    world.do(world.life.on_lost(world.now))
    world.wait(lifecycle.CUT_OFF_SECONDS)
    assert world.claims[RAW].whole
    world.wait(0.5)
    assert world.redirected == LISTENERS
    assert world.claims[RAW] == PortClaims()
    assert world.claims[WEB].matches == ("null",)
    world.hear(Want((HTTP, BYTES)))
    assert world.claims[RAW] == PortClaims(), "where its laptops are another manager has not said yet"
    world.hear(Redirect((WEB, RAW), (DecidedClaim((RAW,), "null", whole=True),)))
    assert world.claims[RAW].whole


def test_a_proxy_that_fails_gets_nothing_until_it_does_not(world: World) -> None:
    world.do(world.life.on_listening(ALL, world.now, failing=True))
    assert world.redirected == {}
    world.do(world.life.on_listening(ALL, world.now))
    assert world.redirected == LISTENERS


def test_a_redirect_that_fails_is_tried_again_and_reported_as_it_is(fresh: World) -> None:
    fresh.refuse_redirects = True
    fresh.start_envoy()
    fresh.hear(Want((HTTP,)), Redirect((WEB,)))
    assert fresh.state().redirected == ()
    fresh.refuse_redirects = False
    fresh.wait(1)
    assert fresh.state().redirected == (WEB,)


def test_older_connections_are_counted_while_there_are_some_and_closed_where_wanted(fresh: World) -> None:
    fresh.start_envoy()
    fresh.older = {WEB: 2}
    fresh.hear(Want((dataclasses.replace(HTTP, reset_older=True), BYTES)), Redirect((WEB, RAW)))
    assert fresh.closed == {WEB}
    assert fresh.state().older == ((WEB, 2),)
    fresh.older = {}
    fresh.do(fresh.life.on_count())
    assert fresh.state().older == ()
    fresh.log.clear()
    fresh.do(fresh.life.on_count())
    assert "CountOlder" not in fresh.log


def test_what_happens_while_envoy_is_asked_is_asked_again(world: World) -> None:
    for _ in range(3):
        world.do(world.life.on_count())
    assert world.unanswered == [ReadStats()]
    world.answer(Stats())
    assert world.unanswered == [ReadStats()]
    world.answer(Stats())
    assert world.unanswered == []


def test_counts_say_which_envoy_has_counted_them(world: World) -> None:
    """Each begins anew; the former one's are reported until the next one has answered."""
    assert world.state().envoys == 0, "none has answered yet"
    world.do(world.life.on_count())
    world.answer(Stats({"a": Counts(5)}))
    assert (world.state().envoys, world.state().intercepts) == (1, (("a", Counts(5)),))
    world.end_envoy()
    world.start_envoy()
    assert (world.state().envoys, world.state().intercepts) == (1, (("a", Counts(5)),))
    world.do(world.life.on_count())
    world.answer(Stats({"a": Counts(5)}))
    assert (world.state().envoys, world.state().intercepts) == (2, (("a", Counts(5)),))


def test_what_the_passthrough_proxy_counts_is_reported_now_and_then(world: World) -> None:
    def passes(accepted: int) -> bool:
        actions = world.life.on_passthrough(PassthroughTotals(accepted), world.now)
        assert actions in ([], [Announce()])
        return bool(actions)

    assert not passes(0)
    assert passes(1)
    assert world.state().passthrough == PassthroughTotals(1)
    world.now += lifecycle.PASSTHROUGH_SECONDS - 0.1
    assert not passes(2)
    assert world.state().passthrough == PassthroughTotals(1)
    world.now += 0.1
    assert passes(3)
    assert world.state().passthrough == PassthroughTotals(3)


def test_an_envoy_that_hangs_is_killed(world: World) -> None:
    for _ in range(int(lifecycle.HUNG_SECONDS)):
        world.do(world.life.on_count())
        world.fail()
        world.now += 1
    assert world.killed == 0
    world.now += 0.1
    world.do(world.life.on_count())
    world.fail()
    assert world.killed == 1


def test_probes_are_those_of_the_last_message_and_none_of_a_lost_manager(fresh: World) -> None:
    message = ProbeRelays((20001,), IPv4Address("10.244.0.9"))
    fresh.hear(message)
    fresh.do(fresh.life.on_lost(fresh.now))
    assert fresh.probed == [message, None]
