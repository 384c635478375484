"""proxy, mesh and leave: against a session that speaks the real protocol; what they say, when they end, what stays."""

import json
import os
import signal
import socket
import time
from typing import Any

import pytest

from meshdev.wire.modes import PROXY
from tests.cli.conftest import Commands, Terminal

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def state(meshdev: Commands) -> str:
    return str(meshdev("status", "-o", "json").json()["state"])


def asked(meshdev: Commands) -> Any:
    return json.loads(next(line for line in meshdev.trace() if line.startswith("asked ")).removeprefix("asked "))


def until_up(meshdev: Commands) -> None:
    meshdev.wait_for_trace("up")


def test_what_is_asked_for(meshdev: Commands) -> None:
    meshdev("connect")
    words = ["-H", "a=1", "--header", "x~[0-9]+", "--path-prefix", "/v1", "--method", "get", "--baggage", "user=me"]
    words += ["--tracestate", "t=1", "--port", "8080:http", "--port", "9090", "--strategy", "patch", "--takeover"]
    words += ["--existing", "reset", "--no-fallback", "--detach", "-n", "team-1"]
    assert meshdev("mesh", "svc/b", *words).code == 0
    assert asked(meshdev) == {
        "op": "intercept",
        "target": "svc/b",
        "namespace": "team-1",
        "mode": "mesh",
        "headers": ["a=1", "x~[0-9]+"],
        "path_prefix": "/v1",
        "method": "get",
        "baggage": ["user=me"],
        "tracestate": ["t=1"],
        "ports": ["8080:http", "9090"],
        "strategy": "patch",
        "takeover": True,
        "reset_existing": True,
        "fallback": False,
        "detach": True,
    }


def test_it_stays_until_ctrl_c_and_says_how_to_try_it(meshdev: Commands) -> None:
    meshdev("connect")
    process = meshdev.start("mesh", "deploy/b", "-H", "a=1")
    until_up(meshdev)
    meshdev.say("count")
    assert process.stderr is not None
    seen = ""
    while "3 matched" not in seen:
        seen += process.stderr.readline()
    process.send_signal(signal.SIGINT)
    ran = meshdev.finish(process)
    assert ran.code == 130
    assert ran.out.splitlines() == [
        "deployment/b in namespace default: requests with a=1 → this machine (port 80 → 8080)",
        "Nothing listens on 8080/tcp yet: the original answers",
        "Try it: curl -H 'a: 1' http://b.default/",
        "Ctrl-C ends it",
    ]
    assert "target     deploy/b, 2 pods" in seen
    assert "note: 1 older connection" in seen
    assert "3 matched, 0 fell back, 0 errors, 2 of 2 pods" in seen
    assert "left       deployment/b in namespace default" in ran.err
    assert meshdev.trace()[-2:] == ["hung up", "ended deploy/b"]
    assert state(meshdev) == "connected"


@pytest.mark.parametrize("number", SIGNALS)
def test_what_it_connected_it_disconnects(meshdev: Commands, number: int) -> None:
    process = meshdev.start("proxy", "deploy/b")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("deployment/b in namespace default: all traffic")
    process.send_signal(number)
    ran = meshdev.finish(process)
    assert ran.code == 130
    assert "Connected" not in ran.out
    assert meshdev.trace()[-4:] == ["hung up", "ended deploy/b", "disconnect", "undone"]
    assert state(meshdev) == "disconnected"


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("connected", [True, False])
def test_interrupted_before_it_is_up(meshdev: Commands, number: int, connected: bool) -> None:
    meshdev.plan(hold_intercepts=True)
    if connected:
        meshdev("connect")
    process = meshdev.start("proxy", "deploy/b", "-o", "json")
    meshdev.wait_for_trace("asked")
    process.send_signal(number)
    ran = meshdev.finish(process)
    assert ran.code == 130
    assert ran.json()["error"]["code"] == "cancelled"
    assert "everything is undone" in ran.json()["error"]["message"]
    assert "hung up" in meshdev.trace()
    assert state(meshdev) == ("connected" if connected else "disconnected")


@pytest.mark.parametrize("moment", ["start", "options", "step0"])
def test_interrupted_while_it_connects(meshdev: Commands, moment: str) -> None:
    meshdev.plan(hold=moment)
    process = meshdev.start("proxy", "deploy/b")
    meshdev.wait_for_trace(moment)
    process.send_signal(signal.SIGINT)
    assert meshdev.finish(process).code == 130
    assert meshdev.trace()[-2:] == ["cancelled", "undone"]
    assert state(meshdev) == "disconnected"


def test_killed_it_leaves_the_rest_to_the_session(meshdev: Commands) -> None:
    meshdev("connect")
    process = meshdev.start("proxy", "deploy/b")
    until_up(meshdev)
    process.kill()
    meshdev.finish(process)
    meshdev.wait_for_trace("ended deploy/b")


