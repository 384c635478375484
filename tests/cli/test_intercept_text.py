"""Intercepts in words, and the counts that change."""

import sys
from dataclasses import replace

import pytest

from meshdev.cli.counting import DRAW_SECONDS, LINE_SECONDS, Counting
from meshdev.cli.intercept_text import counts, identities, line, trial, up
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.modes import MESH, PROXY, Mode
from meshdev.wire.session_intercepts import InterceptRequest, PendingListener, PodIdentity
from tests.wire.test_session_intercepts import INTERCEPT as REPORTED

INTERCEPT = replace(REPORTED, pending_listeners=())
ASKED = InterceptRequest(target="svc/front", mode=MESH, headers=("a=1",))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (ASKED, "-H 'a: 1' http://b.default/"),
        (replace(ASKED, headers=("X-User=jane doe", "b")), "-H 'x-user: jane doe' -H 'b: 1' http://b.default/"),
        (replace(ASKED, headers=("x~[0-9]+", "e=")), "-H 'x: …' -H 'e;' http://b.default/"),
        (replace(ASKED, headers=(), path_prefix="/v1", method="post"), "-X POST http://b.default/v1"),
        (
            replace(ASKED, headers=(), baggage=("u=1", "v=2"), tracestate=("t=3",)),
            "-H 'baggage: u=1,v=2' -H 'tracestate: t=3' http://b.default/",
        ),
        (InterceptRequest(target="deploy/b", mode=PROXY), "http://b.default/"),
    ],
)
def test_how_to_try_it(asked: InterceptRequest, expected: str) -> None:
    assert trial(INTERCEPT, asked) == f"curl {expected}"


@pytest.mark.parametrize(
    ("url", "mode", "expected"),
    [
        (None, MESH, None),  # no Service leads there: no name does
        ("http://b.default:8080/", MESH, "curl -H 'a: 1' http://b.default:8080/"),
        ("https://b.default/", MESH, None),  # TLS: what is inside cannot match
        ("https://b.default/", PROXY, "curl -k https://b.default/"),
        ("h2c://b.default:81/", MESH, "curl --http2-prior-knowledge -H 'a: 1' http://b.default:81/"),
        ("grpc://b.default:50051/", MESH, "grpcurl -plaintext -H 'a: 1' b.default:50051 list"),
        ("tcp://db.default:5432/", MESH, None),  # no request of a database matches
        ("tcp://db.default:5432/", PROXY, "nc -v db.default 5432"),
        ("carrier-pigeon://b.default/", MESH, None),
    ],
)
def test_a_trial_speaks_what_the_port_speaks(url: str | None, mode: Mode, expected: str | None) -> None:
    asked = replace(ASKED, mode=mode, headers=ASKED.headers if mode.needs_match else ())
    assert trial(replace(INTERCEPT, url=url), asked) == expected
    lines = up(replace(INTERCEPT, url=url), asked).splitlines()
    assert [each for each in lines if each.startswith("Try it")] == ([f"Try it: {expected}"] if expected else [])


def test_up() -> None:
    assert up(INTERCEPT, ASKED).splitlines() == [
        "deployment/b in namespace default: requests with a=1 → this machine (ports 80 → 8080, 9090/udp → 9090)",
        "Nothing listens on 9090/udp yet: the original answers",
        "Try it: curl -H 'a: 1' http://b.default/",
        "Ctrl-C ends it",
    ]
    udp = replace(INTERCEPT, mode=PROXY, ports=("9090:9090/udp",), fallback=False, detached=True, url=None)
    assert up(udp, ASKED).splitlines() == [
        "deployment/b in namespace default: all traffic → this machine (port 9090/udp → 9090)",
        "Nothing listens on 9090/udp yet: the answer is 503",
        "`meshdev leave` ends it",
    ]


def test_counts_and_status() -> None:
    told = "3 matched, 2 fell back, 1 error, 1 of 2 pods, nothing listens on 9090/udp: the original answers"
    assert counts(INTERCEPT) == told
    plain = replace(INTERCEPT, counts=InterceptCounts(), local=(), total=1)
    assert counts(plain) == "0 matched, 0 fell back, 0 errors, 1 of 1 pod"
    where = "deployment/b in namespace default: mesh of a=1"
    assert line(INTERCEPT) == f"{where}, ports 80 → 8080, 9090/udp → 9090, {told}"
    assert line(replace(INTERCEPT, state="pending")).startswith(f"{where} (pending), ")


