"""Servers that want a password, or ask questions of their own: on the terminal, where nothing of it is shown."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import paramiko
import pytest
from paramiko.server import InteractiveQuery

from tests.netns.laptop import GATEWAY, Laptop
from tests.netns.ssh_world import OnTerminal
from tests.ssh_server import USER, SshServer

_PORT: Final = 2222
_PASSWORD: Final = "correct horse"  # noqa: S105 -- of servers that live for one test
#: Logs in, and dials when it is told to.
_PROGRAM: Final = """
from meshdev.errors import MeshdevError
from meshdev.ssh.jump import opened
try:
    jump = opened("bastion")
    input("logged in")
    jump.dial("127.0.0.1", 9, 20)
except MeshdevError as error:
    print("error:", error.message)
"""

#: Parts of one command that begin at the same time, as those of gather do.
_TOGETHER: Final = """
from concurrent.futures import ThreadPoolExecutor
from meshdev.errors import MeshdevError
from meshdev.ssh.jump import opened
with ThreadPoolExecutor(3) as threads:
    first, second, third = threads.map(opened, ["bastion"] * 3)
print("logged in")
first.close()
second.close()
try:
    third.dial("127.0.0.1", 9, 20)
except MeshdevError as error:
    print("error:", error.message)
third.close()
opened("bastion")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The .ssh of somebody without a key."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    ssh = tmp_path / ".ssh"
    ssh.mkdir(mode=0o700)
    (ssh / "config").write_text(f"Host bastion\n  HostName {GATEWAY}\n  Port {_PORT}\n  User {USER}\n")
    return ssh


def test_a_password_is_asked_for_once(laptop: Laptop, folder: Path) -> None:
    """A connection that is made again needs nobody."""
    server = SshServer(laptop.neighbour_command(), GATEWAY, _PORT, "PasswordAuthentication yes")
    server.set_password(_PASSWORD)
    (folder / "known_hosts").write_text(f"{server.name} {server.host_key}\n")
    with closing(server), closing(OnTerminal(laptop, _PROGRAM)) as running:
        running.expect(f"{USER}@{GATEWAY}:{_PORT}'s password: ")
        assert not running.echoes()
        running.type("wrong\n")
        running.expect("\r\n" + f"{USER}@{GATEWAY}:{_PORT}'s password: ")
        running.type(f"{_PASSWORD}\n")
        running.expect("logged in")
        server.kill_connections()
        running.type("\n")
        running.expect("has no connection to 127.0.0.1:9: Connect")
        assert server.log().count("Accepted password") == 2
        assert _PASSWORD not in running.seen


def test_parts_of_a_command_log_in_once(laptop: Laptop, folder: Path) -> None:
    server = SshServer(laptop.neighbour_command(), GATEWAY, _PORT, "PasswordAuthentication yes")
    server.set_password(_PASSWORD)
    (folder / "known_hosts").write_text(f"{server.name} {server.host_key}\n")
    prompt = f"{USER}@{GATEWAY}:{_PORT}'s password: "
    with closing(server), closing(OnTerminal(laptop, _TOGETHER)) as running:
        running.expect(prompt)
        running.type(f"{_PASSWORD}\n")
        running.expect("logged in")
        running.expect("has no connection to 127.0.0.1:9: Connect")
        assert running.seen.count(prompt) == 1
        running.expect("Connect failed\r\n" + prompt)  # none is open any more
        assert server.log().count("Accepted password") == 1
        assert not running.echoes()


class Questions(paramiko.ServerInterface):
    """Asks for a code, and for a colour that may be seen."""

    def __init__(self) -> None:
        self.answers: list[str] = []

    def get_allowed_auths(self, username: str) -> str:
        assert username == USER
        return "keyboard-interactive"

    def check_auth_interactive(self, username: str, submethods: str) -> int | InteractiveQuery:  # noqa: ARG002 -- its signature
        assert username == USER
        return InteractiveQuery("Two \x1b[31mquestions", "", ("Code: ", False), ("Colour: ", True))

    def check_auth_interactive_response(self, responses: list[str]) -> int | InteractiveQuery:
        self.answers = responses
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        assert (chanid, origin[0], destination) == (0, "127.0.0.1", ("127.0.0.1", 9))
        return paramiko.common.OPEN_FAILED_CONNECT_FAILED


@pytest.fixture
def questions(laptop: Laptop, folder: Path) -> Iterator[Questions]:
    """paramiko's server: OpenSSH's asks by PAM only, which is the machine's."""
    key = paramiko.ECDSAKey.generate()
    (folder / "known_hosts").write_text(f"[{GATEWAY}]:{_PORT} {key.get_name()} {key.get_base64()}\n")
    made = Questions()
    with laptop.inside(neighbour=True):
        listener = socket.create_server((GATEWAY, _PORT))

    def serve() -> None:
        sock, _ = listener.accept()
        transport = paramiko.Transport(sock)
        transport.add_server_key(key)
        transport.start_server(server=made)
        transport.join()

    thread = threading.Thread(target=serve)
    thread.start()
    yield made
    listener.close()
    thread.join()


def test_questions_of_the_server_are_asked(laptop: Laptop, questions: Questions) -> None:
    with closing(OnTerminal(laptop, _PROGRAM)) as running:
        running.expect(f"Two \\x1b[31mquestions\r\n({USER}@{GATEWAY}:{_PORT}) Code: ")
        assert not running.echoes()
        running.type("123456\n")
        running.expect(f"({USER}@{GATEWAY}:{_PORT}) Colour: ")
        assert running.echoes()
        running.type("blue\n")
        running.expect("logged in")
        running.type("\n")
        running.expect("has no connection to 127.0.0.1:9")
        assert questions.answers == ["123456", "blue"]
        assert "123456" not in running.seen
