"""What sidecars make control keep is bounded, whatever they send and under how many names."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from ipaddress import IPv4Address
from itertools import islice

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.intercept import spec as specs
from meshdev.manager.control import budget
from meshdev.manager.control.budget import Budget, Refused, size_of
from meshdev.manager.control.core import Core
from meshdev.manager.control.naming import Naming
from meshdev.manager.control.pods import Pod
from meshdev.wire import agent
from meshdev.wire.agent import AgentHello, Listen, PodPort, Probe, State
from meshdev.wire.counts import Counts
from meshdev.wire.intercepts import AGENT_PARTS, MAX_AGENTS, MAX_PART, AgentKeys
from meshdev.wire.manager import Claimed, Synced, ToTunnel
from tests.manager.claims import spec
from tests.manager.control.claimant import Claimant
from tests.manager.control.sidecars import KEYS, Control, agent_of, joined
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
                pod.agent_connected(hello, lambda _: None)
            case other:
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


def naming_of(*claims: set[str]) -> Naming:
    """Each claim names these keys."""
    made = Naming()
    for number, keys in enumerate(claims):
        made.begin(str(number))
        made.name(str(number), 0, keys)
    return made


@given(st.lists(ITEMS), st.sets(st.sampled_from(["a", "b"])))
def test_the_sums_are_right_and_within_bounds(items: list[tuple[str, int, int, bool]], claimed: set[str]) -> None:
    naming = naming_of(claimed)
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
        fits = of_claim <= budget.MAX_OF_WORKLOAD if key in claimed else unclaimed <= budget.MAX_OF_UNCLAIMED
        fits = (fits and sum(after.values()) <= budget.MAX_TOTAL) or size <= kept.get((key, item), 0)
        if fits:
            account.charge(key, item, size, naming)
            kept = after
        else:
            with pytest.raises(Refused):
                account.charge(key, item, size, naming)
    assert account._total == sum(kept.values())


MANY = tuple(f"{number:064x}" for number in range(MAX_AGENTS))
KEY, OTHER_KEY = MANY[0], "f" * 64


class Told:
    """A core with claims of two workloads, and what it told."""

    def __init__(self) -> None:
        self.messages: list[ToTunnel] = []
        self.core = Core(lambda _, message: self.messages.append(message), lambda *_: None, lambda: 0.0)
        for alias, keys in (("1" * 32, MANY), ("2" * 32, (OTHER_KEY,))):
            self.core.on_tunnel_message(Claimed(alias, specs.encode(spec("b")), "ann@laptop", (), ()))
            for part in range(AGENT_PARTS):
                self.core.on_tunnel_message(AgentKeys(alias, part, keys[part * MAX_PART :][:MAX_PART]))
        self.core.on_tunnel_message(Synced())

    def pods_with(self, message: State) -> Iterator[Callable[[], None]]:
        """Pods of one workload, made up one by one: each says that."""
        for key in MANY:
            hello = AgentHello(f"p{key}", f"u{key}", "default", IPv4Address("10.244.0.7"))
            pod = self.core.agent_connected(key, hello, lambda _: None)
            yield lambda key=key, pod=pod, hello=hello: self.core.agent_reported(key, hello.uid, pod, message)  # type: ignore[misc]  # a default in a lambda


LARGEST = State(
    redirected=tuple(PORTS),
    held_back=tuple((port, "no-listener") for port in PORTS),
    intercepts=tuple((f"{each:032x}", one) for each, one in enumerate(COUNTS)),
    return_paths=tuple((20_000 + each, "refused") for each in range(8192)),
)


def test_one_workload_does_not_fill_the_memory() -> None:
    told = Told()
    fits = budget.MAX_OF_WORKLOAD // size_of(LARGEST)
    pods = told.pods_with(LARGEST)
    for say in islice(pods, fits):
        say()
    with pytest.raises(Refused):
        next(pods)()
    other = AgentHello("p", "u", "default", IPv4Address("10.244.0.8"))  # of the other workload: there is room
    told.core.agent_reported(OTHER_KEY, "u", told.core.agent_connected(OTHER_KEY, other, lambda _: None), LARGEST)


def test_what_a_pod_leaves_is_free_again() -> None:
    told = Told()
    hello = AgentHello("p", "u", "default", IPv4Address("10.244.0.8"))
    for _ in range(100):
        pod = told.core.agent_connected(KEY, hello, lambda _: None)
        told.core.agent_reported(KEY, "u", pod, LARGEST)
        told.core.agent_disconnected(KEY, "u", pod)
    assert told.core._budget._total == 0
    assert list(told.core.pods()) == []


async def test_the_stream_of_a_sidecar_that_takes_too_much_ends(
    mesh: Control, claimant: Claimant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "MAX_OF_WORKLOAD", 4 * size_of(LARGEST))
    claimant.claim()
    await until(lambda: len(mesh.core.claimed()) == len(KEYS))
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
    told.core.agent_connected(KEY, hello, lambda _: None)
    told.core.agent_connected(KEY, hello, lambda _: None)  # its next stream
    with pytest.raises(Refused, match="another pod's agent"):
        told.core.agent_connected(KEY, AgentHello("q", "v", "default", IPv4Address("10.244.0.9")), lambda _: None)
