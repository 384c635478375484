"""Deciding without Envoy: against a plain model, what it costs, and what no claim asks for."""

import itertools
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.intercept.match import MATCH_KINDS, HeadTest, Match, in_order
from meshdev.observe.reasons import MAX_CLAIMS, MAX_HEAD, TOO_LONG
from meshdev.sidecar.passthrough import decide
from meshdev.sidecar.passthrough.decide import Decider
from meshdev.sidecar.passthrough.http1 import RequestFollower, RequestHead
from meshdev.sidecar.passthrough.seen import SeenHead, seen
from meshdev.wire.agent import Probe
from tests.sidecar.passthrough import edges
from tests.sidecar.passthrough.asked import Vocabulary
from tests.sidecar.passthrough.edges import EDGES, exact


def head(data: bytes) -> RequestHead:
    event, _ = RequestFollower().next(data)
    assert isinstance(event, RequestHead)
    return event


def get(*lines: str, target: str = "/") -> RequestHead:
    return head(edges.get(*lines, target=target))


@given(st.integers(0, 1 << 32))
def test_the_index_finds_what_trying_each_claim_finds(seed: int) -> None:
    draw = Vocabulary(seed)
    matches = [draw.match() for _ in range(draw.one(range(1, 30)))]
    decider, alone = Decider(matches), [Decider([match]) for match in matches]
    for request in [head(draw.head()) for _ in range(10)]:
        takers = [place for place in in_order(matches) if alone[place].decide(request) is not None]
        assert decider.decide(request) == (takers[0] if takers else None)


def test_what_an_explanation_costs_is_bounded_whatever_the_head_has() -> None:
    """Anybody may send it, and the worker carries the requests of all."""
    decider = Decider([Match(baggage=(("user", f"{number}"),)) for number in range(MAX_CLAIMS)])
    for size in (1000, MAX_HEAD - 100, 60_000):
        asked = get("baggage: " + "," * size)
        seconds = []
        for _ in range(5):
            began = time.thread_time()
            assert decider.explain(asked) == ("baggage without user=0" if size < MAX_HEAD else TOO_LONG)
            seconds.append(time.thread_time() - began)
        assert min(seconds) < 0.03
    claimed = get("baggage: user=7", "x: " + "x" * 60_000)
    assert decider.explain(claimed) is None


@given(st.integers(0, 1 << 32), st.binary(max_size=60))
def test_no_head_raises(seed: int, garbage: bytes) -> None:
    draw = Vocabulary(seed)
    data = draw.head().replace(b" ", garbage, 1)
    event, _ = RequestFollower().next(data)
    if isinstance(event, RequestHead):
        Decider([draw.match(), None], draw.probes(80)).decide(event)


@pytest.mark.parametrize(("match", "asked"), EDGES)
def test_edges(match: Match, asked: list[tuple[bytes, bool]]) -> None:
    for data, taken in asked:
        assert (Decider([match]).decide(head(data)) == 0) == taken, data


def test_whoever_wants_everything_comes_last_and_the_newest_of_equals_first() -> None:
    decider = Decider([None, exact("a", "1"), exact("a", "1"), None])
    assert decider.decide(get("a: 1")) == 2
    assert decider.decide(get()) == 3


def test_probes_are_the_originals() -> None:
    decider = Decider([None], [Probe(80, "/healthz"), Probe(80, "/none", "")])
    assert decider.decide(get("User-Agent: kube-probe/1.35", target="/healthz?full")) is None
    assert decider.decide(get("User-Agent: curl", target="/healthz")) == 0
    assert decider.decide(get(target="/healthz")) == 0
    assert decider.decide(get(target="/none")) is None
    assert decider.decide(get("User-Agent: curl", target="/none")) == 0


def test_no_claims() -> None:
    assert Decider([]).decide(get("a: 1")) is None


@pytest.mark.parametrize("names", [1, 20])
def test_a_request_without_what_claims_ask_for_costs_one_look(names: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count()
    monkeypatch.setattr(decide, "seen", lambda head: (next(looks), seen(head))[1])
    decider = Decider([exact(f"x-{number % names}", str(number)) for number in range(1000)])
    assert decider.decide(get("x-other: 1", "Accept: */*")) is None
    assert next(looks) == 0
    assert decider.decide(get("x-0: 0")) == 0
    assert next(looks) == 2


@pytest.mark.parametrize("kind", ["headers", "baggage", "tracestate", "path_prefix"])
def test_the_number_of_claims_makes_no_difference(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few of them are compared with a request at all."""
    claims: dict[str, Callable[[int], Match]] = {
        "headers": lambda number: exact("a", str(number)),
        "baggage": lambda number: Match(baggage=(("user", str(number)),)),
        "tracestate": lambda number: Match(tracestate=(("user", str(number)),)),
        "path_prefix": lambda number: Match(path_prefix=f"/{number}/"),
    }
    compared = itertools.count()
    fits = decide.condition

    def counting(test: HeadTest) -> Callable[[SeenHead], bool]:
        return lambda view: (next(compared), fits(test)(view))[1]

    monkeypatch.setattr(decide, "condition", counting)
    decider = Decider([claims[kind](number) for number in range(1000)])
    lines = {"headers": "a: 500", "baggage": "baggage: user=500", "tracestate": "tracestate: user=500"}
    assert decider.decide(get(lines.get(kind, "b: 1"), target="/500/x")) == 500
    assert next(compared) == 1


def test_each_kind_of_condition_is_drawn() -> None:
    """What is compared with Envoy is all that there is."""
    drawn = [match for seed in range(200) if (match := Vocabulary(seed).match()) is not None]
    assert all(any(kind.values(match) for match in drawn) for kind in MATCH_KINDS)


def test_why_it_is_nobodys() -> None:
    """A probe is one whatever else it lacks, and also where a claim would take it."""
    probes = (Probe(80, "/healthz", "kube-probe/"),)
    agent = "User-Agent: kube-probe/1.35"
    for match in (exact("a", "1"), Match(path_prefix="/")):
        decider = Decider([match], probes)
        assert decider.explain(get(agent, target="/healthz")) == "probe of the kubelet"
        assert decider.decide(get(agent, target="/healthz")) is None
    decider = Decider([exact("a", "1")], probes)
    assert decider.explain(get("a: 2", target="/healthz")) == "a=2, not a=1"
    assert decider.explain(get("a: 1")) is None
    assert decider.explain(get(agent)) == "no header a"
