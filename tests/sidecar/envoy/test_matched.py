"""Which end answers: matches and their order, probes, programs that are not there, and who is told what."""

import pytest

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.sidecar.envoy import stats
from meshdev.sidecar.envoy.routes import FALLBACK_BYTES
from meshdev.wire.agent import Probe
from meshdev.wire.counts import Counts
from tests.sidecar.pod import FIRST, SECOND, THIRD, End, Pod, pod

MINE = Match(headers=(HeaderMatch("a", "exact", "1"),))


async def counts(app: Pod) -> dict[str, Counts]:
    return stats.read(await app.envoy.admin(stats.TARGET)).intercepts


def put(size: int, *lines: str) -> bytes:
    head = ("PUT / HTTP/1.1", "Host: b", f"Content-Length: {size}", *lines, "", "")
    return "\r\n".join(head).encode() + bytes(size)


CASES: list[tuple[Match, list[tuple[str, bool]]]] = [
    (MINE, [("A: 1", True), ("a: 1", True), ("A: 2", False), ("A: 11", False), ("B: 1", False), ("A:", False)]),
    (
        Match(headers=(HeaderMatch("a", "regex", "v[0-9]+"),)),
        [("A: v12", True), ("A: xv1", False), ("A: v1x", False)],
    ),
    (Match(headers=(HeaderMatch("a", "present"),)), [("A: ", True), ("A: x", True), ("B: x", False)]),
    (
        Match(headers=(HeaderMatch("a", "exact", "1"), HeaderMatch("b", "present"))),
        [("A: 1\r\nB: 2", True), ("A: 1", False), ("B: 2", False)],
    ),
    (
        Match(baggage=(("user", "me.x"),)),
        [
            *(("Baggage: user=me.x", True), ("Baggage: a=b, user = me.x ;p=1;q , c=d", True)),
            *(("Baggage: a=b\r\nBaggage: user=me.x", True), ("Baggage: user=meyx", False)),
            *(("Baggage: xuser=me.x", False), ("Baggage: user=me.xy", False), ("Baggage: a=user=me.x", False)),
        ],
    ),
    (
        Match(tracestate=(("dev@org", "me"),)),
        [
            *(("Tracestate: dev@org=me", True), ("Tracestate: x=1,\t dev@org=me ,y=2", True)),
            *(("Tracestate: dev@org=mex", False), ("Tracestate: edev@org=me", False)),
        ],
    ),
    (
        Match(headers=(HeaderMatch("x-forwarded-proto", "present"),)),
        [("X-Forwarded-Proto: https", True), ("A: 1", False)],
    ),
    (Match(headers=(HeaderMatch("x-envoy-retry-on", "exact", "5xx"),)), [("X-Envoy-Retry-On: 5xx", True)]),
    # To Envoy each byte is a character, so classes of others than ASCII's stand for half of one.
    (Match(headers=(HeaderMatch("a", "regex", "é|ü"),)), [("A: ü", True)]),
    (Match(headers=(HeaderMatch("a", "regex", "[é-ü]"),)), [("A: é", False), ("A: ü", False)]),
    # The largest programs that are accepted.
    (Match(headers=(HeaderMatch("a", "regex", "(?i)[acegikm]{1000}"),)), [("A: " + "aceG" * 250, True)]),
    (Match(headers=(HeaderMatch("a", "regex", "[!#%')+/13579;=?éüö]{333}"),)), [("A: " + "1" * 333, True)]),
    (
        Match(headers=(HeaderMatch("a", "regex", "(?:" + "|".join(["abcdefghij"] * 90) + ")"),)),
        [("A: abcdefghij", True)],
    ),
]


async def test_what_matches() -> None:
    async with pod() as app:
        for match, requests in CASES:
            app.claim(match)
            await app.serve()
            for lines, matches in requests:
                answer = await app.ask(f"GET / HTTP/1.1\r\nHost: b\r\n{lines}\r\n\r\n".encode())
                assert (answer[-6:] == b"laptop") == matches, (match, lines)


async def test_path_and_method() -> None:
    async with pod() as app:
        app.claim(Match(path_prefix="/api", method="POST"))
        await app.serve()
        for line, end in (
            *(
                ("POST /api", "laptop"),
                ("POST /api/x?y", "laptop"),
                ("POST /apix", "laptop"),
                ("POST /v2/api", "original"),
            ),
            *(("GET /api", "original"), ("POST /API", "original")),
        ):
            answer = await app.ask(f"{line} HTTP/1.1\r\nHost: b\r\n\r\n".encode())
            assert answer.endswith(end.encode()), line


async def test_the_most_specific_match_wins() -> None:
    second, third = End("second"), End("third")
    await second.start()
    await third.start()
    async with pod() as app:
        app.claim(Match(headers=(HeaderMatch("a", "present"),)), name=FIRST)
        app.claim(Match(headers=(HeaderMatch("a", "regex", "[0-9]"),)), name=SECOND, to=second)
        app.claim(Match(headers=(HeaderMatch("a", "exact", "1"),), path_prefix="/x"), name=THIRD, to=third)
        await app.serve()
        assert await app.get("/x", a="1") == "third"
        assert await app.get("/", a="1") == "second"
        assert await app.get("/x", a="z") == "laptop"
        assert await app.get("/x") == "original"
        found = await counts(app)
        assert {name[0]: each.matched for name, each in found.items()} == {"a": 1, "b": 1, "c": 1}
    await second.stop()
    await third.stop()


