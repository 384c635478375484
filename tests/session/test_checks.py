"""The dashboard's health: what is wrong is there with a way out, and nothing else is."""

from dataclasses import replace

import pytest

from meshdev.config import PROTOCOL
from meshdev.errors import ForbiddenError, MeshdevError, UnreachableError
from meshdev.modes.state import InterceptState, PodsState
from meshdev.session.checks import Check, checks
from meshdev.session.state import SessionState
from meshdev.wire.intercepts import Report
from meshdev.wire.session_api import CarrierStatus, DnsStatus
from meshdev.wire.session_intercepts import LocalPort
from tests.session.test_state import STANDING, WELCOME

FINE = replace(
    STANDING,
    server="https://api:6443",
    carriers=(CarrierStatus("spdy", True, 1.5), CarrierStatus("spdy", True, 0.9)),
    dns=DnsStatus("resolved", "10.96.0.10"),
    troubles=(),
    trouble_sources=(),
    intercepts=(InterceptState(1.0, up=True, pods=PodsState(acked=2, total=2)),),
)


def found(state: SessionState, *watches: MeshdevError) -> dict[str, Check]:
    return {each.check: each for each in checks(state, watches)}


def test_all_is_well() -> None:
    there = found(FINE)
    assert {each.state for each in there.values()} == {"ok"}
    assert {each.hint for each in there.values()} == {None}
    assert there["tunnel"].detail == "2 of 2 carriers are up, round trip 0.9 ms"
    assert there["manager"].detail == f"pod mesh/m-1, protocol {PROTOCOL}"
    assert there["API server"].detail == "https://api:6443"
    assert there["names"].detail == "resolved by 10.96.0.10 (resolved)"
    assert there["routes"].detail == "1 routes lead to the tunnel"


@pytest.mark.parametrize(
    ("changes", "check", "state", "text"),
    [
        ({"carriers": ()}, "tunnel", "failed", "a proxy says no"),
        ({"carriers": (CarrierStatus("spdy", False),), "tunnel_error": None}, "tunnel", "failed", "no carrier is up"),
        ({"carriers": (*FINE.carriers, CarrierStatus("spdy", False))}, "tunnel", "warning", "2 of 3 carriers"),
        ({"welcome": None}, "manager", "failed", "no manager has answered"),
        ({"welcome": replace(WELCOME, version=PROTOCOL - 1)}, "manager", "warning", f"speaks {PROTOCOL}"),
        ({"troubles": ("b is unknown",), "trouble_sources": ("names",)}, "names", "warning", "b is unknown"),
        ({"troubles": ("no answer",), "trouble_sources": ("cluster",)}, "names", "warning", "no answer"),
        ({"troubles": ("by tun1",), "trouble_sources": ("routes",)}, "routes", "warning", "by tun1"),
        ({"troubles": ("overlap",), "trouble_sources": ("networks",)}, "routes", "warning", "overlap"),
        ({"troubles": ("the link is down",), "trouble_sources": ("helper",)}, "helper", "warning", "the link is down"),
    ],
)
def test_what_is_wrong(changes: dict[str, object], check: str, state: str, text: str) -> None:
    there = found(replace(FINE, **changes))  # type: ignore[arg-type] # of fields
    wrong = there.pop(check)
    assert (wrong.state, text in wrong.detail, bool(wrong.hint)) == (state, True, True)
    assert {each.state for each in there.values()} == {"ok"}


def test_reconnects_are_told() -> None:
    assert found(replace(FINE, reconnects=3))["tunnel"].detail.endswith("0.9 ms, 3 reconnects")


def test_what_cannot_be_followed() -> None:
    refused = ForbiddenError("you may not list pods", hint="meshdev rbac")
    there = found(FINE, UnreachableError("no route"), refused, refused)["API server"]
    assert (there.state, there.detail, there.hint) == ("warning", "no route; you may not list pods", "meshdev rbac")
    assert found(FINE, UnreachableError("no route"))["API server"].hint == "it is tried again by itself"


def test_without_intercepts_there_are_no_requests() -> None:
    there = found(replace(FINE, intercepts=()))["intercepts"]
    assert there.state == "skipped"
    assert "meshdev mesh" in (there.hint or "")


REPORTS = (Report("1" * 32, "b-1", "acked"), Report("1" * 32, "b-2", "nacked", "Envoy says no"))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"local": (LocalPort(8080, "tcp", up=False),)}, "2 of 2 pods have it; nothing listens here on 8080/tcp"),
        ({"up": False}, "2 of 2 pods have it; it is not up yet"),
        ({"pods": PodsState(REPORTS, acked=1, total=2)}, "1 of 2 pods have it; Envoy says no"),
        ({"pods": PodsState(REPORTS[:1], acked=1, total=2)}, "1 of 2 pods have it; others are asked still"),
    ],
)
def test_intercepts(changes: dict[str, object], text: str) -> None:
    one = replace(FINE.intercepts[0], **changes)  # type: ignore[arg-type] # of fields
    there = found(replace(FINE, intercepts=(one,)))["intercept of a target that is looked for"]
    assert (there.state, there.detail) == ("warning", text)


def test_what_is_left_out_is_told() -> None:
    assert [each.detail for each in checks(FINE, (), ["3 more workloads"]) if each.check == "requests"] == [
        "3 more workloads"
    ]


def test_as_json() -> None:
    assert Check("names", "ok", "fine").as_json() == {"check": "names", "state": "ok", "detail": "fine", "hint": None}
