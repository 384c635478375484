"""docs/grafana/meshdev.json asks for metrics that exist, with labels that they have, of whatever data source is chosen.

Every query is run by a real Prometheus in tests/e2e/test_metrics.py.
"""

import json
import re
from collections import Counter
from itertools import chain
from typing import Any

from meshdev.manager.control import metrics as of_control
from meshdev.manager.control.totals import InterceptLabels, WorkloadLabels, WorkloadTotals
from meshdev.session import metrics as of_session
from meshdev.wire.counts import Counts, Traffic
from tests.metrics import dashboard
from tests.session.test_metrics import STATE

#: With a value in each metric.
CONTROL = of_control.ControlSnapshot(
    ((InterceptLabels("id", "ann", "default", "deployment/b"), Counts()),),
    ((InterceptLabels("id", "ann", "default", "deployment/b"), Traffic()),),
    ((WorkloadLabels("default", "deployment/b"), WorkloadTotals(raw=Counter(upgraded=1))),),
)
_GROUPED = re.compile(r"by \(([^)]*)\)")
_NAME = re.compile(r"\bmeshdev_\w+")
_MATCHED = re.compile(r"(\w+)=~?\"")
_LEGEND = re.compile(r"\{\{(\w+)\}\}")
#: Prometheus adds these.
_OF_TARGET = {"instance", "job"}


def _labels() -> dict[str, set[str]]:
    """Of each series that is served."""
    families = chain(of_control.families(CONTROL), of_session.families(STATE))
    return {each.name: set(each.labels) for family in families for each in family.samples}


def test_it_asks_for_what_there_is() -> None:
    known = _labels()
    for title, target in dashboard.targets():
        expression = target["expr"]
        names = _NAME.findall(expression)
        assert names, title
        for name in names:
            assert name in known, title
        for name in names:
            assert set(_MATCHED.findall(expression)) <= known[name], title
            for group in _GROUPED.findall(expression):
                assert set(group.split(", ")) <= known[name] | _OF_TARGET, title
        grouped = {label for group in _GROUPED.findall(expression) for label in group.split(", ")}
        shown = set(_LEGEND.findall(target["legendFormat"]))
        assert shown <= (grouped or known[names[0]] | _OF_TARGET), title


def test_every_counter_is_shown_as_a_rate() -> None:
    for title, target in dashboard.targets():
        for name in re.findall(r"\bmeshdev_\w+_total\b", target["expr"]):
            assert re.search(rf"(rate|increase)\({name}(\{{[^}}]*\}})?\[\$__rate_interval\]\)", target["expr"]), title


def test_everything_that_is_served_is_shown() -> None:
    shown = {name for _, target in dashboard.targets() for name in _NAME.findall(target["expr"])}
    not_shown = {"meshdev_manager_info", "meshdev_session_info", "meshdev_session_intercepts", "meshdev_session_pods"}
    assert _labels().keys() - shown == not_shown


def _data_sources(value: Any) -> list[object]:
    match value:
        case dict():
            here = [value["datasource"]] if "datasource" in value else []
            return here + [found for each in value.values() for found in _data_sources(each)]
        case list():
            return [found for each in value for found in _data_sources(each)]
    return []


def test_no_data_source_is_wired_in() -> None:
    found = _data_sources(dashboard.dashboard())
    assert len(found) > 20
    assert {json.dumps(each, sort_keys=True) for each in found} == {'{"type": "prometheus", "uid": "${datasource}"}'}
    assert next(iter(dashboard.dashboard()["templating"]["list"]))["type"] == "datasource"


def test_panels_do_not_overlap() -> None:
    cells: Counter[tuple[int, int]] = Counter()
    for panel in dashboard.dashboard()["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells.update((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))
    assert set(cells.values()) == {1}


def test_variables_are_labels_of_requests() -> None:
    assert [label for _, label in dashboard.variables()] == ["namespace", "workload"]
