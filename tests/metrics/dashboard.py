"""The queries of docs/grafana/meshdev.json, as Grafana would send them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).parents[2] / "docs" / "grafana" / "meshdev.json"
_LABEL_VALUES: Final = re.compile(r"label_values\((?P<series>.*), (?P<label>\w+)\)")


def dashboard() -> dict[str, Any]:
    """The whole of it."""
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    """Title of the panel, and each of its targets."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target


def queries(rate_interval: str) -> Iterator[tuple[str, str]]:
    """The same with the expression where everything is chosen."""
    for title, target in targets():
        yield title, filled(target["expr"], rate_interval)


def filled(text: str, rate_interval: str = "1m") -> str:
    """An expression with values in place of variables."""
    for name, value in (("$__rate_interval", rate_interval), ("$namespace", ".*"), ("$workload", ".*")):
        text = text.replace(name, value)
    assert "$" not in text, text
    return text


def variables() -> Iterator[tuple[str, str]]:
    """Series and label of the variables that are queried."""
    for each in dashboard()["templating"]["list"]:
        if each["type"] == "query":
            match = _LABEL_VALUES.fullmatch(each["query"]["query"])
            assert match is not None
            yield filled(match["series"]), match["label"]
