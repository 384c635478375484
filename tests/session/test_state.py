"""What `status` shows of a session: everything that is known, and the notes that belong to its phase."""

import os
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from meshdev.config import PROTOCOL
from meshdev.modes.state import InterceptState
from meshdev.session.state import SessionState
from meshdev.wire.control import Welcome
from meshdev.wire.session_api import CarrierStatus, ConnectionState, Status

WELCOME = Welcome(PROTOCOL, IPv4Address("198.18.0.2"), 1500, 0, (), (), "m-1", "mesh", IPv4Address("10.244.0.2"))
STANDING = SessionState(
    phase="connected",
    since=100.0,
    context="dev",
    manager_namespace="mesh",
    helper_pid=7,
    welcome=WELCOME,
    carriers=(CarrierStatus("websocket", False), CarrierStatus("spdy", True, 1.5)),
    tunnel_error="a proxy says no",
    routes=(IPv4Network("10.96.0.0/16"),),
    troubles=("names do not work (since 12:00:00)",),
    trouble_sources=("names",),
    notes=("an overlap",),
)


def test_before_anything_is_known() -> None:
    assert SessionState(since=1.0).status(2.0) == Status(state="connecting", session_pid=os.getpid(), since_s=1.0)


def test_all_of_a_connection() -> None:
    assert STANDING.status(102.04) == Status(
        state="connected",
        context="dev",
        address="198.18.0.2",
        carrier="websocket",
        carriers=STANDING.carriers,
        routes=("10.96.0.0/16",),
        manager_namespace="mesh",
        manager_pod="m-1",
        session_pid=os.getpid(),
        helper_pid=7,
        since_s=2.0,
        notes=("an overlap",),
    )


@pytest.mark.parametrize(
    ("phase", "notes"),
    [
        ("connecting", ("an overlap",)),
        ("degraded", ("names do not work (since 12:00:00)", "an overlap")),
        ("reconnecting", ("an overlap", "a proxy says no")),
        ("disconnected", ("an overlap",)),
    ],
)
def test_notes_that_only_one_phase_has(phase: ConnectionState, notes: tuple[str, ...]) -> None:
    assert replace(STANDING, phase=phase).status(100.0).notes == notes


@pytest.mark.parametrize(("ups", "connected"), [((), False), ((False, False), False), ((False, True), True)])
def test_one_carrier_is_enough(ups: tuple[bool, ...], connected: bool) -> None:
    assert SessionState(carriers=tuple(CarrierStatus("spdy", up) for up in ups)).connected is connected


def test_an_intercept_that_is_not_planned_yet_is_not_shown() -> None:
    assert SessionState(intercepts=(InterceptState(0.0),)).status(0.0).intercepts == ()
