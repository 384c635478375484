"""A real Prometheus scrapes manager and session: what it has agrees with the load's own counts, and every query of the
dashboard returns data."""

import json
import math
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from meshdev.config import METRICS_PORT
from meshdev.errors import LaptopError
from tests.e2e import pods, workloads
from tests.e2e.conftest import Laptop, control, kubectl, until
from tests.e2e.intercepting import LOCAL, LocalProgram, in_pod, intercepted, local, refused
from tests.e2e.prometheus import Prometheus, prometheus
from tests.e2e.workloads import http, of
from tests.metrics import dashboard

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

NAMESPACE: Final = "metrics"
PORT: Final = 19191
LOCAL_METRICS: Final = f"127.0.0.1:{PORT}"
#: Sidecars report each second, Prometheus scrapes each second.
COUNTED_SECONDS: Final = 10.0
#: Counts of the passthrough proxy come every 10 s.
PASSED_SECONDS: Final = 20.0

#: Asks for [path, headers, times], each on a connection of its own; prints how often which status and name came.
_LOAD: Final = """
import collections, http.client, json, sys
found = collections.Counter()
for path, headers, times in json.loads(sys.argv[1]):
    for _ in range(times):
        connection = http.client.HTTPConnection("b", timeout=8)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            found[f"{answer.status} {answer.read().decode(errors='replace')[:80]}"] += 1
        except (OSError, http.client.HTTPException) as error:
            found[f"0 {error!r}"] += 1
        connection.close()
print(json.dumps(found))
"""


def load(*requests: tuple[str, bool, int]) -> Counter[str]:
    """From a pod: path, whether it matches, how often. What was answered."""
    wanted = [(path, {"a": "1"} if matches else {}, times) for path, matches, times in requests]
    return Counter(json.loads(in_pod(NAMESPACE, _LOAD, json.dumps(wanted))))


@dataclass(frozen=True)
class Watched:
    """A laptop whose session is scraped, and what scrapes it."""

    laptop: Laptop
    local: LocalProgram
    prometheus: Prometheus

    def requests(self) -> dict[str, float]:
        """Of all intercepts here, by outcome."""
        found = self.prometheus.query(f'sum by (outcome) (meshdev_requests_total{{namespace="{NAMESPACE}"}})')
        return {labels["outcome"]: value for labels, value in found}

    def counts(self, more: dict[str, int], since: dict[str, float]) -> None:
        """Wait until exactly so many more were counted; they are not exceeded within two scrapes."""

        def difference() -> dict[str, float]:
            now = self.requests()
            return {outcome: now[outcome] - since[outcome] for outcome in since}

        wanted = {"matched": 0, "fell_back": 0, "error": 0} | more
        until(f"{wanted}, and not {difference()}", lambda: difference() == wanted, COUNTED_SECONDS)
        scraped = self.prometheus.value('timestamp(up{job="manager"})') or 0.0
        until("two scrapes", lambda: (self.prometheus.value('timestamp(up{job="manager"})') or 0) > scraped + 2)
        assert difference() == wanted


