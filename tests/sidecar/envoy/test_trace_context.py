"""W3C trace context of claimed requests: whose trace they continue, and what the next in the line gets."""

import asyncio
import re
import string
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.sidecar.envoy import access_log, names, trace_context
from meshdev.wire.agent import Probe
from tests.sidecar.certificates import Certificates
from tests.sidecar.envoy.test_access_log import requests
from tests.sidecar.envoy.test_claimed import ask
from tests.sidecar.envoy.test_protocols import grpc_pod
from tests.sidecar.pod import SECOND, End, Pod, length, pod
from tests.sidecar.real_envoy import running

MINE: Final = Match(headers=(HeaderMatch("a", "exact", "1"),))
TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
SPAN: Final = "b7ad6b7169203331"
VALID: Final = f"00-{TRACE}-{SPAN}-01"
#: What we send, always of version 00: its trace, our span, its flags.
SENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-(0[0-3])")

Context = tuple[str, str, str]


def model(values: list[str]) -> Context | None:
    """Trace, parent and flags that go on; None where a new trace begins."""
    if len(values) != 1:
        return None
    parts = values[0].split("-", 4)
    digits = set("0123456789abcdef")
    if [len(each) for each in parts[:4]] != [2, 32, 16, 2] or not set("".join(parts[:4])) <= digits:
        return None
    version, trace, parent, flags = parts[:4]
    if version == "ff" or int(trace, 16) == 0 or int(parent, 16) == 0:
        return None
    if version == "00" and len(values[0]) != 55:
        return None
    return trace, parent, f"{int(flags, 16) & (3 if version == '00' else 1):02x}"


def values(head: bytes, name: str) -> list[str]:
    """Of all headers of that name."""
    lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return [value.strip(" \t") for each, _, value in lines if each.lower() == name]


def request(*lines: str, mine: bool = True) -> bytes:
    own = ("A: 1",) if mine else ()
    return "\r\n".join(("GET / HTTP/1.1", "Host: b", *own, *lines, "", "")).encode("latin-1")


class Client:
    """One connection to a pod whose claim is traced."""

    def __init__(self, app: Pod) -> None:
        self.app = app
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, *lines: str) -> tuple[bytes, Context]:
        """What arrived at the laptop, and the context in it."""
        self._streams = self._streams or await self.app.connect()
        reader, writer = self._streams
        writer.write(request(*lines))
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(length(head)) == b"laptop"
        arrived = self.app.laptop.heard.pop()
        (sent,) = values(arrived, "traceparent")
        found = SENT.fullmatch(sent)
        assert found is not None, sent
        return arrived, (found[1], found[2], found[3])


async def traced(app: Pod, match: Match | None = MINE) -> Client:
    app.claim(match, trace=True)
    await app.serve()
    return Client(app)


async def test_a_trace_is_continued() -> None:
    async with pod() as app:
        client = await traced(app)
        for flags in ("00", "01", "02", "03"):
            arrived, (trace, span, sent) = await client.ask(
                f"TraceParent: 00-{TRACE}-{SPAN}-{flags}", "TraceState: x=1"
            )
            assert (trace, sent) == (TRACE, flags)
            assert span != SPAN
            assert values(arrived, "tracestate") == ["x=1"]
            assert b"TraceParent: 00-" in arrived, "spelled as its client does"


async def test_a_trace_begins() -> None:
    async with pod() as app:
        arrived, (trace, _, flags) = await (await traced(app)).ask()
        assert (trace != TRACE, flags) == (True, "01")
        assert b"\r\ntraceparent: 00-" in arrived


@pytest.mark.parametrize(
    ("sent", "flags"),
    [
        *((f"{version}-{TRACE}-{SPAN}-01", "01") for version in ("00", "01", "cc", "fe")),
        (f"01-{TRACE}-{SPAN}-ff-more-of-it", "01"),
        (f"01-{TRACE}-{SPAN}-02-", "00"),
        (f"00-{TRACE}-{SPAN}-ff", "03"),
        (f"00-{TRACE}-{SPAN}-fc", "00"),
    ],
)
async def test_later_versions_and_unknown_flags(sent: str, flags: str) -> None:
    """The next gets version 00, and no flag that nobody knows."""
    assert model([sent]) == (TRACE, SPAN, flags)
    async with pod() as app:
        _, context = await (await traced(app)).ask(f"Traceparent: {sent}")
        assert (context[0], context[2]) == (TRACE, flags)


