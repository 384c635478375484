"""A session that was killed: the original has its traffic back, and nothing of the intercept is left in the cluster."""

import os
import signal
import time
from typing import Final

import pytest

from meshdev.errors import InterceptError
from tests.e2e import pods, workloads
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.intercepting import A1, LOCAL, ask, begun_in_pod, intercepted, listed, local, refused, up
from tests.e2e.workloads import http, of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(200)]

NAMESPACE: Final = "intercept-dead"
#: Issue: so long after the death of the session.
ORIGINAL_SECONDS: Final = 15.0
NO_REDIRECT_SECONDS: Final = 35.0
NO_SIDECAR_SECONDS: Final = 90.0
#: A Lease that was not renewed for so long is expired.
EXPIRED_SECONDS: Final = 30.0


#: docs/intercepts.md: so long after a session fell silent what is under way has ended.
CUT_SECONDS: Final = 5.0

#: Two matched requests under way: one whose answer has not begun, and one in the middle of its body, read slowly.
#: Prints "under way", then when each ended and how.
_UNDER_WAY: Final = """
import http.client, sys, threading, time
host = sys.argv[1]
begun = threading.Barrier(3)
def ask(path):
    connection = http.client.HTTPConnection(host, timeout=40)
    connection.request("GET", path, headers={"a": "1"})
    if path.startswith("/delay"):
        begun.wait()
    try:
        answer = connection.getresponse()
        if path.startswith("/bytes"):
            answer.read(65536)
            begun.wait()
        while answer.read(65536):
            time.sleep(0.02)
        how = answer.status
    except (OSError, http.client.HTTPException) as error:
        how = type(error).__name__
    print(path, time.monotonic(), how, flush=True)
asking = [threading.Thread(target=ask, args=[path]) for path in ("/delay/30", "/bytes/67108864")]
for each in asking:
    each.start()
begun.wait()
print("under way", flush=True)
"""


def test_answers_under_way_end_soon_after_a_session_fell_silent(laptop: Laptop) -> None:
    made = of(http("one", 1), NAMESPACE)
    with (
        workloads.namespace(NAMESPACE, *made),
        local(laptop, "--port=8080"),
        laptop.connected(),
        intercepted(laptop, "mesh", "deploy/one", NAMESPACE, "-H", "a=1"),
    ):
        session = laptop.status()["pids"]["session"]
        with begun_in_pod(NAMESPACE, _UNDER_WAY, f"one.{NAMESPACE}") as said:
            assert said.readline() == "under way\n"
            os.kill(session, signal.SIGSTOP)
            stopped = time.monotonic()
            try:
                ends = [said.readline().split() for _ in range(2)]
            finally:
                os.kill(session, signal.SIGCONT)
        for path, ended, how in ends:
            print(f"{path} ended {how} after {float(ended) - stopped:.2f} s")
        assert {path for path, _, _ in ends} == {"/delay/30", "/bytes/67108864"}
        assert all(float(ended) - stopped < CUT_SECONDS + 0.4 for _, ended, _ in ends)
        until("connected", lambda: laptop.status()["state"] == "connected", 20)


def test_a_killed_session_leaves_nothing(laptop: Laptop, laptop2: Laptop) -> None:
    names = ("one", "two")
    made = [each for name in names for each in of(http(name, 2), NAMESPACE)]
    urls = [(f"http://{name}.{NAMESPACE}/", A1) for name in names]
    with workloads.namespace(NAMESPACE, *made), local(laptop, "--port=8080"), laptop2.connected():
        before = pods.identities(NAMESPACE)
        laptop.meshdev("connect")
        up(laptop, "mesh", "deploy/one", NAMESPACE, "-H", "a=1")
        up(laptop, "proxy", "deploy/two", NAMESPACE)
        assert ask(NAMESPACE, *urls) == [(200, LOCAL)] * 2
        os.kill(laptop.status()["pids"]["session"], signal.SIGKILL)
        killed = time.monotonic()

        def left() -> float:
            return time.monotonic() - killed

        def all_at_the_original() -> bool:
            answers = ask(NAMESPACE, *urls * 3)
            return answers == [(200, name) for name in names] * 3

        until("all traffic is at the original", all_at_the_original, ORIGINAL_SECONDS)
        print(f"\nthe original answers after {left():.1f} s")
        there = pods.pods(NAMESPACE)
        until("no redirect", lambda: not any(map(pods.redirects, there)), NO_REDIRECT_SECONDS - left())
        print(f"no redirect after {left():.1f} s")

        until("expired", lambda: {each["state"] for each in listed(laptop2, "-n", NAMESPACE)} == {"expired"}, 60)
        print(f"expired after {left():.1f} s")
        assert len(listed(laptop2, "-n", NAMESPACE)) == 2
        code, error = refused(laptop2, "mesh", "deploy/two", "-n", NAMESPACE, "-H", "a=1", "--detach")
        assert (code, error["hint"].count("--takeover")) == (InterceptError.exit_code, 1)
        assert "dead" in error["hint"]

        until("no sidecar runs", lambda: pods.running_sidecars(NAMESPACE) == [], NO_SIDECAR_SECONDS - left())
        print(f"no sidecar after {left():.1f} s")
        assert [table for pod in there for table in pods.tables(pod) if "meshdev" in table] == []

        with (
            local(laptop2, "--port=8080", name="local-2"),
            intercepted(laptop2, "mesh", "deploy/two", NAMESPACE, "-H", "a=1", "--takeover"),
        ):
            assert ask(NAMESPACE, urls[1]) == [(200, "local-2")]
        assert [each["target"] for each in listed(laptop2, "-n", NAMESPACE)] == ["deployment/one"]
        laptop.meshdev("connect")  # the holder's own needs no word
        with intercepted(laptop, "mesh", "deploy/one", NAMESPACE, "-H", "a=1"):
            assert ask(NAMESPACE, urls[0]) == [(200, LOCAL)]
        assert kubectl("-n", NAMESPACE, "get", "leases", "-o", "name") == ""
        assert pods.identities(NAMESPACE) == before
