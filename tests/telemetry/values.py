"""Requests of tests."""

import time
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any, Final

from meshdev.wire.access import AccessRecord
from meshdev.wire.session_inspect import InspectedRequest

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
SPAN: Final = "b7ad6b7169203331"
PARENT: Final = "00f067aa0ba902b7"
INTERCEPT: Final = "c" * 32


def request(**changes: Any) -> InspectedRequest:
    """One that a laptop served, in a trace of its client's."""
    record = AccessRecord(
        time=int(time.time() * 1e6),
        source=IPv4Address("10.244.0.7"),
        port=8080,
        protocol="HTTP/1.1",
        served_by="laptop",
        duration=3400,
        method="GET",
        authority="b.shop:8000",
        path="/api/orders?a=1",
        status=200,
        intercept=INTERCEPT,
        holder="ann@laptop",
        trace_id=TRACE,
        span_id=SPAN,
        parent_span_id=PARENT,
        sampled=True,
    )
    return InspectedRequest("shop", "deployment/b", "b-1", replace(record, **changes))
