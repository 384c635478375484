"""Metric families as Prometheus' text format (0.0.4), which every Prometheus reads."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class _Families(Collector):
    """What was collected, for whoever writes it down."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def text(families: Iterable[Metric]) -> bytes:
    """All *families*, in their order. Label values may be any text."""
    registry = CollectorRegistry(auto_describe=False)  # registering asks for nothing
    registry.register(_Families(families))
    return generate_latest(registry)
