"""Who is who, on a real cluster: nothing can be read on the way, and whoever shows what is another's gets nothing."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Final

import pytest
from cryptography import x509

from meshdev.config import CONTROL_PORT, MANAGER_NAME, RELAYS_PORT
from meshdev.identity.authority import Authority
from meshdev.identity.keys import BACKDATED, KeyPair
from meshdev.identity.tls import pem
from meshdev.intercept import spec as specs
from meshdev.intercept.match import HeaderMatch, Match
from meshdev.kube.manifest import CONTROL_CONTAINER, ManagerSpec, deployment
from meshdev.manager.control.__main__ import LIFETIME_VARIABLE
from meshdev.manager.relay.client_hello import ClientHelloReader
from meshdev.sidecar.envoy.tls import CONTROL_NAME
from tests.cluster.enter import MANAGER_IMAGE
from tests.cluster.manifests import App, Port
from tests.e2e import imposters, pods, tls_streams, workloads
from tests.e2e.accounts import apply, uninstall
from tests.e2e.capture import Capture, captured
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.imposters import CLAIMING, HANDSHAKE, RECEIVE
from tests.e2e.intercepting import A1, LOCAL, LocalProgram, ask, counts, in_pod, intercepted, local
from tests.e2e.loading import Plan, loading
from tests.e2e.strangers import as_a_sidecar, manager_pod
from tests.e2e.workloads import CLIENT, http, of

pytestmark = [pytest.mark.cluster, pytest.mark.every_cluster, pytest.mark.timeout(120)]

NAMESPACE: Final = "identity"
URL: Final = f"http://b.{NAMESPACE}/"
#: A second workload: its pods are wanted on another port.
OTHER_PORT: Final = 8081
OTHER: Final = App("c", ("--name=c", f"--port={OTHER_PORT}"), (Port("http-c", OTHER_PORT, 80, app_protocol="http"),))
#: A word that nobody else says.
QUINCE: Final = "quince"
#: Their pods have no sidecar of a former test.
TAKEN, RENEWED = "taken", "renewed"


@pytest.fixture(scope="module")
def there(cluster: None) -> Iterator[Laptop]:  # noqa: ARG001 -- for its effect
    laptop = Laptop(1)
    laptop.clean()
    made = [*of(http("b", 2), NAMESPACE), *of(OTHER, NAMESPACE)]
    for name, replicas in ((QUINCE, 1), (TAKEN, 2), (RENEWED, 1)):
        made += of(http(name, replicas), NAMESPACE)
    with workloads.namespace(NAMESPACE, *made), laptop.connected(), local(laptop):
        yield laptop
    laptop.clean()


def right() -> None:
    assert ask(NAMESPACE, *[(URL, A1), (URL, {})] * 3) == [(200, LOCAL), (200, "b")] * 3


def claimed() -> specs.Spec:
    """What everybody may read who may read Leases there."""
    found = json.loads(kubectl("-n", NAMESPACE, "get", "leases", "-o", "json"))["items"]
    texts = [value for lease in found for name, value in lease["metadata"]["annotations"].items() if "spec" in name]
    return next(each for each in map(specs.decode, texts) if each.workload.name == "b")


def another(spec: specs.Spec, value: str) -> specs.Spec:
    """Somebody else's claim on the same workload."""
    return replace(spec, id=token_hex(16), match=Match((HeaderMatch("a", "exact", value),)))


# -- what can be read --------------------------------------------------------------------------------------------------

#: Posts a body with a header; the name of who got it, and how much.
_POST: Final = """
import http.client, json, sys, urllib.parse
host, name, value, body = sys.argv[1:]
connection = http.client.HTTPConnection(host, 80, timeout=8)
connection.request("POST", "/request", body=body, headers={name: value})
told = json.loads(connection.getresponse().read())
print(told["name"], told["body_length"])
"""


def ends_at(flow: str, *ports: int) -> bool:
    """Whether it is from or to one of these ports."""
    return any(int(end.rpartition(":")[2]) in ports for end in flow.split(" → "))


def to_relay(capture: Capture) -> list[bytes]:
    """What Envoys sent to the relay, by connection, of those that began meanwhile."""
    streams = [data for flow, data in capture.streams().items() if flow.endswith(f":{RELAYS_PORT}")]
    return [data for data in streams if data.startswith(b"\x16")]  # a handshake