@pytest.fixture(scope="module")
def watched(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:  # noqa: ARG001 -- for its effect
    """B' in place of B for requests with a: 1, and a Prometheus on the same laptop that reaches both ends."""
    laptop = Laptop(1)
    laptop.clean()
    folder: Path = tmp_path_factory.mktemp("prometheus")
    with (
        workloads.namespace(NAMESPACE, *of(http("b", replicas=2), NAMESPACE)),
        laptop.connected("-n", NAMESPACE, "--metrics-port", str(PORT)),
        local(laptop) as program,
        intercepted(laptop, "mesh", "deployment/b", NAMESPACE, "--header", "a=1"),
    ):
        pod = laptop.status()["manager"]["pod"]
        address = kubectl("-n", NAMESPACE, "get", "pod", pod, "-o", "jsonpath={.status.podIP}")
        targets = {"manager": f"{address}:{METRICS_PORT}", "session": LOCAL_METRICS}
        with prometheus(laptop, folder, targets) as found:
            yield Watched(laptop, program, found)
    laptop.clean()


def changed(value: Callable[[], float | None]) -> Callable[[], bool]:
    """Whether it is more than now."""
    before = value() or 0.0
    return lambda: (value() or 0.0) > before


def test_requests_are_those_of_the_load(watched: Watched) -> None:
    since = watched.requests()
    assert since.keys() == {"matched", "fell_back", "error"}, "from the start"
    answers = load(("/", True, 150), ("/", False, 70), ("/status/503", True, 50))
    assert answers == {f"200 {LOCAL}": 150, "200 b": 70, f"503 {LOCAL}": 50}
    watched.counts({"matched": 200, "error": 50}, since)
    (labels, _), *others = watched.prometheus.query('meshdev_requests_total{outcome="matched"}')
    assert others == []
    (own,) = watched.laptop.status()["intercepts"]
    assert labels["id"] == own["id"]
    assert (labels["workload"], labels["namespace"]) == ("deployment/b", NAMESPACE)
    assert "@" in labels["holder"]


def test_durations_and_bytes_are_those_of_the_load(watched: Watched) -> None:
    """Half of the requests take no less than 300 ms at the program itself: p50 is in the bucket of the load's own."""
    ask = watched.prometheus.value
    took = "meshdev_request_duration_seconds"
    names = (f"{took}_count", f"{took}_sum", _BYTES.format("request"), _BYTES.format("response"))
    before = {name: ask(f"sum({name})") or 0.0 for name in names}
    buckets = watched.prometheus.query(f"sum by (le) ({took}_bucket)")
    since = watched.requests()
    size, times, delay = 20_000, 20, 0.3
    begun = time.monotonic()
    answers = load((f"/bytes/{size}", True, times), (f"/delay/{delay}", True, times + 1))
    lasted = time.monotonic() - begun
    assert sorted(answers.values()) == [times, times + 1]
    watched.counts({"matched": 2 * times + 1}, since)

    def more(name: str) -> float:
        return (ask(f"sum({name})") or 0.0) - before[name]

    until("each request has its duration", lambda: more(f"{took}_count") == 2 * times + 1, COUNTED_SECONDS)
    assert times * delay <= more(f"{took}_sum") < lasted
    below = {labels["le"]: value for labels, value in buckets}
    now = {labels["le"]: value for labels, value in watched.prometheus.query(f"sum by (le) ({took}_bucket)")}
    cumulative = {float(bound): now[bound] - below[bound] for bound in now}
    assert next(bound for bound in sorted(cumulative) if cumulative[bound] > times) == 0.5, "above 0.25, up to 0.5"
    assert 0 <= more(_BYTES.format("response")) - size * times < 0.02 * size * times
    assert 0 < more(_BYTES.format("request")) < (2 * times + 1) * 500


_BYTES: Final = 'meshdev_request_bytes_total{{direction="{}"}}'


def test_fallbacks_are_counted(watched: Watched) -> None:
    since = watched.requests()
    watched.local.stop()
    try:
        answers = load(("/", True, 40))
    finally:
        watched.local.start()
    assert answers == {"200 b": 40}
    watched.counts({"matched": 40, "fell_back": 40}, since)


def test_an_envoy_that_is_killed_takes_no_counts_with_it(watched: Watched) -> None:
    """Its successor begins at 0, and may be ahead of it by the time it is read."""
    since = watched.requests()
    load(("/", True, 20))
    watched.counts({"matched": 20}, since)
    restarts = changed(lambda: watched.prometheus.value("sum(meshdev_envoy_restarts_total)"))
    for pod in pods.pods(NAMESPACE, "app=b"):
        pods.kill(pod, pods.ENVOY)
    until("requests come here again", lambda: load(("/", True, 1)) == {f"200 {LOCAL}": 1})
    until("restarts are counted", restarts)
    settled = watched.requests()
    assert settled["matched"] >= since["matched"] + 20
    assert load(("/", True, 60)) == {f"200 {LOCAL}": 60}
    until("all are counted", lambda: watched.requests()["matched"] >= settled["matched"] + 60)
    assert watched.requests()["matched"] <= settled["matched"] + 65, "a few before the restart was seen"


def test_pods_that_are_lost_take_no_counts_with_them(watched: Watched) -> None:
    since = watched.requests()
    load(("/", True, 30))
    watched.counts({"matched": 30}, since)
    kubectl("-n", NAMESPACE, "delete", "pods", "-l", "app=b", "--wait=false")
    workloads.ready(NAMESPACE)
    watched.counts({"matched": 30}, since)
    states = 'sum(meshdev_sidecars{state="acked"})'
    until("both new pods are joined", lambda: watched.prometheus.value(states) == 2, 60)
    assert load(("/", True, 50)) == {f"200 {LOCAL}": 50}
    watched.counts({"matched": 80}, since)


def test_the_tunnel_and_names(watched: Watched) -> None:
    """What a transfer needs at least, by the session's own counts."""
    size = 8 << 20
    ask = watched.prometheus.value
    before = {each: ask(_DIRECTION.format(each)) or 0.0 for each in ("to_laptop", "to_cluster")}
    cluster = changed(lambda: ask('meshdev_dns_answers_total{source="cluster"}'))
    elsewhere = changed(lambda: ask('meshdev_dns_answers_total{source="laptop"}'))
    got = watched.laptop.ok("sh", "-c", f"curl -sS --max-time 30 http://b.{NAMESPACE}/bytes/{size} | wc -c")
    assert int(got) == size
    watched.laptop.run("getent", "hosts", "www.example.test")
    until("the bytes are counted", lambda: (ask(_DIRECTION.format("to_laptop")) or 0) - before["to_laptop"] >= size)
    assert (ask(_DIRECTION.format("to_laptop")) or 0) - before["to_laptop"] < 1.2 * size
    assert 0 < (ask(_DIRECTION.format("to_cluster")) or 0) - before["to_cluster"] < size / 4
    until("both answers are counted", lambda: cluster() and elsewhere())
    assert 0 < (ask("max(meshdev_tunnel_round_trip_seconds)") or 0) < 1
    until("it is connected", lambda: ask('meshdev_session_state{state="connected"}') == 1)
    until("both carriers are up", lambda: ask("meshdev_tunnel_carriers_up") == 2)


_DIRECTION: Final = 'meshdev_tunnel_bytes_total{{direction="{}"}}'


def test_unclaimed_connections_are_counted_and_raw_ones_by_reason(watched: Watched) -> None:
    ask = watched.prometheus.value
    accepted = changed(lambda: ask("sum(meshdev_passthrough_connections_total)"))
    claimed = changed(lambda: ask("sum(meshdev_passthrough_claimed_requests_total)"))
    load(("/", False, 10), ("/", True, 10))
    until("they are counted", lambda: accepted() and claimed(), PASSED_SECONDS)


def test_every_query_of_the_dashboard_returns_data(watched: Watched) -> None:
    load(("/", True, 20), ("/status/503", True, 5))

    def missing() -> dict[str, str]:
        rates = dashboard.queries("1m")
        found = {expression: (title, watched.prometheus.query(expression)) for title, expression in rates}
        return {
            expression: title
            for expression, (title, series) in found.items()
            if not series or not all(math.isfinite(value) for _, value in series)
        }

    until(f"data for all: {missing()}", lambda: not missing(), 30)
    for series, label in dashboard.variables():
        wanted = {"namespace": NAMESPACE, "workload": "deployment/b"}[label]
        assert watched.prometheus.label_values(series, label) == [wanted]


def test_what_is_served_has_types_and_help(watched: Watched) -> None:
    ours = {name: each for name, each in watched.prometheus.metadata().items() if name.startswith("meshdev_")}
    assert len(ours) > 15
    for name, (each, *_) in ours.items():
        assert (each["type"] == "counter") == name.endswith("_total")
        assert each["help"]
    assert set(watched.prometheus.healthy().values()) == {""}


def test_pods_can_scrape_the_manager_and_not_the_laptop(watched: Watched) -> None:
    """By the pod's address, as it is annotated; the Service does not have the port."""
    pod = json.loads(kubectl("-n", NAMESPACE, "get", "pod", watched.laptop.status()["manager"]["pod"], "-o", "json"))
    annotations = pod["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    target = f"{pod['status']['podIP']}:{annotations['prometheus.io/port']}"
    assert "meshdev_requests_total" in in_pod(NAMESPACE, _GET, target, annotations["prometheus.io/path"])
    own = watched.laptop.status()["address"]
    assert "meshdev_" not in in_pod(NAMESPACE, _GET, f"{own}:{PORT}", "/metrics")
    assert "meshdev_" not in in_pod(NAMESPACE, _GET, f"meshdev-traffic-manager:{METRICS_PORT}", "/metrics")


_GET: Final = """
import http.client, sys
try:
    connection = http.client.HTTPConnection(sys.argv[1], timeout=2)
    connection.request("GET", sys.argv[2])
    print(connection.getresponse().read().decode())
except OSError as error:
    print(repr(error))
"""


def test_a_page_that_leads_here_by_another_name_gets_nothing(watched: Watched) -> None:
    """DNS rebinding."""
    curl = ("curl", "-sS", "-o", "-", "-w", "%{http_code}", "--max-time", "8")
    assert watched.laptop.ok(*curl, f"http://{LOCAL_METRICS}/metrics").endswith("200")
    rebound = watched.laptop.ok(*curl, "-H", f"Host: evil.example:{PORT}", f"http://{LOCAL_METRICS}/metrics")
    assert rebound.endswith("421")
    assert "meshdev_" not in rebound


def test_a_session_that_reconnects_counts_on(watched: Watched) -> None:
    """The counters are the session's, not a carrier's."""
    ask = watched.prometheus.value
    before = ask("sum(meshdev_tunnel_bytes_total)") or 0.0
    reconnects = changed(lambda: ask("meshdev_tunnel_reconnects_total"))
    control("restart", "apiserver")  # which ends all port-forwards
    until("it is counted", reconnects, 60)
    assert (ask("sum(meshdev_tunnel_bytes_total)") or 0) >= before
    until("all are up", lambda: ask("meshdev_tunnel_carriers_up") == 2, 60)


def test_a_port_that_is_taken_is_an_error_and_nothing_is_touched(laptop2: Laptop) -> None:
    before = laptop2.snapshot()
    holding = laptop2.start("python", "-c", _HOLD.format(port=PORT))
    try:
        assert holding.stdout is not None
        assert holding.stdout.readline() == "listening\n"
        code, error = refused(laptop2, "connect", "--metrics-port", str(PORT))
        assert (code, error["code"]) == (LaptopError.exit_code, LaptopError.code)
        assert LOCAL_METRICS in error["message"]
        assert "--metrics-port" in error["hint"]
        assert (laptop2.snapshot(), laptop2.processes()) == (before, {})
    finally:
        holding.send_signal(signal.SIGTERM)
        holding.wait(15)


_HOLD: Final = """
import signal, socket
sock = socket.create_server(("127.0.0.1", {port}))
print("listening", flush=True)
signal.pause()
"""
