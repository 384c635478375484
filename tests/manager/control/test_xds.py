"""One Envoy's stream: nothing is named before it is told, nothing goes before it is unused, refusals end a goal."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshdev.manager.control.xds import MAX_NAMES, AdsStream, DiscoveryAnswer
from meshdev.sidecar.envoy.protos import CLUSTERS, ENDPOINTS, LISTENERS, ORDER, ROUTES, Packed


@dataclass(frozen=True)
class Thing:
    """A resource: what it says and which names it needs."""

    name: str
    text: str
    needs: tuple[str, ...] = ()

    def SerializeToString(self, *, deterministic: bool) -> bytes:  # noqa: N802 -- protobuf's name
        assert deterministic
        return f"{self.name} {self.text}".encode()


def goal(**ports: str) -> Packed:
    """Ports (``p80``) and the clusters their routes lead to (``"a b"``); a cluster in capitals has endpoints."""
    found: Packed = {kind: {} for kind in ORDER}
    for port, clusters in ports.items():
        found[LISTENERS][f"L{port}"] = Thing(f"L{port}", "", (f"R{port}",))
        found[ROUTES][f"R{port}"] = Thing(f"R{port}", clusters, tuple(clusters.split()))
        for name in clusters.split():
            found[CLUSTERS][name] = Thing(name, "", (name,) if name.isupper() else ())
            if name.isupper():
                found[ENDPOINTS][name] = Thing(name, "")
    return found


class Envoy:
    """Takes answers as Envoy does, and complains when something is named that it does not have."""

    def __init__(self, stream: AdsStream) -> None:
        self.stream = stream
        self.has: dict[str, dict[str, Thing]] = {kind: {} for kind in ORDER}
        self.asked: dict[str, frozenset[str]] = {}
        self.nonces: dict[str, str] = {}
        self.log: list[tuple[str, list[str]]] = []
        self.refuses = ""

    def start(self) -> list[DiscoveryAnswer]:
        return [*self.ask(CLUSTERS), *self.ask(LISTENERS)]

    def ask(self, kind: str, error: str | None = None) -> list[DiscoveryAnswer]:
        return self.stream.on_request(kind, self.asked.get(kind, frozenset()), self.nonces.get(kind, ""), error)

    def take(self, answers: list[DiscoveryAnswer]) -> None:
        """Until nothing more comes."""
        waiting = list(answers)
        while waiting:
            waiting += self.take_one(waiting.pop(0))

    def take_one(self, answer: DiscoveryAnswer) -> list[DiscoveryAnswer]:
        self.nonces[answer.kind] = answer.nonce
        told = {one.name: one for one in answer.resources}
        self.log.append((answer.kind.rpartition(".")[2], sorted(told)))
        if any(self.refuses and self.refuses in one.text for one in told.values()):
            return self.ask(answer.kind, f"bad {self.refuses}")
        if answer.kind in {CLUSTERS, LISTENERS}:
            self.has[answer.kind] = told
        else:
            self.has[answer.kind].update(told)
        more = self.ask(answer.kind)
        for whole, part in ((CLUSTERS, ENDPOINTS), (LISTENERS, ROUTES)):
            wanted = frozenset(name for one in self.has[whole].values() for name in one.needs)
            if wanted != self.asked.get(part, frozenset()):
                self.asked[part] = wanted
                self.has[part] = {name: one for name, one in self.has[part].items() if name in wanted}
                more += self.ask(part)
        self.check()
        return more

    def check(self) -> None:
        """Requests find their way at every moment."""
        for listener in self.has[LISTENERS].values():
            for route in listener.needs:
                for cluster in self.has[ROUTES].get(route, Thing("", "")).needs:
                    assert cluster in self.has[CLUSTERS], f"{route} leads to {cluster}"
                    assert set(self.has[CLUSTERS][cluster].needs) <= self.has[ENDPOINTS].keys(), cluster

    def holds(self, wanted: Packed) -> bool:
        return all(self.has[kind].items() >= wanted[kind].items() for kind in ORDER) and all(
            self.has[kind] == wanted[kind] for kind in (CLUSTERS, LISTENERS)
        )


@pytest.fixture
def stream() -> AdsStream:
    return AdsStream()


@pytest.fixture
def envoy(stream: AdsStream) -> Envoy:
    return Envoy(stream)


def test_nothing_is_told_before_there_is_a_goal(stream: AdsStream, envoy: Envoy) -> None:
    assert envoy.start() == []
    assert not stream.settled
    (first,) = stream.aim(goal())
    assert (first.kind, first.resources) == (CLUSTERS, ())
    envoy.take([first])
    assert envoy.log == [("Cluster", []), ("Listener", [])]
    assert stream.settled


def test_names_come_after_what_they_mean(stream: AdsStream, envoy: Envoy) -> None:
    envoy.start()
    envoy.take(stream.aim(goal(p80="a B")))
    assert envoy.log == [
        ("Cluster", ["B", "a"]),
        ("ClusterLoadAssignment", ["B"]),
        ("Listener", ["Lp80"]),
        ("RouteConfiguration", ["Rp80"]),
    ]
    assert stream.settled


def test_only_what_changed_is_told(stream: AdsStream, envoy: Envoy) -> None:
    envoy.start()
    envoy.take(stream.aim(goal(p80="a b", p81="c")))
    envoy.log.clear()
    envoy.take(stream.aim(goal(p80="b a", p81="c")))
    assert envoy.log == [("RouteConfiguration", ["Rp80", "Rp81"])]
    envoy.log.clear()
    assert stream.aim(goal(p80="b a", p81="c")) == []
    assert stream.settled


def test_a_cluster_goes_when_no_route_leads_there(stream: AdsStream, envoy: Envoy) -> None:
    envoy.start()
    envoy.take(stream.aim(goal(p80="a old")))
    envoy.log.clear()
    envoy.take(stream.aim(goal(p80="a new")))
    assert (stream.settled, stream.unused) == (True, True)
    envoy.take(stream.prune())
    assert envoy.log == [
        ("Cluster", ["a", "new", "old"]),
        ("RouteConfiguration", ["Rp80"]),
        ("Cluster", ["a", "new"]),
    ]
    assert not stream.unused
    assert stream.prune() == []


def test_nothing_is_taken_away_before_the_goal_is_reached(stream: AdsStream, envoy: Envoy) -> None:
    envoy.start()
    envoy.take(stream.aim(goal(p80="a old")))
    waiting = stream.aim(goal(p80="a new"))
    assert stream.prune() == []
    envoy.take(waiting)
    assert stream.unused
    assert "old" in envoy.has[CLUSTERS]


def test_a_cluster_with_endpoints_that_comes_back_gets_them_again(stream: AdsStream, envoy: Envoy) -> None:
    envoy.start()
    for _ in range(3):
        envoy.take(stream.aim(goal(p80="A b")))
        assert envoy.holds(goal(p80="A b"))
        envoy.take(stream.aim(goal(p80="b")))
        envoy.take(stream.prune())
        assert envoy.holds(goal(p80="b"))
        envoy.take(stream.aim(goal()))
        envoy.take(stream.prune())
        assert envoy.holds(goal())
        assert stream.settled


def test_a_refused_goal_goes_no_further_and_the_next_one_is_told_whole(stream: AdsStream, envoy: Envoy) -> None:
    envoy.start()
    envoy.take(stream.aim(goal(p80="a")))
    envoy.refuses = "bad"
    envoy.take(stream.aim(goal(p80="a bad")))
    assert stream.refused == "bad bad"
    assert not stream.settled
    assert envoy.holds(goal(p80="a")) is False  # the cluster is there already, no route leads to it
    assert envoy.has[ROUTES]["Rp80"].text == "a"
    envoy.take(stream.aim(goal(p80="a b")))
    assert stream.refused is None
    envoy.take(stream.prune())
    assert envoy.holds(goal(p80="a b"))


def test_a_refusal_that_comes_late_is_not_blamed_on_the_next_goal(stream: AdsStream, envoy: Envoy) -> None:
    envoy.start()
    envoy.take(stream.aim(goal(p80="a")))
    (late,) = stream.aim(goal(p80="a", p81="a"))
    stream.aim(goal(p80="a", p82="a"))
    envoy.nonces[late.kind] = late.nonce
    answers = envoy.ask(late.kind, "no")
    assert stream.refused is None
    envoy.take(answers)
    assert envoy.holds(goal(p80="a", p82="a"))


def test_words_about_older_answers_are_skipped(stream: AdsStream, envoy: Envoy) -> None:
    envoy.start()
    envoy.take(stream.aim(goal(p80="a")))
    assert stream.on_request(ROUTES, frozenset({"x"}), "1", "no") == []
    assert stream.on_request(ROUTES, frozenset(), "nonsense", None) == []
    assert stream.refused is None
    assert stream.aim(goal(p80="a")) == []


def test_hostile_requests_change_nothing(stream: AdsStream, envoy: Envoy) -> None:
    envoy.start()
    envoy.take(stream.aim(goal(p80="a")))
    assert stream.on_request("type.googleapis.com/Secret", frozenset(), "", None) == []
    assert stream.on_request(ROUTES, frozenset(map(str, range(MAX_NAMES + 1))), "", None) == []
    assert stream.on_request(ROUTES, frozenset({"Rp80", "unknown"}), envoy.nonces[ROUTES], None) == []


def test_a_stream_answers_at_most_once_before_envoy_has_its_say(stream: AdsStream, envoy: Envoy) -> None:
    envoy.start()
    assert len(stream.aim(goal(p80="a"))) == 1
    for number in range(5):
        assert stream.aim(goal(p80=f"a b{number}")) == []


CLUSTER_NAMES = st.lists(st.sampled_from(["a", "b", "c", "D", "E"]), min_size=1, max_size=4, unique=True).map(" ".join)
GOALS = st.dictionaries(st.sampled_from(["p80", "p81", "p82"]), CLUSTER_NAMES, max_size=3).map(
    lambda ports: goal(**ports)
)


@settings(max_examples=300)
@given(st.lists(st.tuples(GOALS, st.integers(0, 6)), min_size=1, max_size=8))
def test_whatever_comes_in_whatever_moment_requests_find_their_way(steps: list[tuple[Packed, int]]) -> None:
    stream = AdsStream()
    envoy = Envoy(stream)
    waiting = envoy.start()
    for wanted, patience in steps:
        waiting += stream.aim(wanted)
        for _ in range(patience):
            waiting += envoy.take_one(waiting.pop(0)) if waiting else stream.prune()
    envoy.take(waiting)
    assert stream.settled
    envoy.take(stream.prune())
    assert envoy.holds(steps[-1][0])