def test_nothing_of_routes_reports_and_claimed_requests_is_readable(there: Laptop) -> None:
    """From the first connection of a sidecar on; of the client's own, to the pod, everything is."""
    value, body = token_hex(16), token_hex(16)
    target = f"deployment/{QUINCE}"
    with captured() as capture, intercepted(there, "mesh", target, NAMESPACE, "-H", f"x-marker={value}"):
        assert in_pod(NAMESPACE, _POST, QUINCE, "x-marker", value, body).split() == [LOCAL, str(len(body))]
        until("it is counted", lambda: counts(there, target)["matched"] == 1, 10)
        (pod,) = pods.pods(NAMESPACE, f"app={QUINCE}")
    streams = {flow: data for flow, data in capture.streams().items() if ends_at(flow, CONTROL_PORT, RELAYS_PORT)}
    for port in (CONTROL_PORT, RELAYS_PORT):
        assert any(flow.endswith(f":{port}") for flow in streams)
        assert any(f":{port} → " in flow for flow in streams)
    for flow, data in streams.items():
        assert list(tls_streams.records(data)), flow
    in_clear = capture.readable(value.encode(), body.encode())
    for flows in in_clear.values():
        assert any(flow.endswith(f" → {pod['status']['podIP']}:8080") for flow in flows)
        assert [flow for flow in flows if not ends_at(flow, 80, 8080)] == []
    assert set(in_clear) == {value.encode(), body.encode()}
    said = (pod["metadata"]["name"], "type.googleapis.com/envoy", '{"hello"', '"consents"', '{"want"', '{"state"')
    assert capture.readable(*map(str.encode, said)) == {}
    # The one thing that TLS 1.2 tells: who the pod is, not what it says.
    named = capture.readable(QUINCE.encode(), pod["metadata"]["uid"].encode())
    for flow in {flow for flows in named.values() for flow in flows} & streams.keys():
        (certificate, *_) = tls_streams.certificates(streams[flow])
        assert flow.endswith(f":{RELAYS_PORT}")
        for name in named:
            assert streams[flow].count(name) == certificate.count(name) == 1


# -- certificates ------------------------------------------------------------------------------------------------------


def shown_on_the_way(capture: Capture) -> set[bytes]:
    """The certificates by which Envoys came to the relay, read where anybody on the node could."""
    return {certificate for data in to_relay(capture) for certificate in tls_streams.certificates(data)[:1]}


def asked_for(capture: Capture) -> str:
    """The name of the relay that they asked for (SNI), read in the same way."""
    hellos = (ClientHelloReader().feed(tls_streams.first_record(data)) for data in to_relay(capture))
    (name,) = {hello.server_name for hello in hellos if hello is not None and hello.server_name is not None}
    return name.decode()


_STRANGER: Final = """
address, shown = sys.argv[1], json.loads(sys.argv[2])
print(json.dumps([try_handshake(address, *each) for each in shown]))
"""


def test_without_a_certificate_of_the_manager_no_handshake_is_completed(there: Laptop, tmp_path: Path) -> None:
    """None, a self-signed one, and one by which another authority says that it is that very pod."""
    with intercepted(there, "mesh", "deployment/b", NAMESPACE, "-H", "a=1"):
        with captured() as capture:
            ask(NAMESPACE, (URL, A1))
        pod, manager = pods.pods(NAMESPACE, "app=b")[0], manager_pod()
        pair, now = KeyPair.generate(), datetime.now(UTC)
        theirs = Authority.open(tmp_path / "authority", manager["metadata"]["uid"], now)
        path = f"ns/{NAMESPACE}/deployment/b/pod/{pod['metadata']['uid']}"
        issued = theirs.issue_workload(pair.request(), path, now=now, lifetime=timedelta(hours=1))
        signed = pair.self_signed(lifetime=timedelta(hours=1), now=now)
        shown = [(None, None), *((pair.private_pem.decode(), pem(each)) for each in (signed, issued))]
        names = {asked_for(capture): True, "20999.relay.meshdev": False, CONTROL_NAME: False}
        at = [(CONTROL_PORT, CONTROL_NAME, True), *((RELAYS_PORT, name, answers) for name, answers in names.items())]
        handshakes = [(port, name, *pair) for port, name, _ in at for pair in shown]
        told = json.loads(in_pod(NAMESPACE, HANDSHAKE + _STRANGER, manager["status"]["podIP"], json.dumps(handshakes)))
        assert told == [[answers, False] for *_, answers in at for _ in shown]
        right()


_COPIED: Final = """
mine, copied = Vouching(), [base64.b64decode(each) for each in arguments["copied"]]
def at(port, name, other):
    return try_handshake(arguments["manager"], port, name, mine.key.private_pem.decode(), pem(mine.certificate), other)
print(json.dumps({
    "control": [at(CONTROL_PORT, CONTROL_NAME, each) for each in (mine.certificate, *copied)],
    "relay": [at(arguments["relays"], arguments["relay"], each) for each in copied],
}))
"""


