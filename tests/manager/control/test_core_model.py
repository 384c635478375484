"""Control's core against a model: whatever comes in which order and however late, it ends where the model says."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshdev.intercept.spec import Port, Spec
from meshdev.manager.control.budget import size_of
from meshdev.manager.control.core import EDGE_SECONDS, REJOIN_SECONDS
from meshdev.wire.agent import Listen
from meshdev.wire.intercepts import Agents
from meshdev.wire.manager import Claimed, Withdrawn
from meshdev.wire.modes import PROXY
from tests.manager.claims import HTTP, spec
from tests.manager.control.identities import identity
from tests.manager.control.world import World, alias, attested, claimed, key

PODS = ("b-1", "b-2", "c-1")
CLAIMS = (spec("a"), spec("b", value="2"), spec("c", HTTP, Port(7000, "tcp", 1), mode=PROXY))
RELAYS = {one.id: 20000 + 10 * number for number, one in enumerate(CLAIMS)}


@dataclass
class Model:
    """What is true now, without any history but who has agreed with whom."""

    claims: dict[str, bool] = field(default_factory=dict)
    named: dict[str, frozenset[str]] = field(default_factory=dict)
    excluded: dict[str, frozenset[str]] = field(default_factory=dict)
    agents: set[str] = field(default_factory=set)
    envoys: set[str] = field(default_factory=set)
    greeted: set[str] = field(default_factory=set)
    """Pods that have said who they are."""
    silent: set[str] = field(default_factory=set)
    """Those whose agents consent to nothing."""

    def of(self, pod: str) -> list[Spec]:
        """The claims that a pod serves."""
        return [
            one
            for one in CLAIMS
            if one.id in self.claims
            and pod in self.named.get(one.id, ())
            and pod not in self.excluded[one.id] | self.silent
        ]

    def forget_gone(self) -> None:
        self.greeted &= self.agents | self.envoys


Step = tuple[str, int, object]
#: When the streams of the former agent and its Envoy end: before the next ones begin, or after, whichever comes first.
RESTARTS = ("ended", "unnoticed", "envoy first")
NAMES = st.frozensets(st.sampled_from(PODS))
STEPS = st.one_of(
    st.tuples(st.just("claim"), st.integers(0, 2), st.tuples(st.booleans(), NAMES)),
    st.tuples(st.just("name"), st.integers(0, 2), NAMES),
    st.tuples(st.just("withdraw"), st.integers(0, 2), st.none()),
    st.tuples(st.just("agent"), st.integers(0, 2), st.none()),
    st.tuples(st.just("envoy"), st.integers(0, 2), st.none()),
    st.tuples(st.just("consent"), st.integers(0, 2), st.none()),
    st.tuples(st.just("restart"), st.integers(0, 2), st.tuples(st.sampled_from(RESTARTS), st.booleans())),
    st.tuples(st.just("tunnel"), st.just(0), st.none()),
    st.tuples(st.just("control"), st.just(0), st.booleans()),
    st.tuples(st.just("step"), st.integers(0, 2), st.integers(1, 6)),
    st.tuples(st.just("wait"), st.just(0), st.sampled_from((0.1, 4.0, 11.0))),
)


class Run:
    def __init__(self) -> None:
        self.world, self.model = World(), Model()
        self.world.connect_tunnel()

    def join_all(self) -> None:
        """Every claim reaches every pod, and all of it is served."""
        for number in range(3):
            self._claim(number, (True, frozenset()))
            self._name(number, frozenset(PODS))
            self._agent(number, None)
            self._envoy(number, None)
        self.world.settle()

    def do(self, what: str, number: int, more: object) -> None:
        getattr(self, f"_{what}")(number, more)

    def _claim(self, number: int, more: tuple[bool, frozenset[str]]) -> None:
        one, (up, excluded) = CLAIMS[number], more
        self.model.claims[one.id] = up
        self.model.excluded[one.id] = excluded
        self.world.hear(self._message(one))

    def _message(self, one: Spec) -> Claimed:
        up, excluded = self.model.claims[one.id], self.model.excluded[one.id]
        return replace(claimed(one, RELAYS[one.id], up=up), excluded=tuple(sorted(excluded)))

    def _name(self, number: int, names: frozenset[str]) -> None:
        one = CLAIMS[number]
        if one.id in self.model.claims:
            self.model.named[one.id] = names
        self.world.hear(self._names(one, names))

    @staticmethod
    def _names(one: Spec, names: Iterable[str]) -> Agents:
        return attested(one, *sorted(names))

    def _withdraw(self, number: int, _: object) -> None:
        one = CLAIMS[number]
        for each in (self.model.claims, self.model.named, self.model.excluded):
            each.pop(one.id, None)
        self.world.hear(Withdrawn(alias(one)))

    def _agent(self, number: int, _: object) -> None:
        """The agent loses its stream, or has one again."""
        name = PODS[number]
        if name in self.model.agents:
            self.world.pod(name).disconnect_agent(ends=False)
        else:
            self.world.pod(name).connect_agent(again=True, report=False)
            self.model.greeted.add(name)
        self.model.agents ^= {name}
        self.model.forget_gone()

    def _consent(self, number: int, _: object) -> None:
        """The agent withdraws its consent, or gives it again."""
        name = PODS[number]
        if name in self.model.agents:
            self.model.silent ^= {name}
            self.world.pod(name).consent(*(() if name in self.model.silent else (identity(name).proof,)))

    def _envoy(self, number: int, _: object) -> None:
        name = PODS[number]
        if name in self.model.envoys:
            self.world.pod(name).disconnect_envoy()
        else:
            self.world.pod(name).connect_envoy()
        self.model.envoys ^= {name}
        self.model.forget_gone()

    def _restart(self, number: int, more: tuple[str, bool]) -> None:
        """Another process of the agent, with another Envoy."""
        how, slow = more
        name, pod = PODS[number], self.world.pod(PODS[number])
        former, pod.slow = pod.envoy, slow
        if how != "unnoticed" and name in self.model.agents:
            pod.disconnect_agent()
        if how == "ended" and former is not None:
            pod.disconnect_envoy()
        if how == "envoy first":
            pod.begin_agent()
            pod.connect_envoy()
            pod.connect_agent(again=True, report=False)
        else:
            pod.connect_agent(report=False)
            pod.connect_envoy()
        if how != "ended" and former is not None:
            pod.envoy_ended(former)
        self.model.agents.add(name)
        self.model.envoys.add(name)
        self.model.greeted.add(name)

    def _control(self, _: int, envoys_first: bool) -> None:
        """Another process of control, to which everybody comes again."""
        self.world.restart_control()
        self._tunnel()
        comes = (self._envoy_again, self._agent_again)
        for come in comes if envoys_first else reversed(comes):
            for name in PODS:
                come(name)
        self.model.greeted = set(self.model.agents)

    def _envoy_again(self, name: str) -> None:
        if name in self.model.envoys:
            self.world.pod(name).connect_envoy(again=True)

    def _agent_again(self, name: str) -> None:
        if name in self.model.agents:
            self.world.pod(name).connect_agent(again=True, report=False)

    def _tunnel(self, *_: object) -> None:
        """The tunnel container is another one, and has the same claims."""
        there = [one for one in CLAIMS if one.id in self.model.claims]
        names = [self._names(one, self.model.named[one.id]) for one in there if one.id in self.model.named]
        self.world.connect_tunnel(*map(self._message, there), *names)

    def _step(self, number: int, times: int) -> None:
        for _ in range(times):
            self.world.pod(PODS[number]).step()

    def _wait(self, _: int, seconds: float) -> None:
        self.world.wait(seconds)

    def check(self) -> None:
        world, model = self.world, self.model
        world.wait(REJOIN_SECONDS + EDGE_SECONDS)
        for name in PODS:
            self._check_pod(name, model.of(name))
        for one in CLAIMS:
            if one.id in model.claims:
                named = model.named.get(one.id, frozenset()) - model.silent
                # An Envoy that came back alone within EDGE_SECONDS has what its agent said before.
                permitted = world.permitted(RELAYS[one.id])
                assert named & model.greeted <= permitted <= named & (model.greeted | model.envoys)
            # Of an agent that is not there nobody knows whether it has its process still: it is asked when it comes.
            there = {
                pod: state
                for pod, state in world.states(one).items()
                if state != "gone" and (pod in model.agents or one in model.of(pod))
            }
            assert there == {
                name: "acked" if {name} <= model.agents & model.envoys else "joined"
                for name in model.greeted
                if one in model.of(name)
            }

    def _check_pod(self, name: str, serves: list[Spec]) -> None:
        pod = self.world.pod(name)
        ports = sorted({str(port.remote) for one in serves for port in one.ports}, key=int)
        if name in self.model.agents:
            assert pod.wants() == ports
            if name in self.model.envoys:
                assert pod.redirects() == ports
        if {name} <= self.model.agents & self.model.envoys:
            for one in CLAIMS:
                assert pod.knows(one) == (one in serves), "clusters of former claims are pruned"
                assert pod.serves(one) == (one in serves)
                assert pod.decides(one) == [one in serves]
        elif name in self.model.agents and self.world.has_decided(name):
            assert not any(on and one not in serves for one, on in zip(CLAIMS, pod.decides(*CLAIMS), strict=True))
        charges = self.world.core._budget._sizes.get(key(name), {})
        listening = self.world.listening(name)
        assert charges.get((pod.uid, Listen), 0) == size_of(Listen(listening, pod.folder))
        assert len(self.world.known(name)) == (name in self.model.greeted)


#: The agent loses its stream while it redirects a port that the new control has no claim of.
REDIRECTS_A_FORMER_PORT: list[Step] = [
    ("name", 2, frozenset()),
    ("control", 0, False),
    ("step", 2, 1),
    ("agent", 2, None),
]


@given(st.lists(STEPS, min_size=3, max_size=60), st.booleans())
@example(REDIRECTS_A_FORMER_PORT, True)
@settings(max_examples=200, deadline=None)
def test_it_ends_where_the_model_says(steps: list[Step], joined: bool) -> None:
    run = Run()
    if joined:
        run.join_all()
    for step in steps:
        run.do(*step)
    run.check()
