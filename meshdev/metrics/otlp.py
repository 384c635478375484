"""What was sent by OTLP, and what was lost, as a metric of control and session."""

from collections.abc import Iterable

from prometheus_client.metrics_core import CounterMetricFamily, Metric

from meshdev.telemetry.signals import SignalState


def items(signals: Iterable[SignalState]) -> Metric:
    """Of each signal: ``sent``, ``failed`` (the receiver did not take them), ``dropped`` (too many waited)."""
    family = CounterMetricFamily(
        "meshdev_otlp_items", "Spans and logs, by what became of them.", labels=["signal", "outcome"]
    )
    for each in signals:
        for outcome, count in (("sent", each.sent), ("failed", each.failed), ("dropped", each.dropped)):
            family.add_metric([each.signal, outcome], count)
    return family