def test_a_certificate_that_was_copied_on_its_way_is_of_no_use(there: Laptop) -> None:
    """It is shown to everybody; without its key nobody is let through with it, however welcome otherwise."""
    with intercepted(there, "mesh", "deployment/b", NAMESPACE, "-H", "a=1"):
        with captured() as capture:
            ask(NAMESPACE, *[(URL, A1)] * 10)
        copied = shown_on_the_way(capture)
        assert copied
        spec = claimed()
        told = as_a_sidecar(
            HANDSHAKE + _COPIED,
            spec=specs.encode(spec),
            id=spec.id,
            copied=[base64.b64encode(each).decode() for each in copied],
            relays=RELAYS_PORT,
            relay=asked_for(capture),
        )
        refused = [[True, False]] * len(copied)
        assert told == {"control": [[True, True], *refused], "relay": refused}
        right()


# -- proofs ------------------------------------------------------------------------------------------------------------


def test_a_session_needs_the_request_and_its_proof_and_consent(there: Laptop) -> None:
    """Whoever may attest the agent has all; what was copied, was never agreed to, or is over, is worth nothing."""
    value = token_hex(16)
    with intercepted(there, "mesh", "deployment/b", NAMESPACE, "-H", f"a={value}"):
        spec, (one, two) = claimed(), pods.pods(NAMESPACE, "app=b")
        manager = imposters.manager_certificate()
        mine, over = (imposters.pose_as_session(each, manager) for each in (one, two))
        assert mine.accepted
        assert over.accepted
        nobodys = KeyPair.generate().self_signed(lifetime=timedelta(hours=1), now=datetime.now(UTC))
        no_consent = imposters.pose_as_session(one, nobodys)
        assert (no_consent.accepted, "another manager" in no_consent.reason) == (False, True)
        before = pods.announcement(two)
        pods.kill(two, pods.AGENT)
        until("another one is there", lambda: pods.announcement(two) != before, 20)
        now = imposters.pose_as_session(two, manager)
        shown = {
            "both": mine,
            "the request alone": replace(mine, proof=token_hex(32)),
            "the proof alone": replace(mine, request=KeyPair.generate().request()),
            "the proof of another pod's agent": replace(now, proof=mine.proof),
            "what the agent did not agree to": no_consent,
            "of an agent that has ended": over,
            "the proof of an agent that has ended": replace(now, proof=over.proof),
        }
        others = (specs.encode(another(spec, token_hex(16))) for _ in shown)
        told = imposters.reported(one, dict(zip(shown, zip(others, shown.values(), strict=True), strict=True)))
        assert [True, "acked"] in told.pop("both")
        assert [what for what, states in told.items() if states] == []
        until("it is served again", lambda: ask(NAMESPACE, *[(URL, {"a": value})] * 6) == [(200, LOCAL)] * 6, 10)


_POSED: Final = """
posed, id = claiming(*arguments["posed"])
heard = posed.hear(2)
mine = Vouching()
hello = {"pod": "b-x", "uid": "0" * 36, "namespace": "x", "address": "10.244.0.1", "probes": []}
as_agent = receive_all(mine, hello, (mine.proof, arguments["posed"][2]), 6)
mine.over.set()
heard += posed.hear(0.5)
print(json.dumps([states(heard, id), repr(heard), as_agent]))
"""


def test_who_poses_as_a_session_or_as_an_agent_hears_of_its_own_claim_only(there: Laptop) -> None:
    """A session whose proof was copied; an agent of another key consents to it, and acts as one with its Envoy."""
    theirs, its = token_hex(16), token_hex(16)
    with intercepted(there, "mesh", "deployment/b", NAMESPACE, "-H", f"a={theirs}"):
        spec, pod = claimed(), pods.pods(NAMESPACE, "app=b")[0]
        posed = imposters.pose_as_session(pod, imposters.manager_certificate())
        own = another(spec, token_hex(16))
        assert own.match is not None
        reported, as_session, as_agent = as_a_sidecar(
            CLAIMING + RECEIVE + _POSED,
            spec=specs.encode(own),
            id=own.id,
            posed=imposters.shown(specs.encode(another(spec, its)), posed, pod),
        )
        assert [True, "acked"] in reported
        assert [secret for secret in (spec.id, theirs) if secret in as_session] == []
        assert [each for each in as_agent if own.match.headers[0].value in each], "it hears what is its own"
        assert [each for each in as_agent for secret in (spec.id, theirs, its) if secret in each] == []
        assert ask(NAMESPACE, *[(URL, {"a": theirs})] * 4) == [(200, LOCAL)] * 4


