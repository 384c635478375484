"""The lines between the commands and the session: literal forms, both directions, and what a peer may not send."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ForbiddenError, MeshdevError, PeerClosed, ProtocolError
from meshdev.wire.codecs import Integer
from meshdev.wire.jsonlines import MAX_LINE, LineSplitter, encode
from meshdev.wire.message import decode, dump, take
from meshdev.wire.session_api import (
    CarrierStatus,
    ConnectOptions,
    DisconnectRequest,
    DnsStatus,
    Done,
    Event,
    Failed,
    Note,
    Request,
    Status,
    StatusRequest,
    Step,
    Wait,
    encode_answer,
    encode_event,
    encode_request,
    parse_answer,
    parse_event,
    parse_request,
)
from tests.error_tree import every_kind, told_as
from tests.wire.test_session_intercepts import INTERCEPT

CONNECTED = Status(
    state="connected",
    context="dev",
    namespace="default",
    server="https://10.0.0.1:6443",
    address="198.18.0.1",
    carrier="spdy",
    carriers=(CarrierStatus("spdy", up=True, rtt_ms=0.4), CarrierStatus("spdy", up=False)),
    routes=("10.96.0.0/16", "10.244.0.0/24"),
    dns=DnsStatus("redirect", "10.96.0.10", ("default.svc.cluster.local",), ("cluster.local",)),
    manager_namespace="default",
    manager_pod="meshdev-traffic-manager-1",
    session_pid=100,
    helper_pid=101,
    intercepts=(INTERCEPT,),
    leftovers=("route 10.0.0.0/8",),
    since_s=12.5,
    notes=("10.0.0.0/8 is yours",),
)

OPTIONS = ConnectOptions(
    kubeconfig="/a:b",
    context="c",
    namespace="n",
    as_user="u",
    request_timeout=2.5,
    also=("10.0.0.0/8",),
    upgrade=True,
    unguarded=True,
)


def test_options_travel() -> None:
    assert ConnectOptions.parse(OPTIONS.encode().rstrip()) == OPTIONS
    assert ConnectOptions.parse(ConnectOptions().encode()) == ConnectOptions()


def test_status_has_the_keys_scripts_rely_on() -> None:
    value = dump(CONNECTED)
    assert value["manager"] == {"namespace": "default", "pod": "meshdev-traffic-manager-1"}
    assert value["pids"] == {"session": 100, "helper": 101}
    assert value["dns"] == {
        "way": "redirect",
        "nameserver": "10.96.0.10",
        "search": ("default.svc.cluster.local",),
        "domains": ("cluster.local",),
    }
    nothing = json.loads(json.dumps(dump(Status(state="disconnected"))))
    assert nothing == {
        "state": "disconnected",
        "context": None,
        "namespace": None,
        "server": None,
        "address": None,
        "carrier": None,
        "carriers": [],
        "routes": [],
        "dns": {},
        "manager": {"namespace": None, "pod": None},
        "pids": {"session": None, "helper": None},
        "intercepts": [],
        "leftovers": [],
        "since_s": None,
        "notes": [],
    }


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            Step("cluster", "Kubernetes 1.35", 0.25),
            b'{"event":"step","name":"cluster","text":"Kubernetes 1.35","seconds":0.25}\n',
        ),
        (Note("overlap"), b'{"event":"note","text":"overlap"}\n'),
        (Wait("pulling image"), b'{"event":"wait","text":"pulling image"}\n'),
        (
            Failed("forbidden", "no", "ask", 20),
            b'{"event":"error","error":{"code":"forbidden","message":"no","hint":"ask"},"exit_code":20}\n',
        ),
        (Done(CONNECTED), None),
        (Done(Status(state="connected")), None),
    ],
)
def test_events_travel(event: Event, line: bytes | None) -> None:
    encoded = encode_event(event)
    assert line in (None, encoded)
    assert parse_event(encoded[:-1]) == event


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        (StatusRequest(), b'{"op":"status","settled":false}\n'),
        (StatusRequest(settled=True), b'{"op":"status","settled":true}\n'),
        (DisconnectRequest(), b'{"op":"disconnect"}\n'),
        (DisconnectRequest(cancelled=True), b'{"op":"disconnect","cancelled":true}\n'),
    ],
)
def test_requests_travel(request_: Request, line: bytes) -> None:
    assert encode_request(request_) == line
    assert parse_request(line) == request_


def test_a_plain_status_request_is_enough() -> None:
    assert parse_request(b'{"op": "status"}') == StatusRequest(settled=False)


def test_answers_travel() -> None:
    assert parse_answer(StatusRequest(), encode_answer(CONNECTED)) == CONNECTED
    assert encode_answer(None) == b'{"ok":{}}\n'
    assert parse_answer(DisconnectRequest(), encode_answer(None)) is None
    failed = Failed.of(ForbiddenError("create pods/portforward in default", hint="meshdev rbac"))
    with pytest.raises(ForbiddenError, match="create pods/portforward") as caught:
        parse_answer(StatusRequest(), encode_answer(failed))
    assert caught.value.hint == "meshdev rbac"


def test_every_error_comes_back_as_itself() -> None:
    for kind in every_kind():
        assert type(Failed.of(kind("sentence", hint="way out")).as_error()) is told_as(kind)
    assert type(Failed("of a newer version", "sentence", None, 99).as_error()) is MeshdevError
    assert issubclass(PeerClosed, MeshdevError)


def test_a_newer_sessions_status_is_read() -> None:
    value = {**dump(CONNECTED), "weather": "fine"}
    assert parse_answer(StatusRequest(), json.dumps({"ok": value}).encode()) == CONNECTED


def _options(**changes: Any) -> bytes:
    value = json.loads(OPTIONS.encode())
    value["connect"].update(changes)
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b'"connect"',
        b'{"connect": []}',
        b'{"connect": {}}',
        b"\xff{}",
        b"[" * 100_000,
        _options(kubeconfig="relative"),
        _options(kubeconfig=""),
        _options(carrier="pigeon"),
        _options(carriers=0),
        _options(carriers=9),
        _options(carriers=True),
        _options(carriers=1.0),
        _options(also="10.0.0.0/8"),
        _options(also=["1"] * 8193),
        _options(also=["1" * 65]),
        _options(upgrade=1),
        _options(request_timeout=-1),
        _options(request_timeout=float("nan")),
        _options(namespace="\0"),
        _options(surprise=1),
        OPTIONS.encode()[:-2] + b',"surprise":1}',
    ],
)
def test_wrong_options_are_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        ConnectOptions.parse(line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"op":"reboot"}',
        b'{"op":null}',
        b'{"op":"status","settled":"yes"}',
        b'{"op":"disconnect","now":true}',
        b"{}",
        b'{"op":"status","op2":1}',
    ],
)
def test_wrong_requests_are_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_request(line)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_politely(data: bytes) -> None:
    for parse in (ConnectOptions.parse, parse_event, parse_request, lambda line: parse_answer(StatusRequest(), line)):
        with pytest.raises(ProtocolError):
            parse(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(dump(CONNECTED))), JSON)
def test_a_status_with_one_wrong_value_is_read_or_refused(key: str, value: object) -> None:
    line = json.dumps({"ok": {**dump(CONNECTED), key: value}}).encode()
    try:
        status = parse_answer(StatusRequest(), line)
    except ProtocolError:
        return
    assert parse_answer(StatusRequest(), encode_answer(status)) == status


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line)), st.integers(1, 7))
def test_lines_survive_any_cut(lines: list[bytes], size: int) -> None:
    stream = b"".join(line + b"\n" for line in lines) + b"unfinished"
    splitter = LineSplitter()
    seen = [line for at in range(0, len(stream), size) for line in splitter.feed(stream[at : at + size])]
    assert seen == lines


def test_an_endless_line_is_refused() -> None:
    splitter = LineSplitter(limit=10)
    assert splitter.feed(b"0123456789") == []
    with pytest.raises(ProtocolError):
        splitter.feed(b"0")


def test_what_is_too_long_is_not_sent() -> None:
    with pytest.raises(ProtocolError):
        encode({"text": "x" * MAX_LINE})


def test_names_that_are_not_unicode_survive() -> None:
    odd = b"/home/\xff/config".decode(errors="surrogateescape")
    assert ConnectOptions.parse(ConnectOptions(kubeconfig=odd).encode()).kubeconfig == odd
    assert decode(b'{"a":1}', "it", lambda found: take(found, "a", Integer(1, 1))) == 1
