"""A session that was killed: the original has its traffic back, and nothing of the intercept is left in the cluster."""

import os
import signal
import time
from typing import Final

import pytest

from meshdev.errors import InterceptError
from tests.e2e import pods, workloads
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.intercepting import A1, LOCAL, ask, intercepted, listed, local, refused, up
from tests.e2e.workloads import http, of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(200)]

NAMESPACE: Final = "intercept-dead"
#: Issue: so long after the death of the session.
ORIGINAL_SECONDS: Final = 15.0
NO_REDIRECT_SECONDS: Final = 35.0
NO_SIDECAR_SECONDS: Final = 90.0
#: A Lease that was not renewed for so long is expired.
EXPIRED_SECONDS: Final = 30.0


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
