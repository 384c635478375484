"""What sidecars make control keep is bounded, whatever they send and under how many names."""

import gc
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from ipaddress import IPv4Address
from itertools import islice

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.manager.control import budget
from meshdev.manager.control.budget import Budget, Refused, size_of
from meshdev.manager.control.core import EDGE_SECONDS
from meshdev.manager.control.edges import Edges, NamedAgent
from meshdev.manager.control.pods import Pod
from meshdev.wire import agent
from meshdev.wire.agent import AgentHello, Consents, Listen, PodPort, Probe, State
from meshdev.wire.counts import Counts
from meshdev.wire.intercepts import MAX_AGENTS
from tests.manager.control.claimant import Claimant
from tests.manager.control.identities import NAMES
from tests.manager.control.sidecars import Control, agent_of, joined
from tests.manager.control.world import World
from tests.waiting import until

MOST = (1 << 53) - 1
PORTS = [PodPort(number, transport) for number in range(40_000, 40_512) for transport in ("tcp", "udp")]
COUNTS = [Counts(MOST - each, MOST - 3000 - each, MOST - 6000 - each) for each in range(2048)]
MESSAGES = {
    "redirected": State(redirected=tuple(PORTS)),
    "apart": State(held_back=tuple((port, "no-listener") for port in PORTS)),
    "older": State(older=tuple((port, MOST - each) for each, port in enumerate(PORTS))),
    "flows": State(flows=tuple(zip(PORTS, COUNTS, strict=False))),
    "intercepts": State(intercepts=tuple((f"{each:032x}", one) for each, one in enumerate(COUNTS))),
    "ways": State(return_paths=tuple((20_000 + each, "refused") for each in range(8192))),
    "listen": Listen({port: 1000 + each for each, port in enumerate(PORTS)}, "/tmp/meshdev-x"),
    "probes": AgentHello(
        "p", "u", "n", IPv4Address("10.0.0.1"), tuple(Probe(1, f"{each:01024}", f"{each:01024}") for each in range(64))
    ),
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_no_message_takes_more_than_it_is_counted_for(message: AgentHello | Listen | State) -> None:
    data = agent.encode(message)
    pods = [Pod() for _ in range(4)]
    gc.collect()
    tracemalloc.start()
    for pod in pods:
        match agent.decode_from_agent(data):
            case AgentHello() as hello:
                pod.agent_connected(hello, hello.address, lambda _: None)
            case Listen() | State() as other:
                pod.agent_reported(other)
        hello = other = None  # type: ignore[assignment]  # only what the pod keeps counts
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / len(pods) < size_of(message) < 4 * taken / len(pods)


def test_a_port_is_listened_for_as_long_as_there_are_not_too_many() -> None:
    pod = Pod()
    for start in range(1000, 9000, 1000):
        pod.agent_reported(Listen({PodPort(start + each): start + each for each in range(1000)}, "/tmp/meshdev-x"))
    assert len(pod._listeners.ports) == agent.MAX_PORTS
    assert PodPort(8999) in pod._listeners.ports


ITEMS = st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 3), st.integers(0, 1 << 27), st.booleans())


def edges_of(*claims: Iterable[str]) -> Edges:
    """Each claim names these keys."""
    made = Edges()
    for number, keys in enumerate(claims):
        made.begin(str(number))
        made.name(str(number), 0, [NamedAgent(key, "", "", "", b"") for key in keys])
    return made


@given(st.lists(ITEMS), st.sets(st.sampled_from(["a", "b"])))
def test_the_sums_are_right_and_within_bounds(items: list[tuple[str, int, int, bool]], claimed: set[str]) -> None:
    edges = edges_of(claimed)
    kept: dict[tuple[str, int], int] = {}
    account = Budget()
    for key, item, size, stays in items:
        if not stays:
            account.release(key, item)
            kept.pop((key, item), None)
            continue
        after = {**kept, (key, item): size}
        of_claim = sum(each for (one, _), each in after.items() if one in claimed)
        unclaimed = sum(each for (one, _), each in after.items() if one not in claimed)
        fits = (of_claim if key in claimed else unclaimed) <= budget.MAX_OF_WORKLOAD
        fits = (fits and sum(after.values()) <= budget.MAX_TOTAL) or size <= kept.get((key, item), 0)
        if fits:
            account.charge(key, item, size, edges)
            kept = after
        else:
            with pytest.raises(Refused):
                account.charge(key, item, size, edges)
    assert account._total == sum(kept.values())


MANY = tuple(f"{number:064x}" for number in range(MAX_AGENTS))
KEY, OTHER_KEY = MANY[0], "f" * 64
SOMEWHERE = IPv4Address("10.244.0.7")


