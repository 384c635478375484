"""What control's core issues: for whom claims name, to their sessions, and to agents with an edge. No I/O."""

from dataclasses import replace

from meshdev.identity.fingerprints import fingerprint
from meshdev.identity.keys import key_id
from meshdev.intercept.spec import Spec
from meshdev.wire import control
from meshdev.wire.frames import ISSUED
from meshdev.wire.intercepts import Issued
from meshdev.wire.manager import CertificateIssued
from tests.manager.claims import spec
from tests.manager.control.identities import identity
from tests.manager.control.test_core import joined
from tests.manager.control.world import World, alias, attested, claimed, key

A, B = spec("a"), spec("b", value="2")


def issued(world: World, one: Spec, name: str) -> bytes:
    """What the session of that claim was given for an agent."""
    message = world.tunnel[f"issued {alias(one)} {fingerprint(identity(name).request)}"]
    assert isinstance(message, CertificateIssued)
    found = control.decode(ISSUED, message.body)
    assert isinstance(found, Issued)
    assert (found.id, found.request, message.id) == (one.id, message.request, alias(one))
    return found.certificate


def test_certificates_are_for_all_that_claims_name_whether_they_are_there_or_not(world: World) -> None:
    world.claim(A, "b-1", "b-2")
    world.claim(B, "b-2", first=20010)
    for one, name in ((A, "b-1"), (A, "b-2"), (B, "b-2")):
        assert key_id(issued(world, one, name)) == key(name)
    pod = joined(world)
    assert pod.certificate is not None
    first = issued(world, A, "b-1")
    assert pod.certificate.certificate == first
    world.tunnel.clear()
    world.hear(attested(A, "b-1", "b-2"))
    assert [each for each in world.tunnel if each.startswith("issued")] == [], "what is as it was is not sent again"
    world.wait(1801)
    assert pod.certificate.certificate == issued(world, A, "b-1") != first, "at half of its life both get the next"
    assert key_id(issued(world, B, "b-2")) == key("b-2")
    world.connect_tunnel(claimed(A), attested(A, "b-1"))
    assert issued(world, A, "b-1") == pod.certificate.certificate, "a tunnel container that begins anew is told all"


def test_a_claim_that_is_another_workloads_names_its_agents_anew(world: World) -> None:
    world.claim(A, "b-1")
    first = issued(world, A, "b-1")
    other = replace(A, workload=replace(A.workload, name="other"))
    world.hear(claimed(other), attested(other, "b-1"))
    assert issued(world, other, "b-1") != first


def test_the_next_one_reaches_the_session_when_a_report_of_the_agent_was_first_to_need_it(world: World) -> None:
    world.claim(A, "b-1")
    world.wait(20)
    world.claim(B, "b-2", first=20010)
    pod = joined(world, "b-2")
    first = issued(world, B, "b-2")
    world.wait(1800 + 5)  # the next look for what is due comes later
    pod.report()
    world.wait(0)
    assert pod.certificate is not None
    assert pod.certificate.certificate == issued(world, B, "b-2") != first
