"""The traffic-manager, its carriers, and what is admitted."""

import pytest

from meshdev.config import PROTOCOL, VERSION
from meshdev.doctor.verdicts import manager
from meshdev.doctor.verdicts.manager import ManagerAdmission, Measured
from meshdev.errors import AdmissionError, ClusterError, ForbiddenError, MeshdevError, PortForwardError
from meshdev.kube.podstate import ManagerPod
from meshdev.wire.framing import CarrierKind
from meshdev.wire.session_intercepts import Strategy

FORBIDDEN, REFUSED = ForbiddenError("you may not create pods"), AdmissionError('violates PodSecurity "baseline"')


def pod(protocol: int | None) -> ManagerPod:
    return ManagerPod("n", "m-1", "u", "10.0.0.1", "node", protocol, VERSION, "image")


@pytest.mark.parametrize(
    ("protocol", "state", "words"),
    [
        (PROTOCOL, "ok", f"{VERSION}, pod n/m-1, protocol {PROTOCOL}"),
        (PROTOCOL + 1, "ok", "is older"),
        (3, "warning", "no intercepts"),
        (0, "failed", "too old"),
        (None, "warning", "--upgrade"),
    ],
)
def test_the_one_that_runs(protocol: int | None, state: str, words: str) -> None:
    found = manager.running(pod(protocol), "n")
    assert found.state == state
    assert words in f"{found.detail} {found.hint}"


def test_none_runs() -> None:
    assert manager.running(None, "n").detail == "none runs in namespace n; meshdev connect creates it"


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        (ManagerAdmission("n"), "ok", "tried by dry runs"),
        (ManagerAdmission("n", deployment=FORBIDDEN), "skipped", "see rbac-connect"),
        (ManagerAdmission("n", deployment=ClusterError("exceeded quota")), "failed", "exceeded quota"),
        (ManagerAdmission("n", pod=REFUSED), "failed", "violates PodSecurity"),
        (ManagerAdmission("n", pod=FORBIDDEN), "ok", "cannot be tried"),
        (ManagerAdmission("n", pod=FORBIDDEN, pod_security="privileged"), "ok", "cannot be tried"),
        (ManagerAdmission("n", pod=FORBIDDEN, pod_security="baseline"), "failed", "level baseline"),
        (ManagerAdmission("n", pod=FORBIDDEN, pod_security="restricted"), "failed", "--manager-namespace"),
    ],
)
def test_its_admission(facts: ManagerAdmission, state: str, words: str) -> None:
    found = manager.admitted(facts)
    assert found.state == state
    assert words in f"{found.detail} {found.hint}"


@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        ({"spdy": Measured(0.0123, 12.5e6)}, "ok", "12.3 ms to the traffic-manager and back, 100 Mbit/s upwards"),
        ({"spdy": Measured(0.0123, 1.25e9)}, "ok", "10.0 Gbit/s"),
        ({"spdy": Measured(0.0123, 12.5e3)}, "ok", "100 kbit/s"),
        ({"spdy": Measured(0.0123)}, "ok", "12.3 ms to the traffic-manager and back"),
        ({"spdy": Measured(0.4)}, "warning", "each request feels that"),
        ({"spdy": PortForwardError("cut off", hint="try")}, "failed", "cut off try"),
        ({"spdy": PortForwardError("cut off"), "websocket": PortForwardError("no")}, "failed", "cut off"),
        ({"spdy": PortForwardError("cut off"), "websocket": Measured(0.1)}, "warning", "websocket is used instead"),
    ],
)
def test_carriers(found: dict[CarrierKind, Measured | MeshdevError], state: str, words: str) -> None:
    made = manager.carrier("spdy", found)
    assert made.state == state
    assert words in f"{made.detail} {made.hint}"


@pytest.mark.parametrize(
    ("ephemeral", "patch", "state", "words"),
    [
        (None, REFUSED, "ok", "deployment/b takes it"),
        (REFUSED, None, "warning", "violates PodSecurity"),
        (REFUSED, REFUSED, "failed", "violates PodSecurity"),
        (REFUSED, FORBIDDEN, "failed", "violates PodSecurity"),
        (FORBIDDEN, REFUSED, "skipped", "see rbac-intercept"),
    ],
)
def test_sidecars(ephemeral: MeshdevError | None, patch: MeshdevError | None, state: str, words: str) -> None:
    tried: dict[Strategy, MeshdevError | None] = {"ephemeral": ephemeral, "patch": patch}
    found = manager.sidecar("ephemeral", "deployment/b", tried)
    assert found.state == state
    assert words in found.detail
