"""The metrics of control, at port 15020 of the manager's pod: what all sessions and all sidecars do together.

:func:`snapshot` copies what they need out of the core, :func:`families` makes metrics of it, and may do so in a thread.
Counters are kept by :mod:`meshdev.manager.control.totals`, where it says what bounds the labels.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal, get_args

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from meshdev.config import METRICS_PATH, VERSION
from meshdev.manager.control.core import Core
from meshdev.manager.control.pods import Pod
from meshdev.manager.control.totals import OTHER, InterceptLabels, WorkloadLabels, WorkloadTotals
from meshdev.metrics import exposition, otlp, server
from meshdev.telemetry.signals import SignalState
from meshdev.wire.counts import DURATIONS, Counts, Traffic
from meshdev.wire.modes import MODES

log = logging.getLogger("meshdev.manager.control")

#: Of a sidecar: nobody claims anything of its pod; it has taken all claims, not yet all, or its Envoy refuses one.
SidecarState = Literal["idle", "acked", "joined", "nacked"]


@dataclass(frozen=True)
class ControlSnapshot:
    """What the metrics are made of."""

    requests: tuple[tuple[InterceptLabels, Counts], ...] = ()
    traffic: tuple[tuple[InterceptLabels, Traffic], ...] = ()
    workloads: tuple[tuple[WorkloadLabels, WorkloadTotals], ...] = ()
    intercepts: tuple[tuple[str, int], ...] = ()
    """How many there are, by mode."""
    sidecars: tuple[tuple[SidecarState, int], ...] = ()
    signals: tuple[SignalState, ...] = ()
    """What is sent by OTLP, where anything is."""


def snapshot(core: Core, signals: tuple[SignalState, ...] = ()) -> ControlSnapshot:
    """The core as it is now."""
    totals = core.totals
    return ControlSnapshot(
        tuple(sorted(totals.requests().items())),
        tuple(sorted(totals.traffic().items(), key=lambda item: item[0])),
        tuple(sorted(totals.workloads().items(), key=lambda item: item[0])),
        tuple(Counter(str(claim.spec.mode) for claim in totals.claims).items()),
        tuple(Counter(map(_state, core.pods())).items()),
        signals,
    )


def _state(pod: Pod) -> SidecarState:
    states = {report.state for _, report in pod.reported()}
    if "nacked" in states:
        return "nacked"
    if "joined" in states:
        return "joined"
    return "acked" if "acked" in states else "idle"


def families(known: ControlSnapshot) -> Iterator[Metric]:
    """All metrics of control."""
    yield InfoMetricFamily("meshdev_manager", "This traffic-manager.", {"version": VERSION})
    for part in _PARTS:
        yield from part(known)
    if known.signals:
        yield otlp.items(known.signals)


def _intercepts(known: ControlSnapshot) -> Iterator[Metric]:
    found = GaugeMetricFamily("meshdev_intercepts", "Intercepts of all sessions.", labels=["mode"])
    counts = dict(known.intercepts)
    for mode in MODES:
        found.add_metric([mode], counts.get(mode, 0))
    yield found


def _requests(known: ControlSnapshot) -> Iterator[Metric]:
    found = CounterMetricFamily(
        "meshdev_requests",
        "Requests (of bytes: connections, of UDP: senders) that an intercept claimed. All are matched; those that fell"
        " back to the original and errors are among them.",
        labels=[*InterceptLabels._fields, "outcome"],
    )
    for labels, counts in known.requests:
        outcomes = (("matched", counts.matched), ("fell_back", counts.fell_back), ("error", counts.errors))
        for outcome, count in outcomes:
            found.add_metric([*labels, outcome], count)
    yield found


#: Upper bounds in seconds.
_BOUNDS: Final = [*(str(bound / 1000) for bound in DURATIONS), "+Inf"]


def _traffic(known: ControlSnapshot) -> Iterator[Metric]:
    durations = HistogramMetricFamily(
        "meshdev_request_duration_seconds",
        "From the end of a request to the end of its response, as the sidecar sees it: of an intercept's HTTP requests"
        " that were answered.",
        labels=InterceptLabels._fields,
    )
    carried = CounterMetricFamily(
        "meshdev_request_bytes",
        "Bytes of requests and responses of an intercept, with their heads; also of connections and datagrams.",
        labels=[*InterceptLabels._fields, "direction"],
    )
    for labels, traffic in known.traffic:
        counts = accumulate(traffic.durations or (0,) * len(_BOUNDS))
        durations.add_metric(labels, list(zip(_BOUNDS, counts, strict=True)), traffic.milliseconds / 1000)
        carried.add_metric([*labels, "request"], traffic.request_bytes)
        carried.add_metric([*labels, "response"], traffic.response_bytes)
    yield durations
    yield carried


def _sidecars(known: ControlSnapshot) -> Iterator[Metric]:
    found = GaugeMetricFamily("meshdev_sidecars", "Sidecars by what became of the claims on them.", labels=["state"])
    counts = dict(known.sidecars)
    for state in get_args(SidecarState):
        found.add_metric([state], counts.get(state, 0))
    yield found


#: Name, help, and what it counts.
_OF_WORKLOADS: Final[tuple[tuple[str, str, Callable[[WorkloadTotals], int]], ...]] = (
    ("meshdev_passthrough_connections", "Connections that passthrough proxies accepted.", lambda each: each.accepted),
    ("meshdev_passthrough_claimed_requests", "Requests that they sent to Envoy.", lambda each: each.claimed),
    (
        "meshdev_passthrough_without_envoy",
        "Claimed requests and connections that they sent to the app, as Envoy did not accept them.",
        lambda each: each.without_envoy,
    ),
    ("meshdev_passthrough_errors", "Connections that they reset by an internal error.", lambda each: each.errors),
    (
        "meshdev_envoy_restarts",
        "Envoys that replaced another one of the same sidecar.",
        lambda each: each.envoy_restarts,
    ),
)
_BY_REASON: Final[tuple[tuple[str, str, Callable[[WorkloadTotals], Counter[str]]], ...]] = (
    ("meshdev_passthrough_raw", "Connections that they followed no further, by reason.", lambda each: each.raw),
    (
        "meshdev_passthrough_pod_address",
        "Connections to the app from the pod's address instead of the client's, by reason.",
        lambda each: each.pod_address,
    ),
)


def _workloads(known: ControlSnapshot) -> Iterator[Metric]:
    for name, text, count in _OF_WORKLOADS:
        found = CounterMetricFamily(name, text, labels=WorkloadLabels._fields)
        for labels, totals in known.workloads:
            found.add_metric(labels, count(totals))
        yield found
    for name, text, counts in _BY_REASON:
        found = CounterMetricFamily(name, text, labels=[*WorkloadLabels._fields, "reason"])
        for labels, totals in known.workloads:
            for reason, number in sorted({OTHER: 0, **counts(totals)}.items()):  # a series from the start
                found.add_metric([*labels, reason], number)
        yield found


_PARTS: Final[tuple[Callable[[ControlSnapshot], Iterable[Metric]], ...]] = (
    _intercepts,
    _requests,
    _traffic,
    _sidecars,
    _workloads,
)


def _text(known: ControlSnapshot) -> bytes:
    return exposition.text(families(known))


@asynccontextmanager
async def serving(
    core: Core, address: tuple[str, int], signals: Callable[[], tuple[SignalState, ...]] = tuple
) -> AsyncIterator[int]:
    """Serve the core's metrics there; the port. Raises OSError where that cannot be."""

    async def make() -> bytes:
        # Thousands of lines take tens of milliseconds to write, in which nobody else would be served.
        return await asyncio.to_thread(_text, snapshot(core, signals()))

    listener = socket.create_server(address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    async with server.serving(listener, server.Page(METRICS_PATH, make, exposition.CONTENT_TYPE)):
        yield listener.getsockname()[1]


async def serve(core: Core, address: tuple[str, int], signals: Callable[[], tuple[SignalState, ...]] = tuple) -> None:
    """Serve them until cancelled. Where that cannot be, the log has why, and control does without."""
    try:
        async with serving(core, address, signals) as port:
            log.info("metrics are served at port %d", port)
            await asyncio.Event().wait()
    except OSError as error:
        log.error("metrics are not served: %s", error)  # noqa: TRY400 -- the sentence says it
