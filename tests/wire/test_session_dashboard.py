"""The dashboard's request and its event, as JSON lines."""

import json

import pytest

from meshdev.errors import ProtocolError
from meshdev.wire.session_api import encode_event, encode_request, parse_event, parse_request
from meshdev.wire.session_dashboard import DashboardRequest, DashboardServed


@pytest.mark.parametrize("port", [None, 1, 65535])
def test_the_request(port: int | None) -> None:
    line = encode_request(DashboardRequest(port))
    assert json.loads(line) == {"op": "dashboard", "port": port}
    assert parse_request(line) == DashboardRequest(port)


@pytest.mark.parametrize("port", [0, 65536, "80", 1.5])
def test_ports_that_are_none(port: object) -> None:
    with pytest.raises(ProtocolError):
        parse_request(json.dumps({"op": "dashboard", "port": port}).encode())


def test_where_it_is_served() -> None:
    served = DashboardServed("http://127.0.0.1:8888/#token=x")
    line = encode_event(served)
    assert json.loads(line) == {"event": "dashboard", "url": served.url}
    assert parse_event(line) == served