def test_a_process_that_took_the_port_first_is_found_out(there: Laptop) -> None:
    """It is inside the pod, so it is attested at once, and serves that pod's claims; then the log names another."""
    one, _ = pods.pods(NAMESPACE, f"app={TAKEN}")
    url = f"http://{TAKEN}.{NAMESPACE}/"
    with (
        intercepted(there, "mesh", "deployment/c", NAMESPACE, "-H", "a=1", f"--port=8080:{OTHER_PORT}"),
        imposters.thief(one, CONTROL_PORT) as said,
        intercepted(there, "mesh", f"deployment/{TAKEN}", NAMESPACE, "-H", "a=1"),
    ):
        (status,) = (each for each in there.status()["intercepts"] if each["target"] == f"deployment/{TAKEN}")
        assert status["pods"] == {"acked": 2, "total": 2}
        assert [note for note in status["notes"] if f"pod {one['metadata']['name']}: another process" in note]
        assert ask(NAMESPACE, *[(url, A1), (url, {})] * 4) == [(200, LOCAL), (200, TAKEN)] * 4
        wanted = [json.loads(line) for line in iter(said.readline, "[]\n")]
        assert wanted == [["8080"]], "its own pod's claim, until the log was read"
        assert ask(NAMESPACE, (f"http://c.{NAMESPACE}/", A1)) == [(200, LOCAL)]


# -- renewal -----------------------------------------------------------------------------------------------------------

LIFETIME_SECONDS: Final = 6.0
#: All of them match; what is connected anew shows the certificate of then.
PLAN: Final = Plan(f"{RENEWED}.{NAMESPACE}", new=40, kept=60, connections=10, pool=40, grpc=0, matched=1, of=1)
#: The sample, which closes every third connection: the next request to it takes a handshake.
_CLOSING: Final = f"""
import itertools, signal
from tests.cluster.sample.app import App
from tests.cluster.sample.http1 import Server
from tests.cluster.sample.listeners import Listener
app, turns = App("{LOCAL}"), itertools.cycle((True, False, False))
def answer(request):
    if next(turns):
        request.headers.append(("connection", "close"))
    return app(request)
listener = Listener(8080, Server(answer).serve)
print("{LOCAL}: ready", flush=True)
signal.pause()
"""


@contextmanager
def short_lived_manager() -> Iterator[None]:
    """One in our own namespace, whose certificates are good for LIFETIME_SECONDS."""
    uninstall(NAMESPACE)
    made = deployment(ManagerSpec(NAMESPACE, MANAGER_IMAGE))
    (control,) = (c for c in made["spec"]["template"]["spec"]["containers"] if c["name"] == CONTROL_CONTAINER)
    control["env"].append({"name": LIFETIME_VARIABLE, "value": str(int(LIFETIME_SECONDS))})
    apply(json.dumps(made))
    try:
        yield
    finally:
        uninstall(NAMESPACE)


@pytest.mark.usefixtures("there")
def test_certificates_are_renewed_under_load_without_a_failed_request(laptop2: Laptop) -> None:
    target, program = f"deployment/{RENEWED}", LocalProgram(laptop2, program=_CLOSING)
    try:
        with (
            short_lived_manager(),
            laptop2.connected("--manager-namespace", NAMESPACE),
            intercepted(laptop2, "mesh", target, NAMESPACE, "-H", "a=1"),
            loading(CLIENT, NAMESPACE, PLAN) as load,
        ):
            begun, seen = time.time(), []
            while time.time() < begun + 3 * LIFETIME_SECONDS:
                with captured() as capture:
                    load.until_asked(100)
                seen.append(shown_on_the_way(capture))
                until("some time has passed", lambda: time.time() > begun + len(seen) * LIFETIME_SECONDS / 2, 10)
            elapsed = time.time() - begun
            found = counts(laptop2, target)
            (manager,) = pods.pods(NAMESPACE, f"app.kubernetes.io/name={MANAGER_NAME}")
            (pod,) = pods.pods(NAMESPACE, f"app={RENEWED}")
            print(kubectl("-n", NAMESPACE, "logs", manager["metadata"]["name"], "-c", "relay"))
    finally:
        program.stop()
    print(load.summary(), found)
    assert {row.said for row in load.rows} == {LOCAL}
    assert found["fell_back"] == found["errors"] == 0
    assert len(load.since(begun)) > 40 * elapsed
    assert all(seen), "each time somebody connected anew"
    every = [x509.load_der_x509_certificate(each) for each in set().union(*seen)]
    assert len(every) >= 5, "one for each half of a lifetime"
    path = f"ns/{NAMESPACE}/deployment/{RENEWED}/pod/{pod['metadata']['uid']}"
    for each in every:
        names = each.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
            f"spiffe://{manager['metadata']['uid']}/{path}"
        ]
        assert each.not_valid_after_utc - each.not_valid_before_utc == BACKDATED + timedelta(seconds=LIFETIME_SECONDS)
