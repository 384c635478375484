"""Spans and logs on a real cluster: A → B' → C is one trace with the application's own spans between ours."""

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import pytest

from meshdev.kube.manifest import CONTROL_CONTAINER
from tests.cluster.addresses import NODE
from tests.e2e import workloads
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.intercepting import LocalProgram, ask, intercepted
from tests.e2e.otlp import GRPC_PORT, HTTP_PORT, Collected, Json, receiver_on, receiver_on_node
from tests.e2e.traced_app import NAME

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

NAMESPACE: Final = "traces"
A: Final = f"http://a.{NAMESPACE}/"
B: Final = f"http://b.{NAMESPACE}"
C: Final = f"http://c.{NAMESPACE}/"
RECEIVER: Final = f"http://127.0.0.1:{HTTP_PORT}"
#: Envoy sends records each 0.1 s, the session spans each second.
SENT_SECONDS: Final = 10.0
TOKEN: Final = secrets.token_hex(16)


@pytest.fixture(scope="module")
def there(cluster: None) -> Iterator[Laptop]:  # noqa: ARG001 -- for its effect
    """A, B and C."""
    chain = [workloads.sample(name) for name in "abc"]
    made = [each for app in chain for each in workloads.of(replace(app, ports=app.ports[:1]), NAMESPACE)]
    laptop = Laptop(1)
    laptop.clean()
    with workloads.namespace(NAMESPACE, *made):
        yield laptop
    laptop.clean()


@contextmanager
def exporting(laptop: Laptop, url: str, *flags: str) -> Iterator[None]:
    """Connected, with the receiver's token in the environment of that command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{TOKEN}")
        connection = laptop.connected("-n", NAMESPACE, "--otlp", url, *flags)
        connection.__enter__()
    try:
        yield
    finally:
        connection.__exit__(None, None, None)


@contextmanager
def traced_b(laptop: Laptop) -> Iterator[None]:
    """B', instrumented, on port 8080."""
    program = (
        f"import sys; sys.argv[1:] = ['8080', {C!r}, {RECEIVER!r}]; from tests.e2e import traced_app; traced_app.main()"
    )
    running = LocalProgram(laptop, program=program)
    try:
        yield
    finally:
        running.stop()


def traced(found: Collected, trace: str, count: int) -> list[Json]:
    """The spans of a trace, once there are so many."""

    def all_of_them() -> list[Json] | None:
        spans = found.spans(trace)
        return spans if len(spans) >= count else None

    spans: list[Json] = until(f"{count} spans of {trace}", all_of_them, SENT_SECONDS)
    assert len(spans) == count
    return spans


def begun(found: Collected, url: str, *intercepts: Json) -> None:
    """Requests of these are recorded: on a busy machine the first one may come before an Envoy has been told to."""
    wanted = {each["id"] for each in intercepts}

    def sent() -> bool:
        ask(NAMESPACE, (url, {"a": "1"}))
        return wanted <= {each["attributes"].get("meshdev.intercept") for each in found.spans()}

    until("spans of each intercept", sent, 20)


