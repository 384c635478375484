"""What control serves to Prometheus: the families as its own parser reads them, and the server around them."""

import asyncio
import socket
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from meshdev.config import VERSION
from meshdev.manager.control import metrics
from meshdev.manager.control.container import ControlContainer, ControlSettings
from meshdev.manager.control.metrics import ControlSnapshot, families, snapshot
from meshdev.manager.control.totals import InterceptLabels, WorkloadLabels, WorkloadTotals
from meshdev.metrics import exposition
from meshdev.wire.counts import Counts, PassthroughTotals, Traffic
from tests.manager.claims import spec
from tests.manager.control.sidecar_pod import SidecarPod
from tests.manager.control.test_totals import A, joined, report
from tests.manager.control.world import World, claimed
from tests.metrics.client import get
from tests.waiting import until

B = spec("b", value="2")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(known: ControlSnapshot) -> Samples:
    """As a scraper reads them."""
    text = exposition.text(families(known)).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def refusing(world: World, name: str) -> SidecarPod:
    pod = world.pod(name)
    pod.refuses = A.id.encode()
    pod.connect_agent()
    pod.connect_envoy()
    world.settle()
    return pod


def test_requests_by_intercept_and_outcome(world: World) -> None:
    world.claim(A, "b-1")
    report(joined(world), 7, 2, 1)
    found = samples(snapshot(world.core))
    labels = {"id": A.id, "holder": "ann", "namespace": "default", "workload": "deployment/b"}
    outcomes = {each: value(found, "meshdev_requests_total", **labels, outcome=each) for each in OUTCOMES}
    assert outcomes == {"matched": 7, "fell_back": 2, "error": 1}


OUTCOMES = ("matched", "fell_back", "error")


def test_durations_and_bytes_by_intercept(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    empty = samples(snapshot(world.core))
    labels = {"id": A.id, "holder": "ann", "namespace": "default", "workload": "deployment/b"}
    name = "meshdev_request_duration_seconds"
    assert value(empty, f"{name}_count", **labels) == 0, "a series from the start: rate() needs a first value"
    pod.report(traffic=((A.id, Traffic(100, 2000, 61_007, (0, 0, 2, *[0] * 12, 1))),))
    found = samples(snapshot(world.core))
    assert value(found, f"{name}_count", **labels) == 3
    assert value(found, f"{name}_sum", **labels) == 61.007
    below = {bound: value(found, f"{name}_bucket", **labels, le=bound) for bound in ("0.002", "0.005", "60.0", "+Inf")}
    assert below == {"0.002": 0, "0.005": 2, "60.0": 2, "+Inf": 3}
    assert value(found, "meshdev_request_bytes_total", **labels, direction="request") == 100
    assert value(found, "meshdev_request_bytes_total", **labels, direction="response") == 2000


def test_sidecars_by_state(world: World) -> None:
    world.claim(A, "b-1", "b-2", "b-3")
    assert joined(world, "b-1").redirects()
    world.pod("b-2").connect_agent()
    refusing(world, "b-3")
    joined(world, "b-4")
    found = samples(snapshot(world.core))
    states = {each: value(found, "meshdev_sidecars", state=each) for each in ("idle", "acked", "joined", "nacked")}
    assert states == {"idle": 1, "acked": 1, "joined": 1, "nacked": 1}


def test_intercepts_by_mode_and_the_version(world: World) -> None:
    world.hear(claimed(A), claimed(B, 20010))
    found = samples(snapshot(world.core))
    assert value(found, "meshdev_intercepts", mode="mesh") == 2
    assert value(found, "meshdev_intercepts", mode="proxy") == 0
    assert value(found, "meshdev_manager_info", version=VERSION) == 1


def test_health_of_passthrough_and_envoy(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    pod.report(passthrough=PassthroughTotals(9, 8, 7, 6, (("lost", 5),), (("upgraded", 4),)), envoys=1)
    pod.report(passthrough=PassthroughTotals(9, 8, 7, 6, (("lost", 5),), (("upgraded", 4),)), envoys=3)
    found = samples(snapshot(world.core))
    labels = {"namespace": "default", "workload": "deployment/b"}
    names = ("connections", "claimed_requests", "without_envoy", "errors")
    assert [value(found, f"meshdev_passthrough_{name}_total", **labels) for name in names] == [9, 8, 7, 6]
    assert value(found, "meshdev_passthrough_pod_address_total", **labels, reason="lost") == 5
    assert value(found, "meshdev_passthrough_raw_total", **labels, reason="upgraded") == 4
    assert value(found, "meshdev_envoy_restarts_total", **labels) == 2


@pytest.mark.parametrize("holder", ['"; \\ \n}', "{a=~", "ann@läptop", "\x00"])
def test_names_of_any_kind_arrive_as_they_are(holder: str) -> None:
    labels = InterceptLabels("a" * 32, holder, "default", "deployment/b")
    found = samples(ControlSnapshot(requests=((labels, Counts(1)),)))
    assert value(found, "meshdev_requests_total", **labels._asdict(), outcome="matched") == 1


def test_all_names_are_ours_and_all_counters_are_called_so() -> None:
    known = ControlSnapshot(
        requests=((InterceptLabels("a", "b", "c", "d"), Counts()),),
        traffic=((InterceptLabels("a", "b", "c", "d"), Traffic()),),
        workloads=((WorkloadLabels("c", "d"), WorkloadTotals(raw=Counter({"upgraded": 1}))),),
    )
    for family in families(known):
        assert family.name.startswith("meshdev_")
        assert family.documentation.endswith(".")
        assert family.type in {"counter", "gauge", "histogram", "info"}
        assert all(each.name.endswith("_total") == (family.type == "counter") for each in family.samples)


async def test_it_is_served(world: World) -> None:
    world.claim(A, "b-1")
    report(joined(world), 7)
    async with metrics.serving(world.core, ("127.0.0.1", 0)) as port:
        status, headers, body = await get(port)
    assert (status, headers["content-type"]) == (200, exposition.CONTENT_TYPE)
    assert b'outcome="matched",' in body or b'outcome="matched"}' in body


async def test_a_port_that_is_taken_ends_nothing_else(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async with metrics.serving(world.core, ("127.0.0.1", 0)) as port:
        async with asyncio.timeout(5):
            await metrics.serve(world.core, ("127.0.0.1", port))
    assert "metrics are not served" in caplog.text


async def test_control_serves_them_as_soon_as_it_runs(tmp_path: Path, unused_tcp_port: int) -> None:
    """Before its tunnel container is there: it is then that people look."""
    settings = ControlSettings(
        "manager-uid",
        "127.0.0.1:0",
        tmp_path / "authority",
        tmp_path / "tunnel.sock",
        tmp_path / "relay.sock",
        metrics=("127.0.0.1", unused_tcp_port),
    )
    running = asyncio.create_task(ControlContainer(settings).run())
    try:
        await until(lambda: is_listening(unused_tcp_port))
        assert b"meshdev_intercepts" in (await get(unused_tcp_port))[2]
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert not is_listening(unused_tcp_port)


def is_listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