@pytest.mark.parametrize("connected", [True, False])
def test_what_is_refused_leaves_nothing(meshdev: Commands, connected: bool) -> None:
    meshdev.plan(refuse="deploy/b")
    if connected:
        meshdev("connect")
    ran = meshdev("mesh", "deploy/b", "-H", "a=1", "-o", "json")
    assert ran.code == 60
    assert ran.json() == {
        "error": {"code": "intercept", "message": "jane@host has it since 5 min: a=1", "hint": "--takeover"}
    }
    assert state(meshdev) == ("connected" if connected else "disconnected")


@pytest.mark.parametrize("connected", [True, False])
def test_detached_it_returns_and_everything_stays(meshdev: Commands, connected: bool) -> None:
    if connected:
        meshdev("connect")
    ran = meshdev("proxy", "deploy/b", "--detach", "-o", "json")
    assert ran.code == 0
    assert ran.json()["target"] == "deployment/b"
    assert ran.json()["pods"] == {"acked": 2, "total": 2}
    assert "hung up" not in meshdev.trace()
    status = meshdev("status", "-o", "json").json()
    assert status["state"] == "connected"
    assert [each["target"] for each in status["intercepts"]] == ["deployment/b"]
    text = meshdev("status").out
    assert "intercept  deployment/b in namespace default: proxy of all traffic, port 80 → 8080, 0 matched" in text


def test_json_says_it_is_up_while_it_stays(meshdev: Commands) -> None:
    meshdev("connect")
    process = meshdev.start("proxy", "deploy/b", "-o", "json")
    assert process.stdout is not None
    seen = ""
    while not seen.endswith("\n}\n"):
        seen += process.stdout.readline()
    assert json.loads(seen)["state"] == "active"
    process.send_signal(signal.SIGINT)
    ran = meshdev.finish(process)
    assert (ran.code, ran.out) == (130, "")


def test_taken_over_it_ends_with_that_error(meshdev: Commands) -> None:
    process = meshdev.start("proxy", "deploy/b")
    until_up(meshdev)
    meshdev.say("lose")
    ran = meshdev.finish(process)
    assert ran.code == 60
    assert ran.err.splitlines()[-1] == "meshdev: taken over by jane@host"
    assert state(meshdev) == "disconnected"


def test_left_by_another_command_it_ends(meshdev: Commands) -> None:
    meshdev("connect")
    process = meshdev.start("proxy", "deploy/b")
    until_up(meshdev)
    meshdev.say("end")
    ran = meshdev.finish(process)
    assert ran.code == 0
    assert "another command has ended it" in ran.err


def test_a_disconnect_elsewhere_ends_it(meshdev: Commands) -> None:
    meshdev("connect")
    process = meshdev.start("proxy", "deploy/b")
    until_up(meshdev)
    assert meshdev("disconnect").code == 0
    ran = meshdev.finish(process)
    assert ran.code == 130
    assert "disconnected" in ran.err


def test_a_session_that_dies_is_told(meshdev: Commands) -> None:
    meshdev("connect")
    process = meshdev.start("proxy", "deploy/b")
    until_up(meshdev)
    os.kill(meshdev.pids()[0], signal.SIGKILL)
    ran = meshdev.finish(process)
    assert ran.code == 40
    assert "the session ended without giving a reason" in ran.err


def test_what_cannot_be_left_is_told(meshdev: Commands) -> None:
    meshdev.plan(leave_fails=True)
    process = meshdev.start("proxy", "deploy/b")
    until_up(meshdev)
    process.send_signal(signal.SIGINT)
    ran = meshdev.finish(process)
    assert ran.code == 1
    assert "the Lease is still there" in ran.err
    assert state(meshdev) == "disconnected"


@pytest.mark.parametrize("again", [True, False])
def test_a_session_that_never_leaves_is_not_waited_for_for_ever(meshdev: Commands, again: bool) -> None:
    meshdev.plan(leave_seconds=-1)
    meshdev("connect")
    if not again:
        meshdev.env["FAKE_SHORT"] = "1"
    process = meshdev.start("proxy", "deploy/b")
    until_up(meshdev)
    process.send_signal(signal.SIGINT)
    meshdev.wait_for_trace("hung up")
    if again:
        process.send_signal(signal.SIGINT)
    ran = meshdev.finish(process, 5)
    assert ran.code == (130 if again else 40)
    assert "the session goes on undoing it" in ran.err


def test_another_cluster_is_refused_and_another_namespace_is_not(meshdev: Commands) -> None:
    meshdev("connect")
    ran = meshdev("proxy", "deploy/b", "--context", "prod", "--detach")
    assert ran.code == 56
    assert "connected to dev" in ran.err
    assert meshdev("proxy", "deploy/b", "-n", "team-1", "--detach").code == 0
    assert asked(meshdev)["namespace"] == "team-1"


