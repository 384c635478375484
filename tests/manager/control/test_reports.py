"""Which reports reach sessions: those of the process that a pod has now. No I/O."""

from dataclasses import replace

from meshdev.wire.intercepts import Agents
from tests.manager.claims import spec
from tests.manager.control.identities import identity
from tests.manager.control.test_core import joined
from tests.manager.control.world import World, alias

A = spec("a")
#: The next process of the agent in pod b-1, which has another key.
NEXT = "b-2"


def next_process() -> Agents:
    return Agents(alias(A), 0, (replace(identity(NEXT).attested, pod="b-1"),))


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
