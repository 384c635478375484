"""What a session serves to Prometheus, and to whom."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from meshdev.config import VERSION
from meshdev.dns.forwarder import AnswerSource
from meshdev.errors import LaptopError
from meshdev.metrics import exposition
from meshdev.modes.state import InterceptState, PodsState
from meshdev.session import metrics
from meshdev.session.progress import Progress
from meshdev.session.state import SessionState
from meshdev.session.supervisor import Supervisor
from meshdev.telemetry.signals import SignalState
from meshdev.tunnel.traffic import TunnelTraffic
from meshdev.wire.session_api import CarrierStatus, ConnectOptions, DisconnectRequest, Status, StatusRequest
from meshdev.wire.values import listen_address
from tests.metrics.client import get
from tests.session.test_api import ask
from tests.waiting import until

STATE = SessionState(
    phase="connected",
    carriers=(CarrierStatus("spdy", True, 1.5), CarrierStatus("spdy", False)),
    traffic=TunnelTraffic(1, 2, 300, 400, 5, 2),
    reconnects=3,
    dns_answers=(("cluster", 7), ("failed", 1)),
    intercepts=(InterceptState(1.0, pods=PodsState(acked=1, total=3)), InterceptState(2.0)),
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: bytes) -> Samples:
    """As a scraper reads them."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def by(found: Samples, name: str, label: str) -> dict[str, float]:
    return {dict(labels)[label]: value for (each, labels), value in found.items() if each == name}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def test_all_of_a_connection() -> None:
    found = samples(exposition.text(metrics.families(STATE)))
    assert found["meshdev_session_info", frozenset({("version", VERSION)})] == 1
    assert by(found, "meshdev_session_state", "state") == {
        "connected": 1,
        "degraded": 0,
        "connecting": 0,
        "reconnecting": 0,
        "disconnected": 0,
    }
    none: frozenset[tuple[str, str]] = frozenset()
    assert found["meshdev_tunnel_carriers_up", none] == 1
    assert found["meshdev_tunnel_reconnects_total", none] == 3
    assert by(found, "meshdev_tunnel_bytes_total", "direction") == {"to_cluster": 300, "to_laptop": 400}
    assert by(found, "meshdev_tunnel_packets_total", "direction") == {"to_cluster": 1, "to_laptop": 2}
    assert by(found, "meshdev_tunnel_dropped_packets_total", "reason") == {"malformed": 2, "kernel": 3}
    assert by(found, "meshdev_tunnel_round_trip_seconds", "carrier") == {"0": 0.0015}
    answers = dict.fromkeys(get_args(AnswerSource), 0.0) | {"cluster": 7, "failed": 1}
    assert by(found, "meshdev_dns_answers_total", "source") == answers
    assert found["meshdev_session_intercepts", none] == 2
    assert by(found, "meshdev_session_pods", "state") == {"acked": 1, "pending": 2}


def test_each_metric_is_there_from_the_start() -> None:
    """rate() needs a first value, and a dashboard something to show."""
    now, then = (samples(exposition.text(metrics.families(each))).keys() for each in (STATE, SessionState()))
    assert {name for name, _ in now} - {name for name, _ in then} == {"meshdev_tunnel_round_trip_seconds"}


def test_all_names_are_ours_and_all_counters_are_called_so() -> None:
    for family in metrics.families(STATE):
        assert family.name.startswith("meshdev_")
        assert family.documentation.endswith(".")
        assert all(each.name.endswith("_total") == (family.type == "counter") for each in family.samples)


async def test_a_web_page_cannot_read_them_by_a_name_that_leads_here() -> None:
    port = free_port()
    async with metrics.serving(port, lambda: STATE):
        assert (await get(port))[0] == 200
        assert (await get(port, host=f"localhost:{port}"))[0] == 200
        status, headers, body = await get(port, host=f"rebound.example:{port}")
    assert (status, b"meshdev_" in body) == (421, False)
    assert "access-control-allow-origin" not in headers


async def test_what_is_served_is_what_is_true_when_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshdev.metrics.server.FRESH_SECONDS", 0)
    state, port = STATE, free_port()
    async with metrics.serving(port, lambda: state):
        assert b"meshdev_tunnel_reconnects_total 3.0" in (await get(port))[2]
        state = replace(STATE, reconnects=4)
        assert b"meshdev_tunnel_reconnects_total 4.0" in (await get(port))[2]


@asynccontextmanager
async def _nothing(_: Supervisor) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def running(options: ConnectOptions, path: Path) -> AsyncIterator["asyncio.Future[int]"]:
    caller, ours = socket.socketpair()
    helper, theirs = socket.socketpair()
    with caller, helper, theirs:
        task = asyncio.ensure_future(Supervisor(options, Progress(ours), helper).run(path))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_a_session_serves_them_until_it_is_disconnected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Supervisor, "_connection", _nothing)
    port, path = free_port(), tmp_path / "session.sock"
    async with running(ConnectOptions(metrics_port=port), path) as task:
        await until(path.exists)
        status = await ask(path, StatusRequest())
        assert isinstance(status, Status)
        assert status.metrics == f"http://127.0.0.1:{port}/metrics"
        assert b'meshdev_session_state{state="reconnecting"} 1.0' in (await get(port))[2], "it has no carrier"
        await ask(path, DisconnectRequest())
        assert await task == 0
    with pytest.raises(ConnectionRefusedError):
        await get(port)


@pytest.mark.parametrize("flag", ["--metrics-port", "--socks"])
async def test_a_port_that_is_taken_is_an_error_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    touched: list[Supervisor] = []

    @asynccontextmanager
    async def touch(made: Supervisor) -> AsyncIterator[None]:
        touched.append(made)
        yield

    monkeypatch.setattr(Supervisor, "_connection", touch)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        wanted = ConnectOptions(metrics_port=port)
        if flag == "--socks":
            wanted = ConnectOptions(socks=listen_address(str(port)))
        async with running(wanted, tmp_path / "session.sock") as task:
            with pytest.raises(LaptopError) as raised:
                await task
    assert f"127.0.0.1:{port}" in raised.value.message
    assert raised.value.hint is not None
    assert flag in raised.value.hint
    assert touched == []
    assert not await asyncio.to_thread((tmp_path / "session.sock").exists)


async def test_without_the_option_nothing_listens_and_nothing_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Supervisor, "_connection", _nothing)
    monkeypatch.setattr(metrics, "serving", None)
    path = tmp_path / "session.sock"
    async with running(ConnectOptions(), path) as task:
        await until(path.exists)
        await ask(path, DisconnectRequest())
        assert await task == 0


def test_what_otlp_lost_is_counted_where_it_is_sent() -> None:
    name = "meshdev_otlp_items_total"
    assert by(samples(exposition.text(metrics.families(STATE))), name, "outcome") == {}
    sending = replace(STATE, signals=(SignalState("traces", "http://c:4318/v1/traces", 5, 2, 1, 4),))
    found = samples(exposition.text(metrics.families(sending)))
    assert by(found, name, "outcome") == {"sent": 5, "failed": 2, "dropped": 1, "unrecorded": 4}
