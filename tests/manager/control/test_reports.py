"""Which reports reach sessions: those of the process that a pod has now, and of agents that never came back. No I/O."""

from dataclasses import replace

from meshdev.manager.control.core import REJOIN_SECONDS
from meshdev.wire.intercepts import Agents
from meshdev.wire.manager import Synced
from tests.manager.claims import spec
from tests.manager.control.identities import identity
from tests.manager.control.test_core import joined
from tests.manager.control.world import World, alias, attested, claimed

A, B = spec("a"), spec("b", value="2")
#: The next process of the agent in pod b-1, which has another key.
NEXT = "b-2"


def next_process(*former: str) -> Agents:
    named = (*(identity(name).attested for name in former), replace(identity(NEXT).attested, pod="b-1"))
    return Agents(alias(A), 0, named)


def test_that_a_former_process_of_the_pod_is_gone_is_not_reported_of_the_pod(world: World) -> None:
    """Where its streams were cut without a word, that is noticed when the next process has long been there."""
    world.claim(A, "b-1")
    joined(world)
    former = world.pods.pop("b-1")
    world.hear(next_process())
    joined(world, NEXT)
    assert world.states(A) == {"b-1": "acked"}
    former.disconnect_agent()
    former.disconnect_envoy()
    assert world.states(A) == {"b-1": "acked"}
    world.pod(NEXT).disconnect_agent()
    world.pod(NEXT).disconnect_envoy()
    assert world.states(A) == {"b-1": "gone"}


def test_agents_that_do_not_come_back_are_reported_as_gone(world: World) -> None:
    """Their certificates may have expired meanwhile: then only their sessions can bring them back."""
    world.claim(A, "b-1", "b-2")
    joined(world)
    joined(world, "b-2")
    world.pods.pop("b-2")
    world.restart_control()
    world.connect_tunnel(claimed(A), attested(A, "b-1", "b-2"))
    joined(world)
    world.hear(claimed(B, 20010), attested(B, "h-1"))
    world.wait(REJOIN_SECONDS - 1)
    assert world.states(A) == {"b-1": "acked"}
    world.wait(1)
    assert world.states(A) == {"b-1": "acked", "b-2": "gone"}
    assert world.states(B) == {}, "it had no time yet"
    joined(world, "b-2")
    assert world.states(A) == {"b-1": "acked", "b-2": "acked"}


def test_that_a_process_does_not_come_back_is_not_reported_where_the_pods_next_one_has(world: World) -> None:
    world.restart_control()
    world.connect_tunnel(claimed(A), next_process("b-1"))
    joined(world, NEXT)
    world.wait(REJOIN_SECONDS)
    assert world.states(A) == {"b-1": "acked"}


def test_agents_that_were_withdrawn_meanwhile_are_not_reported(world: World) -> None:
    world.restart_control()
    world.connect_tunnel(claimed(A), attested(A, "b-1"))
    world.hear(attested(A))
    world.hear(Synced())
    world.wait(REJOIN_SECONDS)
    assert world.states(A) == {}
