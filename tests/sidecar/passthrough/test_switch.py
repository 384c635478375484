"""Which bytes of a client go to the app and which to Envoy: against a model, and case by case."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.sidecar.passthrough.owner import Side
from meshdev.sidecar.passthrough.sniff import PREFACE
from tests.sidecar.passthrough.switching import OK, SETTINGS, World, get, post

# -- against a model ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exchange:
    claimed: bool
    request: bytes
    response: bytes


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    claimed, number = draw(st.booleans()), draw(st.integers(0, 99))
    method = draw(st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT"]))
    line = b"Claimed: 1\r\n" if claimed else b""
    body = draw(st.binary(max_size=30)) if method in {b"POST", b"PUT"} else b""
    if body and draw(st.booleans()):
        framing, body = b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        framing = b"Content-Length: %d\r\n" % len(body) if body else b""
    request = b"%b /%d HTTP/1.1\r\n%b%b\r\n%b" % (method, number, line, framing, body)
    answer = b"" if method == b"HEAD" else b"answer %d" % number
    head = draw(st.sampled_from([b"HTTP/1.1 100 Continue\r\n\r\n", b""]))
    if answer and draw(st.booleans()):
        response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(answer), answer)
    else:
        response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer)
    return Exchange(claimed, request, head + response)


class Server:
    """Answers each of its requests once it is complete."""

    def __init__(self, todo: list[Exchange]) -> None:
        self.todo = todo
        self.got = b""
        self.ready = b""

    def take(self, data: bytes) -> None:
        self.got += data
        while self.todo and len(self.got) >= len(self.todo[0].request):
            request = self.todo[0].request
            assert self.got.startswith(request), "verbatim, and in order"
            self.got = self.got[len(request) :]
            self.ready += self.todo.pop(0).response


@given(st.lists(exchanges(), min_size=1, max_size=8), st.data())
def test_each_request_meets_its_server_and_each_response_its_turn(todo: list[Exchange], data: st.DataObject) -> None:
    world = World()
    switch = world.switch
    app = Server([each for each in todo if not each.claimed])
    envoy = Server([each for each in todo if each.claimed])
    stream = b"".join(each.request for each in todo)
    dials = 0
    while True:
        app.take(world.taken("app"))
        envoy.take(world.taken("envoy"))
        idle = not app.ready and not app.got and switch._idle_app
        left: dict[Side, bytes] = {"client": stream if switch.reading else b"", "app": app.ready, "envoy": envoy.ready}
        steps = [side for side, ready in left.items() if ready]
        if not steps:
            break
        if idle and world.log.count("dial app") > dials and data.draw(st.booleans()):
            dials = world.log.count("dial app")
            way = data.draw(st.sampled_from(["end", "reset", "408"]))
            if way == "end":
                switch.app_ended()
            elif way == "reset":
                switch.failed("app")
            else:
                switch.from_app(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        step: Side = data.draw(st.sampled_from(steps))
        size, unseen = data.draw(st.integers(1, 80)), data.draw(st.booleans())
        if step == "client":
            piece, stream = stream[:size], stream[size:]
        elif step == "app":
            piece, app.ready = app.ready[:size], app.ready[size:]
        else:
            piece, envoy.ready = envoy.ready[:size], envoy.ready[size:]
        world.comes(step, piece, unseen=unseen)
    assert (stream, app.todo, envoy.todo, app.got, envoy.got) == (b"", [], [], b"", b"")
    assert world.sent["client"] == b"".join(each.response for each in todo)
    assert world.reasons == []
    assert "abort" not in world.log
    switch.client_ended()
    assert switch.over or world.log[-1] == "finish app"


_WORDS = (get(), get(claimed=True), post(b"body"), OK, SETTINGS, PREFACE, b"\0", b"GET ", b"/", b" HTTP/1.1\r\n")


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=50), st.sampled_from(_WORDS)), max_size=20), st.data())
def test_whatever_comes_arrives(pieces: list[bytes], data: st.DataObject) -> None:
    """Garbage from both ends, in any order, then both ends: nothing is changed, and nothing kept."""
    world = World(envoy_up=False)
    switch = world.switch
    sent: dict[str, bytes] = {"client": b"", "app": b""}
    for piece in pieces:
        reading: dict[Side, bool] = {"client": switch.reading, "app": switch.reading_app}
        side = data.draw(st.sampled_from([each for each, read in reading.items() if read]))
        sent[side] += piece
        world.comes(side, piece, unseen=data.draw(st.booleans()))
    switch.client_ended()
    assert world.sent["app"] == sent["client"] or not switch.reading, "a claim waits for responses that never come"
    switch.app_ended()
    assert (world.sent["client"], world.sent["app"]) == (sent["app"], sent["client"])
    assert world.log == ["dial app", *["no envoy"] * world.log.count("no envoy"), "finish app", "finish client"]
    assert switch.over


# -- case by case ------------------------------------------------------------------------------------------------------


def test_a_claimed_request_waits_for_the_responses_before_it() -> None:
    world = World()
    world.switch.from_client(get() + get(claimed=True) + get())
    assert (world.sent["app"], world.sent["envoy"], world.switch.reading) == (get(), b"", False)
    world.switch.from_app(OK)
    assert world.sent["envoy"] == get(claimed=True)
    assert not world.switch.reading, "what comes behind it waits for its response"
    world.switch.from_envoy(OK)
    assert (world.taken("app"), world.taken("client"), world.switch.reading) == (get() + get(), OK + OK, True)


def test_without_envoy_a_claimed_request_is_the_apps() -> None:
    world = World(envoy_up=False)
    world.switch.from_client(get() + get(claimed=True) + get())
    world.switch.from_app(OK)
    assert world.sent["app"] == get() + get(claimed=True) + get()
    assert world.switch.reading


def test_a_body_goes_where_its_head_went() -> None:
    world = World()
    whole = post(b"x" * 100, claimed=True)
    for at in range(0, len(whole), 7):
        assert world.switch.reading
        world.switch.from_client(whole[at : at + 7])
    assert (world.sent["envoy"], world.sent["app"], world.switch.reading) == (whole, b"", False)


def test_an_upgrade_by_envoy_ends_the_apps_side() -> None:
    world = World()
    switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    world.switch.from_client(get(claimed=True, more=b"Connection: Upgrade\r\nUpgrade: websocket\r\n") + b"early")
    world.switch.from_envoy(switching)
    assert world.log[-1] == "drop app"
    world.switch.from_client(b"frame")
    world.switch.from_envoy(b"other")
    assert world.sent["envoy"].endswith(b"\r\n\r\nearlyframe")
    assert world.sent["client"] == switching + b"other"
    world.switch.client_ended()
    world.switch.envoy_ended()
    assert world.switch.over


def test_what_cannot_be_followed_stays_with_the_app() -> None:
    world = World()
    odd = b"GET / HTTP/1.1\r\nX : 1\r\n\r\n"
    world.switch.from_client(get() + odd + get(claimed=True))
    assert (world.sent["app"], world.reasons) == (get() + odd + get(claimed=True), ["blank-before-colon"])
    world.switch.from_client(get(claimed=True))
    assert world.sent["envoy"] == b""


def test_a_response_that_cannot_be_followed_takes_a_waiting_claim_with_it() -> None:
    world = World()
    world.switch.from_client(get() + get(claimed=True) + get())
    world.switch.from_app(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
    assert world.sent["app"] == get() + get(claimed=True) + get()
    assert (world.reasons, world.switch.reading) == (["until-close"], True)


def test_http2_goes_to_envoy_as_a_whole() -> None:
    world = World()
    world.switch.from_app(SETTINGS)
    assert not world.switch.reading_app
    world.switch.from_client(PREFACE[:10])
    world.switch.from_client(PREFACE[10:] + b"frames")
    assert world.sent == {"client": b"", "app": b"", "envoy": PREFACE + b"frames"}
    assert world.log == ["dial app", "dial envoy", "drop app"]
    world.switch.from_envoy(b"settings")
    assert world.sent["client"] == b"settings"


@pytest.mark.parametrize("world", [World(envoy_up=False), World(http2=False)], ids=["no Envoy", "not claimed"])
def test_http2_without_envoy_is_the_apps(world: World) -> None:
    world.switch.from_app(SETTINGS)
    world.switch.from_client(PREFACE + b"frames")
    assert (world.sent["app"], world.sent["client"]) == (PREFACE + b"frames", SETTINGS)


def test_a_server_that_speaks_first_is_heard_at_once() -> None:
    world = World()
    world.switch.from_app(b"220 mail\r\n")
    assert world.sent["client"] == b"220 mail\r\n"
    world.switch.from_client(get(claimed=True))
    assert world.sent["app"] == get(claimed=True), "nothing behind a greeting is a request"


@pytest.mark.parametrize("said", [b"\0", SETTINGS, SETTINGS + b"more"])
@pytest.mark.parametrize("asked", [b"GET ", b"GET / HT", get(), post(b"body"), get(claimed=True)])
def test_a_server_that_speaks_first_as_in_http2_to_a_client_of_http1_loses_nothing(said: bytes, asked: bytes) -> None:
    world = World()
    world.switch.from_app(said)
    world.switch.from_client(asked)
    assert (world.sent["client"], world.sent["app"]) == (said, asked)
    assert world.reasons == ["other"]


@pytest.mark.parametrize("first", [b"PRI", b"GET / HT", b""])
def test_what_is_late_passes_unlooked(first: bytes) -> None:
    world = World()
    if first:
        world.switch.from_client(first)
    else:
        world.switch.from_app(SETTINGS)
    assert world.switch.holds
    world.switch.late()
    assert not world.switch.holds
    assert (world.sent["app"], world.sent["client"]) == (first, b"" if first else SETTINGS)
    assert world.reasons == ["head-time"]


def test_everything_of_a_claimed_port_is_envoys() -> None:
    world = World(whole=True)
    world.switch.from_client(b"\0any")
    world.switch.from_envoy(b"thing")
    assert (world.sent["envoy"], world.sent["client"], world.log) == (b"\0any", b"thing", ["dial envoy"])


def test_everything_of_a_claimed_port_is_the_apps_without_envoy() -> None:
    world = World(whole=True, envoy_up=False)
    world.switch.from_client(get(claimed=True))
    assert (world.sent["app"], world.log) == (get(claimed=True), ["no envoy", "dial app"])


def test_the_middle_of_a_body_passes_unseen_and_its_end_does_not() -> None:
    world = World()
    switch = world.switch
    world.comes("client", post(bytes(100), claimed=True)[:-90])
    assert switch.pass_unseen("client", 89) == "envoy"
    assert switch.pass_unseen("client", 1) is None
    world.comes("client", b"\0")
    assert switch.pass_unseen("envoy", 1) is None
    world.comes("envoy", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    assert switch.pass_unseen("envoy", 101) is None
    assert switch.pass_unseen("envoy", 99) == "client"
    assert not switch.reading
    world.comes("envoy", b"\0")
    assert switch.reading


def test_what_is_followed_no_further_passes_unseen() -> None:
    world = World()
    world.comes("client", post(bytes(100))[:-90])
    assert world.switch.pass_unseen("client", 90) is None
    world.comes("app", OK)
    assert world.reasons == ["early-response"]
    assert world.switch.pass_unseen("client", 1000) == "app"
    assert world.switch.pass_unseen("app", 1000) == "client"