def a_trace() -> tuple[str, str, dict[str, str]]:
    """A trace's id, its client's span, and the headers of a request that is claimed."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, {"a": "1", "traceparent": f"00-{trace}-{span}-01"}


def test_a_request_through_three_services_is_one_trace(there: Laptop) -> None:
    trace, client, headers = a_trace()
    with (
        receiver_on(there) as receiver,
        exporting(there, RECEIVER, "--otlp-logs"),
        traced_b(there),
        intercepted(there, "mesh", "deployment/b", NAMESPACE, "--header", "a=1") as b,
        intercepted(there, "mesh", "deployment/c", NAMESPACE, "--header", "a=1", "--port", "9090:8080") as c,
    ):
        begun(receiver, A, b, c)
        assert ask(NAMESPACE, (f"{A}?token={TOKEN}", headers)) == [(200, f"service-a>{NAME}>service-c")]
        spans = traced(receiver, trace, 4)
        ours = {each["attributes"]["meshdev.intercept"]: each for each in spans if each["scope"] == "meshdev"}
        server, asks_c = sorted((each for each in spans if each["scope"] == NAME), key=lambda each: int(each["kind"]))
        of_b, of_c = ours[b["id"]], ours[c["id"]]
        assert [of_b["parent"], server["parent"], asks_c["parent"], of_c["parent"]] == [
            client,
            of_b["id"],
            server["id"],
            asks_c["id"],
        ]
        assert of_b["start"] <= server["start"] <= asks_c["start"] <= of_c["start"]
        assert of_c["end"] <= asks_c["end"] <= of_b["end"]
        assert of_b["resource"]["service.name"] == "meshdev"
        attributes = of_b["attributes"]
        assert (attributes["http.request.method"], attributes["http.response.status_code"]) == ("GET", 200)
        assert (attributes["k8s.namespace.name"], attributes["meshdev.workload"]) == (NAMESPACE, "deployment/b")
        assert (attributes["server.address"], attributes["server.port"]) == ("b", 80)
        assert attributes["meshdev.served_by"] == "laptop"
        assert "@" in attributes["meshdev.holder"]
        assert of_c["attributes"]["meshdev.served_by"] == "fallback"
        assert "nothing listens on 9090" in of_c["attributes"]["meshdev.reason"]
        line = until("its log", lambda: [each for each in receiver.logs() if each["span"] == of_b["id"]], SENT_SECONDS)
        assert line[0]["trace"] == trace
        assert line[0]["body"].split(" ")[1:3] == ["GET", "/"]
        assert [each for each in receiver.logs() if each["event"] == ""], "the session's own"
        assert receiver.authorizations() == {("http", f"Bearer {TOKEN}"), ("http", None)}, "the session, and B'"
        status = there.status()
        assert (status["otlp"], status["notes"]) == (RECEIVER, [])
        everything = json.dumps([receiver.spans(), receiver.logs(), there.log(), list(there.processes().values())])
        assert TOKEN not in everything


def test_a_trace_begins_with_a_claimed_request_and_others_are_as_they_were(there: Laptop) -> None:
    with (
        receiver_on(there) as receiver,
        exporting(there, f"grpc://127.0.0.1:{GRPC_PORT}"),
        intercepted(there, "mesh", "deployment/b", NAMESPACE, "--header", "a=1") as b,
    ):
        begun(receiver, f"{B}/", b)
        own = {"Traceparent": "not one", "X-Mine": "1"}
        before, after, with_own, claimed = (
            json.loads(body)["headers"]
            for _, body in ask(
                NAMESPACE,
                (f"{C}request", {}),
                (f"{B}/request", {}),
                (f"{B}/request", own),
                (f"{B}/request", {"a": "1"}),  # nothing listens: the original shows what it got
            )
        )
        assert [each for each in after if each[0] != "Host"] == [each for each in before if each[0] != "Host"]
        assert [each for each in with_own if each[0] != "Host"] == [
            *(each for each in before if each[0] != "Host"),
            *([name, value] for name, value in own.items()),
        ]
        header = next(value for name, value in claimed if name.lower() == "traceparent")
        _, trace, span, flags = header.split("-")
        (found,) = traced(receiver, trace, 1)
        assert (found["id"], found["parent"], flags, found["over"]) == (span, "", "01", "grpc")
        assert receiver.authorizations() == {("grpc", f"Bearer {TOKEN}")}
        assert receiver.logs() == []
        assert [each["trace"] for each in receiver.spans() if each["attributes"]["url.path"] == "/request"] == [trace]


def test_a_receiver_that_is_away_is_told_and_slows_nothing(there: Laptop) -> None:
    with (
        exporting(there, RECEIVER),
        intercepted(there, "mesh", "deployment/b", NAMESPACE, "--header", "a=1"),
    ):
        assert ask(NAMESPACE, *[(f"{B}/", {"a": "1"})] * 3) == [(200, "service-b>service-c")] * 3
        (note,) = until("it is told", lambda: there.status()["notes"], SENT_SECONDS)
        assert f"spans do not reach {RECEIVER}/v1/traces" in note
        assert "Connection refused" in note
        assert there.status()["state"] == "connected"


def test_the_managers_environment_exports_all_claims(there: Laptop) -> None:
    with there.connected("-n", NAMESPACE), receiver_on_node() as receiver:
        manager = there.status()["manager"]
        deployment = ("-n", manager["namespace"], "deployment/meshdev-traffic-manager")
        try:
            kubectl("set", "env", *deployment, f"OTEL_EXPORTER_OTLP_ENDPOINT=http://{NODE}:{HTTP_PORT}")
            until("the new manager", _moved(there, manager["pod"]), 60)
            with intercepted(there, "mesh", "deployment/b", NAMESPACE, "--header", "a=1") as b:
                begun(receiver, f"{B}/", b)
                trace, client, headers = a_trace()
                assert ask(NAMESPACE, (f"{B}/?token={TOKEN}", headers)) == [(200, "service-b>service-c")]
                try:
                    (found,) = traced(receiver, trace, 1)
                except AssertionError:
                    print(kubectl("-n", manager["namespace"], "logs", deployment[2], "-c", CONTROL_CONTAINER))
                    raise
                assert found["parent"] == client
                assert found["attributes"]["meshdev.intercept"] == b["id"]
                assert TOKEN not in json.dumps([receiver.spans(), receiver.logs()])
                assert "otlp" not in there.status()
        finally:
            kubectl("delete", *deployment, "--wait=false")  # the next connection makes one without


def _moved(laptop: Laptop, former: str) -> Callable[[], bool]:
    def moved() -> bool:
        status = laptop.status()
        return bool(status["state"] == "connected" and status["manager"]["pod"] not in (None, former))

    return moved
