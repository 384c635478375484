"""Filters of inspected requests."""

import pytest

from meshdev.observe.filters import is_wanted
from meshdev.wire.session_inspect import RequestFilter, parse_statuses
from tests.wire.test_session_inspect import INSPECTED

S5, S200 = parse_statuses("5xx"), parse_statuses("200")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (RequestFilter(), True),
        (RequestFilter(methods=("POST", "GET")), True),
        (RequestFilter(methods=("get",)), False),
        (RequestFilter(paths=("/other", "/ap")), True),
        (RequestFilter(paths=("/api/x",)), False),
        (RequestFilter(statuses=(S5, S200)), True),
        (RequestFilter(statuses=(S5,)), False),
        (RequestFilter(served_by=("laptop", "fallback")), True),
        (RequestFilter(served_by=("laptop",)), False),
        (RequestFilter(clients=("deployment/a",)), True),
        (RequestFilter(clients=("10.244.0.7",)), True),
        (RequestFilter(clients=("deployment/b",)), False),
        (RequestFilter(methods=("GET",), paths=("/api",), statuses=(S200,), served_by=("fallback",)), True),
        (RequestFilter(methods=("GET",), paths=("/api",), statuses=(S5,)), False),
    ],
)
def test_one_of_each(wanted: RequestFilter, expected: bool) -> None:
    assert is_wanted(wanted, INSPECTED) is expected