def test_a_session_that_does_not_listen(meshdev: Commands) -> None:
    meshdev("connect")
    meshdev.paths.socket.unlink()
    meshdev.env["FAKE_SHORT"] = "1"
    assert meshdev("proxy", "deploy/b").code == 56


def test_a_session_that_goes_at_once(meshdev: Commands) -> None:
    from meshdev.cli.attach import Stream  # noqa: PLC0415 -- the rest here needs only processes
    from meshdev.errors import TunnelError  # noqa: PLC0415 -- the same
    from meshdev.wire.session_intercepts import InterceptRequest  # noqa: PLC0415 -- the same

    meshdev.paths.prepare()
    with pytest.raises(TunnelError, match="the session is not there"):
        Stream(meshdev.paths, InterceptRequest(target="deploy/b", mode=PROXY))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(meshdev.paths.socket))
        listener.listen()
        stream = Stream(meshdev.paths, InterceptRequest(target="deploy/b", mode=PROXY))
        client = listener.accept()[0]
        assert stream.read() == []
        client.sendall(b"nonsense\n")
        assert stream.read() == []
        assert stream.error is not None
        assert stream.error.code == "protocol"
        stream.close()
        client.close()


def test_counts_on_a_terminal_stay_in_their_line(meshdev: Commands) -> None:
    meshdev("connect")
    terminal = Terminal(meshdev, "mesh", "deploy/b", "-H", "a=1")
    until_up(meshdev)
    meshdev.say("count")
    terminal.read_until("\r\x1b[K3 matched")
    terminal.write("\x03")
    assert terminal.finish() == 130, terminal.seen
    assert "deployment/b in namespace default" in terminal.seen
    assert "Traceback" not in terminal.seen


def test_the_last_requests_on_a_terminal_are_below_the_counts(meshdev: Commands) -> None:
    meshdev("connect")
    terminal = Terminal(meshdev, "mesh", "deploy/b", "-H", "a=1")
    until_up(meshdev)
    terminal.read_until("GET    /mine")
    meshdev.say("count")
    terminal.read_until("\r\x1b[K3 matched")
    terminal.read_until("2 of 2 pods, nothing listens on 8080/tcp: the\r\n\r\x1b[K")
    terminal.write("\x03")
    assert terminal.finish() == 130
    assert "/api" not in terminal.seen, "it is not the intercept's"
    assert "Traceback" not in terminal.seen
    (asked,) = [json.loads(line[6:]) for line in meshdev.trace() if line.startswith("asked ") and "inspect" in line]
    assert asked == {
        "op": "inspect",
        "target": "deployment/b",
        "namespace": "default",
        "follow": True,
        "all": False,
        "values": False,
        "last": 5,
    }
    assert "nobody looks any more" in meshdev.trace()


@pytest.mark.parametrize("words", [("mesh", "deploy/b", "-H", "a=1", "-o", "json"), ("run", "--proxy", "deploy/b")])
def test_requests_are_for_people_on_a_terminal_only(meshdev: Commands, words: tuple[str, ...]) -> None:
    meshdev("connect")
    terminal = Terminal(meshdev, *words, *(["--", "sleep", "60"] if words[0] == "run" else []))
    until_up(meshdev)
    if words[0] != "run":
        meshdev.say("count")
        terminal.read_until("3 matched")
    terminal.write("\x03")
    terminal.finish()
    assert not [line for line in meshdev.trace() if "inspect" in line]


def test_without_a_terminal_no_requests_are_asked_for(meshdev: Commands) -> None:
    meshdev("connect")
    process = meshdev.start("mesh", "deploy/b", "-H", "a=1")
    until_up(meshdev)
    meshdev.say("count")
    assert process.stderr is not None
    while "3 matched" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    meshdev.finish(process)
    assert not [line for line in meshdev.trace() if "inspect" in line]


def test_leave(meshdev: Commands) -> None:
    for words in (("leave", "--all"), ("leave", "deploy/b")):
        ran = meshdev(*words)
        assert (ran.code, ran.out) == (0, "Nothing to leave\n")
    meshdev("proxy", "deploy/b", "--detach")
    ran = meshdev("leave", "svc/b", "-o", "json")
    assert (ran.code, ran.json()) == (0, {"left": ["deployment/b in namespace default"]})
    assert "leave svc/b" in meshdev.trace()
    ran = meshdev("leave", "--all")
    assert (ran.code, ran.out) == (0, "Nothing to leave\n")
    meshdev("proxy", "deploy/b", "--detach")
    assert meshdev("leave", "--all").out == "Left deployment/b in namespace default\n"
    assert state(meshdev) == "connected"


def test_leave_does_not_wait_for_a_session_that_hangs(meshdev: Commands) -> None:
    meshdev("connect")
    os.kill(meshdev.pids()[0], signal.SIGSTOP)
    started = time.monotonic()
    ran = meshdev("leave", "--all")
    assert ran.code == 40
    assert "meshdev disconnect" in ran.err
    assert time.monotonic() - started < 10