def test_a_port_on_which_nothing_listens_in_the_pods() -> None:
    one = replace(
        INTERCEPT, local=(), pending_listeners=(PendingListener(9999, "tcp", 2), PendingListener(53, "udp", 1))
    )
    told = "pending listener: 9999/tcp in 2 of 2 pods, 53/udp in 1 of 2 pods"
    assert up(one, ASKED).splitlines()[0].endswith(f"(ports 80 → 8080, 9090/udp → 9090; {told})")
    assert counts(one).endswith(f", 1 of 2 pods, {told}")
    assert any(each.startswith("Try it: ") for each in up(one, ASKED).splitlines())
    idle = replace(one, state="pending")
    assert not any(each.startswith("Try it: ") for each in up(idle, ASKED).splitlines())


def test_of_many_pods_the_first_identities_are_shown() -> None:
    some = tuple(PodIdentity(f"b-{number:02}", f"spiffe://m/{number}\n") for number in range(12))
    assert identities(replace(INTERCEPT, identities=some[:1])) == [("identity", r"b-00: spiffe://m/0\n")]
    shown = identities(replace(INTERCEPT, identities=some))
    assert [name for name, _ in shown] == ["identity"] * 10 + [""]
    assert shown[-1][1] == "and 2 more (status -o json)"


class Clock:
    """A time that stands still."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_a_line_now_and_then_and_the_newest_at_last(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    counting = Counting(clock)
    for text in ("1", "1", "2", "3"):
        counting.show(text)
    assert counting.due() == LINE_SECONDS
    counting.tick()
    assert capsys.readouterr().err == "1\n"
    clock.now += LINE_SECONDS
    counting.tick()
    assert counting.due() is None
    assert capsys.readouterr().err == "3\n"
    counting.show("4")
    counting.show("3")
    assert counting.due() is None, "it is as it was told"
    counting.show("5")
    counting.end()
    assert capsys.readouterr().err == "5\n"


def test_on_a_terminal_it_stays_in_place(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "11")
    counting = Counting()
    counting.show("one")
    counting.show("a line that is\x1b too long")
    counting.end()
    counting.end()
    assert capsys.readouterr().err == "\r\x1b[Kone\r\x1b[Ka line tha\n"


def test_on_a_terminal_it_is_drawn_in_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "12")
    monkeypatch.setenv("LINES", "6")
    now = [0.0]
    counting = Counting(lambda: now[0])
    counting.show("0 matched")
    assert capsys.readouterr().err == "\r\x1b[K0 matched"
    counting.show_below(["one", "two: cut by columns"])
    counting.show("1 matched")
    assert capsys.readouterr().err == "", "not so soon"
    assert counting.due() == DRAW_SECONDS
    now[0] += DRAW_SECONDS
    counting.tick()
    assert capsys.readouterr().err == "\r\x1b[K1 matched\n\r\x1b[Kone\n\r\x1b[Ktwo: cut by"
    now[0] += DRAW_SECONDS
    counting.show_below(["one", "two: cut by columns"])
    assert counting.due() is None, "it is as it was"
    counting.show_below(["three", "four", "five"])
    drawn = "\x1b[2A\r\x1b[K1 matched\n\r\x1b[Kthree\n\r\x1b[Kfour\x1b[J"
    assert capsys.readouterr().err == drawn, "no more than there are lines"
    counting.end()
    assert capsys.readouterr().err == "\n"
    counting.show("2 matched")
    assert capsys.readouterr().err.startswith("\r\x1b[K2 matched\n"), "at once, and not over what stands there"


def test_without_a_terminal_nothing_is_below(capsys: pytest.CaptureFixture[str]) -> None:
    counting = Counting(lambda: 0.0)
    counting.show("1 matched")
    counting.show_below(["one"])
    counting.end()
    assert capsys.readouterr().err == "1 matched\n"