@pytest.mark.parametrize("match", [MINE, None])
async def test_while_one_takes_over_from_another_the_newest_is_right(match: Match | None) -> None:
    second = End("second")
    await second.start()
    async with pod() as app:
        app.claim(match, name=THIRD)
        app.claim(match, name=FIRST, to=second)
        await app.serve()
        assert await app.get(a="1") == "second"
        app.claim(match, name=FIRST, to=second, up=False)
        await app.serve()
        assert await app.get(a="1") == "original"
        del app.claims[FIRST]
        await app.serve()
        assert await app.get(a="1") == "laptop"
    await second.stop()


async def test_a_match_that_changes_takes_effect_at_once() -> None:
    async with pod() as app:
        app.claim(MINE)
        await app.serve()
        assert [await app.get(a="1"), await app.get(a="2")] == ["laptop", "original"]
        app.claim(Match(headers=(HeaderMatch("a", "exact", "2"),)))
        await app.serve()
        assert [await app.get(a="1"), await app.get(a="2")] == ["original", "laptop"]
        app.claims.clear()
        await app.serve(keep=app.wanted)
        assert await app.get(a="2") == "original"


async def test_probes_see_the_original() -> None:
    async with pod() as app:
        app.probes = (Probe(app.port.number, "/healthz"), Probe(app.port.number, "/grpc.health.v1.Health/Check"))
        app.claim()
        await app.serve()
        probe = {"User_Agent": "kube-probe/1.35"}
        assert await app.get("/healthz?full", **probe) == "original"
        assert await app.get("/grpc.health.v1.Health/Check", **probe) == "original"
        assert await app.get("/healthz", User_Agent="curl") == "laptop"
        assert await app.get("/", **probe) == "laptop"


async def test_a_probe_may_come_without_a_user_agent() -> None:
    async with pod() as app:
        app.probes = (Probe(app.port.number, "/healthz", ""),)
        app.claim()
        await app.serve()
        assert await app.get("/healthz") == "original"
        assert await app.get("/healthz", User_Agent="curl") == "laptop"


@pytest.mark.parametrize("size", [0, 1, 100_000, FALLBACK_BYTES])
async def test_a_program_that_just_went_costs_no_request(size: int) -> None:
    async with pod() as app:
        app.claim(MINE)
        await app.serve()
        await app.laptop.stop()
        for _ in range(3):
            assert (await app.ask(put(size, "A: 1"))).endswith(b"\r\n\r\noriginal")
        assert (await counts(app))[FIRST] == Counts(3, 3, 0)
        await app.laptop.start()
        assert (await app.ask(put(size, "A: 1"))).endswith(b"\r\n\r\nlaptop")


async def test_a_body_too_large_to_be_kept_is_refused_not_lost() -> None:
    async with pod() as app:
        app.claim(MINE)
        await app.serve()
        await app.laptop.stop()
        answer = await app.ask(put(4 * FALLBACK_BYTES, "A: 1"))
        if app.original.heard:  # the laptop refused before there was too much: the original got the whole body
            assert answer.startswith(b"HTTP/1.1 200 ")
        else:  # as it came: before or after the refusal
            assert answer.startswith((b"HTTP/1.1 503 ", b"HTTP/1.1 507 "))


async def test_a_program_that_is_known_to_be_down_is_not_tried() -> None:
    async with pod() as app:
        app.claim(MINE, up=False)
        await app.serve()
        assert (await app.ask(put(4 * FALLBACK_BYTES, "A: 1"))).endswith(b"original")
        assert (await counts(app))[FIRST] == Counts(1, 1, 0)
        app.claim(MINE, up=True)
        await app.serve()
        assert await app.get(a="1") == "laptop"
        assert (await counts(app))[FIRST] == Counts(2, 1, 0)


@pytest.mark.parametrize("up", [True, False])
async def test_without_fallback_the_answer_says_so(up: bool) -> None:
    async with pod() as app:
        app.claim(MINE, fallback=False, up=up)
        await app.serve()
        await app.laptop.stop()
        answer = await app.ask(b"GET / HTTP/1.1\r\nHost: b\r\nA: 1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        said = f"meshdev: no program of a@laptop answers for port {app.port}, and this intercept has no fallback"
        assert said.encode() in answer
        assert await app.get() == "original"
        assert (await counts(app))[FIRST] == Counts(1, 0, 1)


async def test_everything_goes_to_the_laptop_in_proxy_mode() -> None:
    async with pod() as app:
        app.claim()
        await app.serve()
        assert [await app.get(), await app.get("/x", a="1")] == ["laptop", "laptop"]
        await app.laptop.stop()
        assert await app.get() == "original"


async def test_an_app_that_is_not_there() -> None:
    async with pod() as app:
        app.claim(MINE)
        await app.serve()
        await app.original.stop()
        answer = await app.ask(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"meshdev: the original: " in answer


async def test_an_idle_connection_that_the_app_closed_costs_no_request() -> None:
    async with pod() as app:
        app.claim(MINE)
        await app.serve()
        reader, writer = await app.connect()
        for _ in range(20):
            writer.write(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n")
            assert (await reader.readuntil(b"original")).startswith(b"HTTP/1.1 200 OK\r\n")
            await app.original.stop()
            await app.original.start()
            await app.envoy.has_closed("original")
        writer.close()
