"""What was sent by OTLP, and what was lost, as a metric of control and session."""

from collections.abc import Iterable

from prometheus_client.metrics_core import CounterMetricFamily, Metric

from meshdev.telemetry.signals import SignalState


def items(signals: Iterable[SignalState]) -> Metric:
    """Of each signal: ``sent``, ``failed`` (the receiver did not take them), ``dropped`` (too many waited), and
    ``unrecorded`` (requests that were too many for records)."""
    family = CounterMetricFamily(
        "meshdev_otlp_items", "Spans and logs, by what became of them.", labels=["signal", "outcome"]
    )
    for each in signals:
        counts = {"sent": each.sent, "failed": each.failed, "dropped": each.dropped, "unrecorded": each.unrecorded}
        for outcome, count in counts.items():
            family.add_metric([each.signal, outcome], count)
    return family
