"""connect: the story, the answer, who wins, and what every way of ending it leaves behind."""

import contextlib
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Commands


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_it_tells_a_story_and_leaves(meshdev: Commands) -> None:
    ran = meshdev("connect", "--context", "dev", "-n", "team-1")
    assert ran.code == 0, ran.err
    assert ran.err.splitlines() == [
        "step0      value 0 (50 ms)",
        "waiting: for the next",
        "step1      value 1 (50 ms)",
    ]
    assert ran.out.startswith("Connected to dev, namespace team-1\n")
    assert not _gone(meshdev.pids()[0])


def test_a_connection_that_exists_serves_no_other_metrics(meshdev: Commands) -> None:
    serving = {"status": {"metrics": "http://127.0.0.1:9190/metrics"}}
    meshdev.env["FAKE_SESSION"] = json.dumps(serving)
    assert meshdev("connect", "--metrics-port", "9190").code == 0
    for port, code in (("9190", 0), ("919", 56), ("9191", 56)):
        ran = meshdev("connect", "--metrics-port", port)
        assert ran.code == code, ran.err
    assert "http://127.0.0.1:9190/metrics" in ran.err
    assert "meshdev disconnect" in ran.err


def test_a_connection_that_exists_sends_spans_nowhere_else(meshdev: Commands) -> None:
    url = "http://localhost:4318"
    meshdev.env["FAKE_SESSION"] = json.dumps({"status": {"otlp": url}})
    assert meshdev("connect", "--otlp", url).code == 0
    for other, code in ((url, 0), ("grpc://localhost", 56)):
        ran = meshdev("connect", "--otlp", other)
        assert ran.code == code, ran.err
    assert url in ran.err
    assert "meshdev disconnect" in ran.err


def test_the_answer_as_json(meshdev: Commands) -> None:
    ran = meshdev("connect", "-o", "json")
    assert ran.code == 0, ran.err
    assert ran.json()["state"] == "connected"
    assert ran.json()["pids"]["session"] == meshdev.pids()[0]


def test_everything_asked_for_arrives(meshdev: Commands) -> None:
    meshdev.env["KUBECONFIG"] = "/etc/one::relative"
    file = ["--kubeconfig", "file"]
    meshdev.env["MESHDEV_IMAGE"] = "registry/image:1"
    words = ["--as", "jane", "--request-timeout", "1m30s", "--manager-namespace", "ops", "--image-pull-secret", "pull"]
    words += ["--carrier", "websocket", "--also", "10.20.0.1/16", "--also", "10.1.2.3", "--never", "10.20.30.0/24"]
    words += ["--metrics-port", "9190", "--otlp", "http://localhost:4318", "--otlp-logs"]
    meshdev.env["OTEL_EXPORTER_OTLP_HEADERS"] = "authorization=Bearer%20abc"
    assert meshdev("connect", *file, *words, "--upgrade", "--unguarded", "--carriers", "3").code == 0
    line = next(line for line in meshdev.trace() if line.startswith("options "))
    assert json.loads(line.removeprefix("options "))["connect"] == {
        "kubeconfig": f"{Path.cwd()}/file",
        "context": None,
        "namespace": None,
        "as_user": "jane",
        "directory": str(Path.cwd()),
        "request_timeout": 90.0,
        "manager_namespace": "ops",
        "image": "registry/image:1",
        "image_pull_secret": "pull",
        "carrier": "websocket",
        "carriers": 3,
        "also": ["10.20.0.0/16", "10.1.2.3/32"],
        "never": ["10.20.30.0/24"],
        "upgrade": True,
        "unguarded": True,
        "debug": False,
        "metrics_port": 9190,
        "otlp": "http://localhost:4318",
        "otlp_logs": True,
    }
    environment = Path(f"/proc/{meshdev.pids()[0]}/environ").read_bytes().split(b"\0")
    assert f"KUBECONFIG=/etc/one:{Path.cwd()}/relative".encode() in environment
    assert b"OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20abc" in environment


@pytest.mark.parametrize(
    ("words", "found"),
    [(["--socks"], "127.0.0.1:1080"), (["--socks", "1081"], "127.0.0.1:1081"), (["--socks=[::1]:1"], "[::1]:1")],
)
def test_a_proxy_has_a_network_of_its_own(meshdev: Commands, words: list[str], found: str) -> None:
    meshdev.env["FAKE_ISOLATION"] = meshdev.env["FAKE_SUDO"] = "refused"
    ran = meshdev("connect", *words, "-o", "json")
    assert ran.code == 0, "sudo was asked"
    line = next(line for line in meshdev.trace() if line.startswith("options "))
    wanted = json.loads(line.removeprefix("options "))["connect"]
    assert (wanted["socks"], wanted["isolated"]) == (found, True)


