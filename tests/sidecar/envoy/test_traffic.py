"""Bytes and durations of an intercept's requests, as a real Envoy counts them and agents read them."""

import asyncio
from contextlib import suppress
from typing import Any

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.sidecar.envoy import stats
from meshdev.wire.agent import PodPort
from meshdev.wire.counts import DURATIONS, Traffic
from tests.sidecar.pod import FIRST, End, Pod, pod

MINE = Match(headers=(HeaderMatch("a", "exact", "1"),))
BODY = b"x" * 1000

TIMES = """\
# TYPE envoy_vhost_route_upstream_rq_time histogram
envoy_vhost_route_upstream_rq_time_bucket{envoy_virtual_host="all",envoy_route="aaaa",le="0.5"} 1
envoy_vhost_route_upstream_rq_time_bucket{envoy_virtual_host="all",envoy_route="aaaa",le="1.5"} 3
envoy_vhost_route_upstream_rq_time_bucket{envoy_virtual_host="all",envoy_route="aaaa",le="+Inf"} 4
envoy_vhost_route_upstream_rq_time_bucket{envoy_virtual_host="all",envoy_route="aaaa",le="7"} 4
envoy_vhost_route_upstream_rq_time_sum{envoy_virtual_host="all",envoy_route="aaaa"} 61003.6
envoy_vhost_route_upstream_rq_time_count{envoy_virtual_host="all",envoy_route="aaaa"} 4
envoy_vhost_route_upstream_rq_time_bucket{envoy_virtual_host="all",envoy_route="aaaa_fallen",le="0.5"} 1
envoy_vhost_route_upstream_rq_time_bucket{envoy_virtual_host="all",envoy_route="aaaa_fallen",le="1.5"} 1
envoy_vhost_route_upstream_rq_time_bucket{envoy_virtual_host="all",envoy_route="aaaa_fallen",le="+Inf"} 1
envoy_vhost_route_upstream_rq_time_sum{envoy_virtual_host="all",envoy_route="aaaa_fallen"} 0
something else
"""


def bucket(route: str, bound: float, count: int) -> str:
    labels = f'envoy_virtual_host="all",envoy_route="{route}",le="{bound:g}"'
    return f"envoy_vhost_route_upstream_rq_time_bucket{{{labels}}} {count}\n"


def test_what_envoy_says_of_durations() -> None:
    """A bound that is not ours is passed over."""
    found = stats.Stats(traffic={"bbbb": Traffic(1, 2)})
    routes = {"aaaa": 3, "aaaa_fallen": 1}
    more = "".join(bucket(route, bound - 0.5, count) for route, count in routes.items() for bound in DURATIONS[2:])
    stats.read_times(TIMES + more, found)
    assert found.traffic == {
        "aaaa": Traffic(milliseconds=61_004, durations=(2, 2, *[0] * (len(DURATIONS) - 2), 1)),
        "bbbb": Traffic(1, 2),
    }


async def traffic(app: Pod) -> Traffic:
    """As an agent reads it."""
    found = stats.read(await app.envoy.admin(stats.TARGET))
    stats.read_times(await app.envoy.admin(stats.TIMES), found)
    return found.traffic.get(FIRST, Traffic())


async def late(_: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers after as many milliseconds as the path says."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), int(head.split()[1][1:]) / 1000)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY))


async def test_durations_and_bytes_of_requests() -> None:
    async with pod(laptop=End("laptop", late)) as app:
        app.claim(MINE)
        await app.serve()
        for milliseconds in (0, 0, 30, 110):
            await app.get(f"/{milliseconds}", a="1")
        await app.get("/0", a="2")
        last = Traffic()
        async with asyncio.timeout(10):
            while sum(last.durations) < 4:
                last = await traffic(app)
        places = [place for place, count in enumerate(last.durations) for _ in range(count)]
        assert all(DURATIONS[place] <= 25 for place in places[:2])
        assert all(DURATIONS[place] > 30 for place in places[2:])
        assert DURATIONS[places[3]] > 110
        assert 140 <= last.milliseconds < 1500
        assert 4 * len(BODY) < last.response_bytes < 4 * (len(BODY) + 200)
        assert 4 * 20 < last.request_bytes < 4 * 200


async def greet(_: End, reader: Any, writer: Any) -> None:
    writer.write(BODY)
    await reader.read(10)


async def test_bytes_of_connections() -> None:
    async with pod(laptop=End("laptop", greet)) as app:
        app.claim(protocol="tcp")
        await app.serve()
        reader, writer = await app.connect()
        assert await reader.readexactly(len(BODY)) == BODY
        writer.write(b"bye")
        assert await reader.read() == b""
        found = stats.read(await app.envoy.admin(stats.TARGET))
        assert found.flow_traffic == {PodPort(app.port.number): Traffic(3, len(BODY))}
        assert found.traffic == {}
        writer.close()