async def test_an_invalid_trace_begins_anew_without_its_state() -> None:
    async with pod() as app:
        client = await traced(app)
        for lines in (
            [f"Traceparent: ff-{TRACE}-{SPAN}-01"],
            [f"Traceparent: 00-{'0' * 32}-{SPAN}-01"],
            [f"Traceparent: 00-{TRACE}-{'0' * 16}-01"],
            [f"Traceparent: 00-{TRACE.upper()}-{SPAN}-01"],
            [f"Traceparent: {VALID}-more"],
            [f"Traceparent: 01-{TRACE}-{SPAN}-01more"],
            [f"Traceparent: {VALID[:-1]}"],
            [f"Traceparent: {VALID}", f"traceparent: {VALID}"],
            [f"Traceparent: 01-{TRACE}-{SPAN}-01-", f"traceparent: 01-{TRACE}-{SPAN}-01-"],
            [f"Traceparent: {VALID}, {VALID}"],
            [f"Traceparent: 00-{TRACE * 20_000}"],
            ["Traceparent:"],
            [],
        ):
            arrived, (trace, span, flags) = await client.ask(*lines, "Tracestate: x=1", "tracestate: y=2", "X: 1")
            assert (trace in {TRACE, "0" * 32}, span == SPAN, flags) == (False, False, "01"), lines
            assert values(arrived, "tracestate") == [], lines
            assert b"X: 1\r\n" in arrived


def pieces(valid: str) -> st.SearchStrategy[str]:
    """A part of a header: mostly as it should be."""
    same, digits = st.just(valid), "0123456789abcdef"
    return (
        same
        | same
        | st.sampled_from(["0" * len(valid), valid.upper(), valid[1:], valid + "0", ""])
        | st.text(digits, min_size=len(valid), max_size=len(valid))
    )


_VISIBLE: Final = string.ascii_letters + string.digits + string.punctuation + "é\xff"
BUILT: Final = st.builds(
    "{}-{}-{}-{}{}".format,
    st.sampled_from(["00", "00", "00", "01", "cc", "fe", "ff", "FE", "0", "000", "0g"]),
    pieces(TRACE),
    pieces(SPAN),
    pieces("01") | st.sampled_from(["0", "001", "fF", "0g"]),
    st.sampled_from(["", "", "", "-", "-x", "x", "--", "-00-01", " ", ", ", f",{VALID}"]),
)
CHANGED: Final = st.builds(
    lambda at, upto, new: VALID[:at] + new + VALID[at + upto :],
    st.integers(0, len(VALID)),
    st.integers(0, 2),
    st.text(_VISIBLE, max_size=2),
)
#: Without what HTTP takes away around a value.
HEADERS: Final = (BUILT | CHANGED | st.text(_VISIBLE + " \t", max_size=70)).map(lambda text: text.strip(" \t"))


@settings(max_examples=250, deadline=None)
@given(st.lists(st.lists(HEADERS, max_size=2) | HEADERS.map(lambda one: [one]), min_size=10, max_size=30))
def check_all(context: Callable[[list[str]], Context], cases: list[list[str]]) -> None:
    for case in cases:
        trace, span, flags = context(case)
        expected = model(case)
        if expected is None:
            assert (trace in "".join(case), span in "".join(case), flags) == (False, False, "01"), case
        else:
            assert (trace, flags, span == expected[1]) == (expected[0], expected[2], False), case


def test_every_header_is_read_as_the_specification_says() -> None:
    with asyncio.Runner() as runner:
        made = pod()
        app = runner.run(made.__aenter__())
        client = runner.run(traced(app))

        try:
            check_all(lambda case: runner.run(client.ask(*(f"Traceparent: {value}" for value in case)))[1])
        finally:
            runner.run(made.__aexit__(None, None, None))


@asynccontextmanager
async def falling_back(folder: Path, app: End) -> AsyncIterator[Pod]:
    """A pod with two threads whose traced claim's program does not listen."""
    certificates = Certificates(folder)
    async with running(2, certificates=certificates) as envoy:
        made = Pod(envoy, certificates, app, app)
        made.claim(MINE, trace=True, up=False)
        await made.serve()
        yield made


async def test_no_two_threads_pods_or_configurations_draw_the_same_ids(tmp_path: Path) -> None:
    """Each has Lua states of its own, whose ``math.random`` begins alike."""
    app = End("app")
    await app.start()
    async with falling_back(tmp_path, app) as one, falling_back(tmp_path, app) as other:
        for turn in range(3):
            for each in (one, other):
                connections = [await each.connect() for _ in range(10)]
                for _ in range(3):
                    await asyncio.gather(*(ask(*connection, request()) for connection in connections))
                each.probes = (Probe(each.port.number, f"/{turn}", "kube-probe/"),)  # other routes
                await each.serve()
    await app.stop()
    contexts = [SENT.fullmatch(value) for head in app.heard for value in values(head, "traceparent")]
    found = [id_ for each in contexts if each for id_ in (each[1][:16], each[1][16:], each[2])]
    assert len(found) == len(set(found)) == 3 * 2 * 10 * 3 * len(("trace", "trace", "span"))