def test_a_proxy_where_there_is_none(meshdev: Commands) -> None:
    ran = meshdev("connect", "--socks", "-o", "json")
    assert (ran.code, ran.json()["error"]["code"]) == (57, "isolation")
    assert meshdev.pids() == []


def test_nothing_of_the_caller_stays_open(meshdev: Commands) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    process = meshdev.start("connect", pass_fds=(writer,))
    os.close(writer)
    assert meshdev.finish(process).code == 0
    os.set_blocking(reader, False)
    assert os.read(reader, 1) == b""  # end of file: no process has the other end any more
    os.close(reader)
    pid = meshdev.pids()[0]
    opened = {int(fd.name): str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    assert opened[0] == "/dev/null"
    assert opened[1] == opened[2] == str(meshdev.paths.log)
    assert os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/cwd").resolve() == Path("/")
    assert meshdev.paths.log.stat().st_mode & 0o777 == 0o600
    assert meshdev.paths.directory.stat().st_mode & 0o777 == 0o700


def test_the_second_time_it_is_connected_already(meshdev: Commands) -> None:
    assert meshdev("connect").code == 0
    ran = meshdev("connect")
    assert (ran.code, ran.out) == (0, "Already connected to dev, namespace default\n")
    assert meshdev("connect", "-n", "default", "-o", "json").json()["state"] == "connected"
    assert len(meshdev.pids()) == 1


@pytest.mark.parametrize("words", [("-n", "other"), ("--context", "prod")])
def test_another_connection_is_named(meshdev: Commands, words: tuple[str, str]) -> None:
    assert meshdev("connect").code == 0
    ran = meshdev("connect", *words)
    assert ran.code == 56
    assert "connected to dev, namespace default" in ran.err
    assert "meshdev disconnect" in ran.err


def test_the_kubeconfig_says_what_no_flag_says(meshdev: Commands) -> None:
    meshdev.plan(status={"server": "https://one:6443"})
    config = """
current-context: dev
contexts: [{name: dev, context: {cluster: dev, namespace: NAMESPACE}}]
clusters: [{name: dev, cluster: {server: "SERVER"}}]
"""
    file = meshdev.home / "config"
    assert meshdev("connect").code == 0
    for namespace, server, code in (
        ("default", "https://one:6443", 0),
        ("team-1", "https://one:6443", 56),
        ("default", "https://two:6443", 56),
    ):
        file.write_text(config.replace("NAMESPACE", namespace).replace("SERVER", server))
        assert meshdev("connect").code == code


def test_a_session_that_is_ending_is_no_connection(meshdev: Commands) -> None:
    meshdev.plan(status={"state": "disconnected"})
    meshdev("connect")
    second = meshdev.start("connect")
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(0.5)
    os.kill(meshdev.pids()[0], signal.SIGKILL)
    ran = meshdev.finish(second)
    assert (ran.code, ran.out.split()[0]) == (0, "Disconnected"), ran  # the fake's state; it is not "Already"
    assert len(meshdev.pids()) == 2


def test_a_stale_socket_is_no_session(meshdev: Commands) -> None:
    meshdev.paths.directory.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(meshdev.paths.socket))
    assert meshdev("status", "-o", "json").json()["state"] == "disconnected"
    assert meshdev("connect").code == 0


def test_two_at_once_make_one_session(meshdev: Commands) -> None:
    meshdev.plan(start_seconds=0.5, step_seconds=0.2)
    both = [meshdev.finish(process) for process in [meshdev.start("connect"), meshdev.start("connect")]]
    assert [ran.code for ran in both] == [0, 0], both
    assert len(meshdev.pids()) == 1
    assert sorted(ran.out.split()[0] for ran in both) == ["Already", "Connected"]


def test_the_second_hears_that_the_first_failed(meshdev: Commands) -> None:
    meshdev.plan(fail_after=1, fail_heard=True)
    first = meshdev.start("connect")
    meshdev.wait_for_trace("options")
    second = meshdev("connect")
    assert meshdev.finish(first).code == 34
    assert second.code == 1
    assert "another connect" in second.err


