"""What Envoy is started with, as a real Envoy judges it; and what its statistics mean."""

import asyncio
import json
import subprocess
from itertools import pairwise
from pathlib import Path
from time import monotonic

import pytest

from meshdev.sidecar.agent.secret_discovery import SecretServer
from meshdev.sidecar.envoy import stats, tls
from meshdev.sidecar.envoy.bootstrap import Start, bootstrap, command, heap_within
from meshdev.wire.agent import PodPort
from meshdev.wire.counts import Counts
from tests.sidecar.certificates import Certificates
from tests.sidecar.real_envoy import binary, started
from tests.waiting import until


def start(manager: str, port: int, folder: Path) -> Start:
    return Start("uid", manager, port, str(folder / "admin"), str(folder / "secrets"))


@pytest.mark.parametrize("manager", ["10.96.0.7", "meshdev-traffic-manager.default.svc.cluster.local"])
def test_envoy_takes_it(manager: str, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(bootstrap(start(manager, 15010, tmp_path))))
    arguments = [*command(binary(), str(config), 1), "--mode", "validate"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stdout + done.stderr


def test_the_version_is_the_pinned_one() -> None:
    said = subprocess.check_output([binary(), "--version"], text=True, timeout=30)
    assert "/1.40.0/" in said


def test_the_heap_is_what_the_container_leaves() -> None:
    mib = 1 << 20
    limits = (None, 64 * mib, 384 * mib, 8192 * mib)
    assert [heap_within(limit) // mib for limit in limits] == [512, 64, 224, 512]


async def test_a_manager_that_is_gone_is_asked_for_each_second(tmp_path: Path) -> None:
    """And not at all before there is a certificate to come with."""
    secrets, asked = SecretServer(), asyncio.Queue[float]()
    gone = await asyncio.start_server(lambda _, writer: _refuse(writer, asked), "127.0.0.1", 0)
    port = gone.sockets[0].getsockname()[1]
    async with secrets.serving(tmp_path / "secrets"):
        with started(start("127.0.0.1", port, tmp_path), tmp_path):
            await until(lambda: secrets.subscribed >= {tls.IDENTITY, tls.AUTHORITY})
            assert asked.empty()
            given = monotonic()
            secrets.set(Certificates(tmp_path).secrets())
            async with asyncio.timeout(20):
                times = [given, *[await asked.get() for _ in range(12)]]
    gone.close()
    assert max(later - earlier for earlier, later in pairwise(times)) < 1.8
    assert times[1] - given < 0.5


def _refuse(writer: asyncio.StreamWriter, asked: asyncio.Queue[float]) -> None:
    asked.put_nowait(monotonic())
    writer.close()


STATS = """\
cluster.flow_7000.upstream_cx_active: 2
cluster.flow_7000.upstream_cx_connect_fail: 1
http.listener_8080.downstream_rq_active: 3
tcp.listener_7000.downstream_cx_total: 4
udp.listener_53_udp.downstream_sess_total: 5
vhost.all.route.aaaa.upstream_rq_5xx: 2
vhost.all.route.aaaa.upstream_rq_completed: 9
vhost.all.route.aaaa_fallen.upstream_rq_5xx: 1
vhost.all.route.aaaa_fallen.upstream_rq_completed: 3
vhost.all.route.bbbb.upstream_rq_completed: 1
vhost.all.route.cccc.upstream_rq_completed: 9
vhost.all.route.cccc.upstream_rq_5xx: 1
vhost.all.route.cccc.upstream_rq_retry: 7
vhost.all.route.cccc_fallen.upstream_rq_completed: 2
cluster.fallback_8080_cccc.upstream_rq_total: 3
something.else: 7
vhost.all.route.bbbb.upstream_rq_time: P0(nan,1) P25(nan,1)
"""


def test_what_the_statistics_mean() -> None:
    found = stats.read(STATS)
    raw, names = PodPort(7000), PodPort(53, "udp")
    assert found.intercepts == {"aaaa": Counts(12, 3, 2), "bbbb": Counts(1, 0, 0), "cccc": Counts(11, 5, 1)}
    assert found.flows == {raw: Counts(4, 0, 1), names: Counts(5, 0, 0)}
    assert found.busy == 5


def test_nothing_was_counted_yet() -> None:
    assert stats.read("") == stats.Stats()
