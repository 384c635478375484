"""``run --wait-for``: what may be waited for, and the program that waits."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from meshdev.cli import ready
from meshdev.cli.waiting import READY, WaitFor, WaitTarget, wait_target
from meshdev.errors import UsageError
from tests.cli.conftest import Commands


class Warming(BaseHTTPRequestHandler):
    """Answers 503 as often as its server says, then 204; and connects by CONNECT."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        server.asked.append(self.path)
        self.send_response(503 if len(server.asked) <= server.cold else 204)
        self.end_headers()

    def do_CONNECT(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        server.asked.append(self.path)
        self.send_response(200 if self.path == "b:5432" else 502)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(HTTPServer):
    def __init__(self, cold: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), Warming)
        self.cold = cold
        self.asked: list[str] = []

    @property
    def at(self) -> str:
        return f"127.0.0.1:{self.server_port}"


@contextmanager
def serving(cold: int = 0) -> Iterator[Server]:
    with Server(cold) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("http://b/ready?full=1", WaitTarget("b", 0, "http://b/ready?full=1")),
        ("https://b.team-1:8443/", WaitTarget("b.team-1", 8443, "https://b.team-1:8443/")),
        ("db-0.db:5432", WaitTarget("db-0.db", 5432)),
        ("10.96.0.1:443", WaitTarget("10.96.0.1", 443)),
        ("[::1]:80", WaitTarget("::1", 80)),
    ],
)
def test_what_may_be_waited_for(text: str, found: WaitTarget) -> None:
    assert wait_target(text) == found
    assert wait_target(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        "b:",
        "b:http",
        "b:0",
        "b:70000",
        ":80",
        "b:80/x",
        "u@b:80",
        "ftp://b/",
        "file:///etc/passwd",
        "http://",
        "http://[b/",
        "http://b/\n",
        "http://b/ x",
    ],
)
def test_what_may_not(text: str) -> None:
    with pytest.raises(UsageError, match="invalid --wait-for"):
        wait_target(text)


def test_the_program_waits_until_all_answer(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(cold=3) as server:
        assert ready.main(["20", f"http://{server.at}/ready", server.at]) == 0
        assert server.asked == ["/ready"] * 4
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("target", "why"), [("http://{at}/", "HTTP 503"), ("{closed}", "Connection refused")])
def test_it_gives_up_in_time_and_says_why(target: str, why: str, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(cold=1000) as server:
        asked = target.format(at=server.at, closed=f"127.0.0.1:{closed_port()}")
        assert ready.main(["0.3", asked]) == 1
    assert capfd.readouterr().err == f"meshdev: {asked} is not ready after 0.3 s: {why}\n"


def test_the_environments_proxy_is_none_of_its_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    with serving() as server:
        assert ready.main(["5", f"http://{server.at}/"]) == 0


def test_by_a_proxy_names_are_the_proxys(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as proxy:
        assert ready.main(["--proxy", proxy.at, "5", "http://b/", "b:5432"]) == 0
        assert proxy.asked == ["http://b/", "b:5432"]
        assert ready.main(["--proxy", proxy.at, "0", "c:5432"]) == 1
    assert "c:5432 is not ready after 0 s: Tunnel connection failed: 502" in capfd.readouterr().err


def test_its_command_is_the_program() -> None:
    with serving() as server:
        command = WaitFor((f"http://{server.at}/",), 5.0).command(None)
        assert command[:4] == [sys.executable, "-P", "-m", READY]
        assert subprocess.run(command, check=False, timeout=30).returncode == 0


def test_run_starts_its_program_when_it_is_time(meshdev: Commands, tmp_path: Path) -> None:
    started = tmp_path / "started"
    with serving(cold=2) as server:
        ran = meshdev("run", "--wait-for", f"http://{server.at}/", "--", "touch", str(started))
        assert (ran.code, len(server.asked)) == (0, 3), ran.err
    assert started.exists()
    never = meshdev("run", "--wait-for", f"127.0.0.1:{closed_port()}", "--wait-timeout", "200ms", "--", "touch", "no")
    assert (never.code, never.out) == (125, "")
    assert "is not ready after 0.2 s: Connection refused" in never.err
    wrong = meshdev("run", "--wait-for", "b", "--", "true")
    assert (wrong.code, "invalid --wait-for 'b'" in wrong.err) == (125, True)