def test_the_sessions_error_is_ours(meshdev: Commands) -> None:
    meshdev.plan(fail_after=1)
    ran = meshdev("connect")
    assert ran.code == 34
    assert ran.err.splitlines()[-2:] == ["meshdev: the pod does not start: CrashLoopBackOff", "look at its log"]
    ran = meshdev("connect", "-o", "json")
    assert ran.code == 34
    assert ran.json() == {
        "error": {
            "code": "manager",
            "message": "the pod does not start: CrashLoopBackOff",
            "hint": "look at its log",
        }
    }


def test_a_session_that_crashes_points_to_its_log(meshdev: Commands) -> None:
    meshdev.plan(crash_after=1)
    ran = meshdev("connect")
    assert ran.code == 1
    assert str(meshdev.paths.log) in ran.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["start", "options", "step0"])
def test_interrupted_it_waits_until_everything_is_undone(meshdev: Commands, number: int, moment: str) -> None:
    meshdev.plan(hold=moment, undo_seconds=0.5)
    process = meshdev.start("connect")
    meshdev.wait_for_trace(moment)
    process.send_signal(number)
    ran = meshdev.finish(process)
    assert ran.code == 130, ran.err
    assert meshdev.trace()[-2:] == ["cancelled", "undone"]
    assert "everything is undone" in ran.err
    assert _gone(meshdev.pids()[0])
    assert meshdev("status", "-o", "json").json()["state"] == "disconnected"


@pytest.mark.parametrize("seconds", [0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6])
def test_whenever_it_is_interrupted_the_exit_code_tells_the_truth(meshdev: Commands, seconds: float) -> None:
    meshdev.plan(step_seconds=0.1)
    process = meshdev.start("connect")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.send_signal(signal.SIGINT)
    ran = meshdev.finish(process)
    state = meshdev("status", "-o", "json").json()["state"]
    assert (ran.code, state) in {(130, "disconnected"), (0, "connected")}, ran
    assert "Traceback" not in ran.err
    assert (ran.code == 0) == ran.out.startswith("Connected")


def test_interrupted_when_it_was_just_done(meshdev: Commands) -> None:
    meshdev.plan(hold="options", done_when_cancelled=True)
    process = meshdev.start("connect")
    meshdev.wait_for_trace("options")
    process.send_signal(signal.SIGINT)
    assert meshdev.finish(process).code == 130
    assert meshdev.trace()[-2:] == ["disconnect", "undone"]


def test_a_session_that_does_not_end_is_killed(meshdev: Commands) -> None:
    meshdev.env["FAKE_SHORT"] = "1"
    meshdev.plan(hold="options", deaf=True)
    process = meshdev.start("connect")
    meshdev.wait_for_trace("options")
    process.send_signal(signal.SIGINT)
    ran = meshdev.finish(process)
    assert ran.code == 130
    assert "meshdev restore" in ran.err
    assert _gone(meshdev.pids()[0])


def test_a_second_interrupt_does_not_wait(meshdev: Commands) -> None:
    meshdev.plan(hold="options", deaf=True)
    process = meshdev.start("connect")
    meshdev.wait_for_trace("options")
    process.send_signal(signal.SIGINT)
    meshdev.wait_for_trace("deaf")
    process.send_signal(signal.SIGINT)
    ran = meshdev.finish(process, 3)
    assert ran.code == 130
    assert "meshdev restore" in ran.err


def test_killed_it_takes_the_session_along(meshdev: Commands) -> None:
    meshdev.plan(hold="options")
    process = meshdev.start("connect")
    meshdev.wait_for_trace("options")
    process.kill()
    meshdev.finish(process)
    meshdev.wait_for(lambda: meshdev.trace()[-1] == "undone")
    assert meshdev("status", "-o", "json").json()["state"] == "disconnected"


def test_the_helpers_own_error_is_told(meshdev: Commands) -> None:
    error = {"code": "device", "message": "there is no /dev/net/tun", "hint": "modprobe tun"}
    meshdev.env["FAKE_HELPER_ERROR"] = json.dumps({"error": error})
    ran = meshdev("connect", "-o", "json")
    assert ran.code == 51
    assert ran.json() == {"error": error}


def test_a_helper_that_falls_over_is_quoted(meshdev: Commands) -> None:
    meshdev.env["FAKE_HELPER_CRASH"] = "1"
    ran = meshdev("connect")
    assert ran.code == 52
    assert "it fell over" in ran.err