async def test_only_requests_of_traced_claims_are_changed() -> None:
    async with pod() as app:
        await traced(app)
        app.claim(Match(headers=(HeaderMatch("a", "exact", "2"),)), name=SECOND, trace=False)
        await app.serve()
        for lines in (
            ["a: 2"],
            ["a: 3"],
            ["a: 2", f"traceparent: {VALID}"],
            ["a: 3", "traceparent: x", "tracestate: y"],
        ):
            end = app.laptop if lines[0] == "a: 2" else app.original
            await app.ask(sent := request(*lines, mine=False))
            assert end.heard.pop() == sent


async def test_a_claim_that_is_traced_from_now_on_and_no_more() -> None:
    async with pod() as app:
        for trace in (False, True, False):
            app.claim(MINE, trace=trace)
            await app.serve()
            await app.ask(request())
            assert len(values(app.laptop.heard[-1], "traceparent")) == trace


async def test_all_of_a_port_is_traced() -> None:
    async with pod() as app:
        app.claim(trace=True)
        await app.serve()
        await app.ask(request(mine=False))
        assert len(values(app.laptop.heard[-1], "traceparent")) == 1


async def test_which_route_it_is_depends_on_what_the_client_sent() -> None:
    """The fallback to the original is one, too."""
    async with pod() as app:
        client = await traced(
            app, Match(headers=(HeaderMatch("traceparent", "exact", "mine"),), tracestate=(("dev", "me"),))
        )
        lines = ("traceparent: mine", "tracestate: dev=me")
        arrived, _ = await client.ask(*lines)
        assert values(arrived, "tracestate") == []
        await app.laptop.stop()
        assert (await app.ask(request(*lines))).endswith(b"original")
        (sent,) = values(app.original.heard[-1], "traceparent")
        assert SENT.fullmatch(sent)


@pytest.mark.parametrize("up", [True, False])
async def test_what_falls_back_has_the_context_that_was_made(up: bool) -> None:
    async with pod() as app:
        app.claim(MINE, trace=True, up=up)
        await app.serve()
        await app.envoy.admin(access_log.target(watched=True), "POST")
        await app.laptop.stop()
        assert (await app.ask(request(f"traceparent: {VALID}"))).endswith(b"original")
        (entry,) = await requests(app, 1)
        assert values(app.original.heard[-1], "traceparent") == [entry.request.request_headers["traceparent"]]


async def test_what_is_recorded() -> None:
    async with pod() as app:
        client = await traced(app)
        await app.envoy.admin(access_log.target(watched=True), "POST")
        sent = [await client.ask(*lines) for lines in ([f"traceparent: {VALID}"], ["traceparent: x"], [])]
        await app.ask(request(f"traceparent: {VALID}", mine=False))
        found = await requests(app, 4)
        parents = [entry.common_properties.custom_tags.get(names.PARENT, "") for entry in found]
        assert parents == [SPAN, trace_context.NO_PARENT, trace_context.NO_PARENT, ""]
        contexts = [entry.request.request_headers["traceparent"] for entry in found]
        assert contexts == [*("00-" + "-".join(context) for _, context in sent), VALID]


async def test_a_call_is_a_span() -> None:
    async with grpc_pod() as (app, channel):
        await traced(app)
        metadata = (("a", "1"), ("traceparent", VALID), ("tracestate", "x=1"))
        await channel.unary_unary("/echo/Unary")(b"x", metadata=metadata)
        heard = dict(line.decode().split(": ", 1) for line in app.laptop.heard)
        found = SENT.fullmatch(heard["traceparent"])
        assert found is not None
        assert (found[1], found[2] == SPAN, found[3], heard["tracestate"]) == (TRACE, False, "01", "x=1")


async def test_where_there_is_no_randomness_a_request_goes_on_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_context, "SCRIPT", trace_context.SCRIPT.replace("/dev/urandom", "/dev/nothing"))
    async with pod() as app:
        await traced(app)
        sent = request("traceparent: x", "tracestate: y=1")
        assert (await app.ask(sent)).endswith(b"laptop")
        assert app.laptop.heard == [sent]
