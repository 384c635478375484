"""Whatever breaks between laptop and manager: traffic flows again by itself, and status never lies meanwhile."""

import json
from functools import partial

import pytest

from meshdev.config import MANAGER_NAME, SILENCE_SECONDS
from meshdev.tunnel.carrier import DOUBTFUL_SECONDS
from tests.e2e.blackhole import blackhole, carrier_ports
from tests.e2e.conftest import Laptop, control, kubectl, until
from tests.e2e.loops import PATIENCE, Loop, StatusLoop, echo, now, requests, statuses

pytestmark = [pytest.mark.cluster, pytest.mark.every_cluster, pytest.mark.timeout(180)]

#: Issue: traffic flows again within this time.
AGAIN_SECONDS = 10.0
#: Told of a closed carrier, the session knows at once; a status question takes a while itself.
AT_ONCE_SECONDS = 1.0


def manager_pod() -> str:
    """The name of the running manager pod."""
    selector = f"app.kubernetes.io/name={MANAGER_NAME}"
    pods = json.loads(kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
    return next(str(pod["metadata"]["name"]) for pod in pods if not pod["metadata"].get("deletionTimestamp"))


def never_lied(status: StatusLoop, traffic: Loop, since: float, notice: float) -> tuple[float, float]:
    """Asserts that nobody heard "connected" while nothing passed; when that was.

    *notice* is the time the session may need to notice. A request that began within the last PATIENCE of an outage
    may have hung although the tunnel was back.
    """
    begun, ended = traffic.outage(since)
    said = status.states(begun + notice, ended - PATIENCE - 0.3)
    assert "connected" not in said, f"{begun - since:.1f} to {ended - since:.1f} s: {said}"
    return begun - since, ended - since


def report(what: str, seconds: float) -> None:
    """For ``pytest -s``: the figures of the closing note."""
    print(f"\n{what}: {seconds:.1f} s")


def test_deleted_manager_pod(connected: Laptop) -> None:
    before, old = connected.status()["address"], manager_pod()
    with requests(connected) as curl, statuses(connected) as status:
        began = now()
        kubectl("delete", "pod", old, "--wait=false")
        # A kubelet that lost its API server a moment ago (another test) may be in its backoff of up to 30 s.
        # Its successor may be there within a second: who asks now and then need not see that anything was missing.
        noticed = status.until(
            "another manager, or none", lambda it: (it["manager"] or {}).get("pod") != old, began, 45
        )
        until("a request after the outage", lambda: curl.good_since(began + noticed + PATIENCE), 30)
        until("connected", lambda: connected.status()["state"] == "connected", AGAIN_SECONDS)
        curl.well(10)
        begun, ended = never_lied(status, curl, began, AT_ONCE_SECONDS)
        report("manager pod deleted, outage", ended - begun)
        assert ended - begun < AGAIN_SECONDS
    assert manager_pod() != old
    assert connected.status()["address"] == before


def test_restarted_api_server(connected: Laptop) -> None:
    before, pod = connected.status()["address"], manager_pod()
    with requests(connected) as curl, statuses(connected) as status, echo(connected) as conversation:
        began = now()
        control("restart", "apiserver")
        restarted = now()
        assert "reconnecting" in status.states(began, restarted)
        until("a request after the restart", lambda: curl.good_since(restarted), AGAIN_SECONDS)
        until("an answer after the restart", lambda: conversation.good_since(restarted), AGAIN_SECONDS)
        until("connected", lambda: connected.status()["state"] == "connected", AGAIN_SECONDS)
        curl.well(10)
        _, ended = never_lied(status, curl, began, AT_ONCE_SECONDS)
        report("API server restarted, which took", restarted - began)
        report("requests pass after the restart", began + ended - restarted)
        assert began + ended < restarted + AGAIN_SECONDS
        assert conversation.alive
        assert not conversation.bad
    assert manager_pod() == pod
    assert connected.status()["address"] == before


def test_one_carrier_in_a_black_hole(connected: Laptop) -> None:
    before = connected.status()["address"]
    with requests(connected) as curl, echo(connected) as first, echo(connected) as second:
        for port in carrier_ports(connected):
            began = now()
            with blackhole(connected, [port]):
                until("another carrier", partial(_is_replaced, connected, port), SILENCE_SECONDS + 2)
                for loop in (curl, first, second):
                    loop.well(10)
                for name, loop in (("requests", curl), ("connection 1", first), ("connection 2", second)):
                    begun, ended = loop.outage(began)
                    report(f"one carrier in a black hole, {name}", ended - begun)
                    assert ended - begun < 6.0
        assert first.alive
        assert second.alive
    assert connected.status()["address"] == before


def _is_replaced(laptop: Laptop, port: int) -> bool:
    return port not in carrier_ports(laptop)


def test_all_carriers_in_a_black_hole(connected: Laptop) -> None:
    before = connected.status()["address"]
    with requests(connected) as curl, statuses(connected) as status, echo(connected) as conversation:
        began = now()
        with blackhole(connected):
            status.until_state("reconnecting", began, 5)
            until("eight seconds", lambda: now() > began + 8, 10)
        restored = now()
        until("traffic", lambda: curl.good_since(restored), AGAIN_SECONDS)
        curl.well(10)
        conversation.well(10)
        _, ended = never_lied(status, curl, began, DOUBTFUL_SECONDS + AT_ONCE_SECONDS)
        report("all carriers in a black hole for 8 s, requests pass after", began + ended - restored)
        report("and the old connection after", conversation.outage(began)[1] - restored)
        assert began + ended < restored + 6
        assert conversation.alive
        assert not conversation.bad
    assert connected.status()["address"] == before


@pytest.mark.parametrize("component", ["kubelet", "containerd"])
def test_restarted_node_component(connected: Laptop, component: str) -> None:
    before, pod = connected.status()["address"], manager_pod()
    with requests(connected) as curl, statuses(connected) as status, echo(connected) as conversation:
        began = now()
        control("restart", component)
        restarted = now()
        until("traffic", lambda: curl.good_since(restarted), AGAIN_SECONDS)
        until("connected", lambda: connected.status()["state"] == "connected", AGAIN_SECONDS)
        curl.well(10)
        begun, ended = never_lied(status, curl, began, AT_ONCE_SECONDS)
        report(f"{component} restarted, which took", restarted - began)
        report(f"{component} restarted, outage", ended - begun)
        conversation.well(10)
        assert not conversation.bad
    assert manager_pod() == pod
    assert connected.status()["address"] == before
