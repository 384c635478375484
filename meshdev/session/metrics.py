"""The metrics of one session, at 127.0.0.1 and for programs of this machine: ``connect --metrics-port``.

They are a view of :class:`SessionState`, made when somebody asks. This module is imported only where they are wanted.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)

from meshdev.config import METRICS_PATH, VERSION
from meshdev.dns.forwarder import ANSWER_SOURCES
from meshdev.metrics import exposition, otlp, server
from meshdev.session.local_listener import ADDRESS, local_listener
from meshdev.session.state import SessionState
from meshdev.wire.session_api import STATES

#: By which names it may be asked for, before the port.
_NAMES: Final = (ADDRESS, "localhost")


def families(state: SessionState) -> Iterator[Metric]:
    """All metrics of that state. Every label has a fixed set of values: carriers are at most MAX_CARRIERS."""
    yield InfoMetricFamily("meshdev_session", "This session.", {"version": VERSION})
    phases = GaugeMetricFamily("meshdev_session_state", "1 for the state that status shows, else 0.", labels=["state"])
    for phase in STATES:
        phases.add_metric([phase], phase == state.phase)
    yield phases
    yield from _tunnel(state)
    yield from _names(state)
    yield from _intercepts(state)
    if state.signals:
        yield otlp.items(state.signals)


def _tunnel(state: SessionState) -> Iterator[Metric]:
    traffic = state.traffic
    up = sum(carrier.up for carrier in state.carriers)
    yield GaugeMetricFamily("meshdev_tunnel_carriers_up", "Carriers that heard from the manager a moment ago.", up)
    yield CounterMetricFamily("meshdev_tunnel_reconnects", "Carriers that replaced a lost one.", state.reconnects)
    yield _counter(
        "meshdev_tunnel_bytes",
        "Bytes of IP packets that passed the tunnel.",
        "direction",
        (("to_cluster", traffic.bytes_to_cluster), ("to_laptop", traffic.bytes_to_laptop)),
    )
    yield _counter(
        "meshdev_tunnel_packets",
        "IP packets that passed the tunnel, not yet segmented: up to 64 KiB each.",
        "direction",
        (("to_cluster", traffic.packets_to_cluster), ("to_laptop", traffic.packets_to_laptop)),
    )
    yield _counter(
        "meshdev_tunnel_dropped_packets",
        "Packets dropped at this machine: malformed ones, and those that its kernel did not take.",
        "reason",
        (("malformed", traffic.malformed), ("kernel", traffic.dropped - traffic.malformed)),
    )
    round_trip = GaugeMetricFamily(
        "meshdev_tunnel_round_trip_seconds", "What the last heartbeat of each carrier took.", labels=["carrier"]
    )
    for index, carrier in enumerate(state.carriers):
        if carrier.rtt_ms is not None:
            round_trip.add_metric([str(index)], carrier.rtt_ms / 1e3)
    yield round_trip


def _names(state: SessionState) -> Iterator[Metric]:
    counts = dict(state.dns_answers)
    yield _counter(
        "meshdev_dns_answers",
        "DNS questions of programs, by whose answer they got.",
        "source",
        ((source, counts.get(source, 0)) for source in ANSWER_SOURCES),
    )


def _intercepts(state: SessionState) -> Iterator[Metric]:
    pods = [each.pods for each in state.intercepts]
    yield GaugeMetricFamily("meshdev_session_intercepts", "Intercepts of this session.", len(state.intercepts))
    found = GaugeMetricFamily(
        "meshdev_session_pods", "Pods of its intercepts, by whether they took them.", labels=["state"]
    )
    acked, total = sum(each.acked for each in pods), sum(each.total for each in pods)
    found.add_metric(["acked"], acked)
    found.add_metric(["pending"], max(0, total - acked))
    yield found


def _counter(name: str, text: str, label: str, values: Iterable[tuple[str, int]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in values:
        family.add_metric([value], count)
    return family


@asynccontextmanager
async def serving(port: int, state: Callable[[], SessionState]) -> AsyncIterator[None]:
    """Serve the metrics of *state*, as it is when somebody asks. Raises LaptopError where the port is taken."""

    async def make() -> bytes:
        return exposition.text(families(state()))

    hosts = frozenset(f"{name}:{port}" for name in _NAMES)
    page = server.Page(METRICS_PATH, make, exposition.CONTENT_TYPE, hosts)
    async with server.serving(local_listener(port, "metrics", "--metrics-port"), page):
        yield
