"""Matches of version 0.1.0: their text, their JSON and Envoy's route stay what they were."""

import json
from pathlib import Path

import pytest

from meshdev.intercept.match import parse_match, text
from meshdev.intercept.spec import canonical_json
from meshdev.sidecar.envoy.routes import condition

#: Of each match four lines: the options' values, what ``list`` shows, its JSON in Leases and claims (locks are named
#: after it), the match of Envoy's route.
RECORDED = [
    each.splitlines()
    for each in Path(__file__, "../../../intercept/recorded/matches.txt").resolve().read_text().split("\n\n")
]


@pytest.mark.parametrize(("typed", "shown", "encoded", "route"), RECORDED)
def test_a_match_is_written_as_it_was(typed: str, shown: str, encoded: str, route: str) -> None:
    match = parse_match(**json.loads(typed))
    assert text(match) == shown
    assert canonical_json(match) == encoded
    assert json.dumps(condition(match), separators=(",", ":")) == route


def test_all_traffic_is_written_as_it_was() -> None:
    assert (canonical_json(None), condition(None)) == ("null", {"prefix": ""})