class Told:
    """A core with claims of two workloads, and what it told."""

    def __init__(self) -> None:
        self.world = World()
        self.core = self.world.core
        self.core._edges = edges_of(MANY, (OTHER_KEY,))

    def connect(self, key: str, hello: AgentHello) -> Pod:
        return self.core.agent_connected(key, SOMEWHERE, hello, lambda _: None)

    def pods_with(self, message: State) -> Iterator[Callable[[], None]]:
        """Pods of one workload, made up one by one: each says that."""
        for key in MANY:
            hello = AgentHello(f"p{key}", f"u{key}", "default", SOMEWHERE)
            pod = self.connect(key, hello)
            yield lambda key=key, pod=pod, hello=hello: self.core.agent_reported(key, hello.uid, pod, message)  # type: ignore[misc]  # a default in a lambda


LARGEST = State(
    redirected=tuple(PORTS),
    held_back=tuple((port, "no-listener") for port in PORTS),
    intercepts=tuple((f"{each:032x}", one) for each, one in enumerate(COUNTS)),
    return_paths=tuple((20_000 + each, "refused") for each in range(8192)),
)


MANY_CONSENTS = Consents(tuple(f"{each:064x}" for each in range(agent.MAX_CONSENTS)))


def test_consents_take_no_more_than_they_are_counted_for() -> None:
    data = agent.encode(MANY_CONSENTS)
    edges = Edges()
    gc.collect()
    tracemalloc.start()
    for key in "abcd":
        message = agent.decode_from_agent(data)
        assert isinstance(message, Consents)
        edges.consent(key, message.proofs)
        del message
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / 4 < size_of(MANY_CONSENTS) < 2 * taken / 4


def test_one_workload_does_not_fill_the_memory() -> None:
    told = Told()
    fits = budget.MAX_OF_WORKLOAD // size_of(LARGEST)
    pods = told.pods_with(LARGEST)
    for say in islice(pods, fits):
        say()
    with pytest.raises(Refused):
        next(pods)()
    other = AgentHello("p", "u", "default", IPv4Address("10.244.0.8"))  # of the other workload: there is room
    told.core.agent_reported(OTHER_KEY, "u", told.connect(OTHER_KEY, other), LARGEST)


def test_what_a_pod_leaves_is_free_again() -> None:
    told = Told()
    hello = AgentHello("p", "u", "default", IPv4Address("10.244.0.8"))
    for _ in range(100):
        pod = told.connect(KEY, hello)
        told.core.agent_reported(KEY, "u", pod, LARGEST)
        told.core.agent_reported(KEY, "u", pod, MANY_CONSENTS)
        told.core.agent_disconnected(KEY, "u", pod)
    told.world.wait(EDGE_SECONDS)
    assert told.core._budget._total == 0
    assert list(told.core.pods()) == []


def test_what_an_agent_consents_to_counts_once_under_whatever_uids_it_comes() -> None:
    told = Told()
    for number in range(400):  # 75 MiB, if each counted
        uid = f"u{number}"
        pod = told.connect(KEY, AgentHello("p", uid, "default", SOMEWHERE))
        told.core.agent_reported(KEY, uid, pod, MANY_CONSENTS)
        assert told.core._budget._total == size_of(MANY_CONSENTS)
        told.core.agent_disconnected(KEY, uid, pod)
    told.world.wait(EDGE_SECONDS)
    assert told.core._budget._total == 0


async def test_the_stream_of_a_sidecar_that_takes_too_much_ends(
    mesh: Control, claimant: Claimant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "MAX_OF_WORKLOAD", 4 * size_of(LARGEST) + 6 * size_of(Consents(("",))))
    claimant.claim()
    await until(lambda: len(mesh.core.named()) == len(NAMES))
    async with AsyncExitStack() as undo:
        made = [await undo.enter_async_context(agent_of(mesh, name=f"h-{each}")) for each in range(6)]
        for each in made:
            await each.say(LARGEST)
        await until(lambda: sum(each.call.done() for each in made) == 2)
        assert {await each.call.code() for each in made if each.call.done()} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    await until(lambda: not list(mesh.core.pods()))
    async with joined(mesh):  # there is room again
        await claimant.reported("acked")


def test_an_agent_has_one_pod() -> None:
    told = Told()
    hello = AgentHello("p", "u", "default", IPv4Address("10.244.0.8"))
    told.connect(KEY, hello)
    told.connect(KEY, hello)  # its next stream
    with pytest.raises(Refused, match="another pod's agent"):
        told.connect(KEY, AgentHello("q", "v", "default", IPv4Address("10.244.0.9")))
