"""Two SSH servers, the second one and what is behind it only seen by the first, and who logs in there."""

import os
import pty
import select
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from meshdev.errors import MeshdevError
from meshdev.ssh.jump import BastionProcess, Jump
from tests.netns.laptop import GATEWAY, Laptop
from tests.ssh_server import USER, SshServer, keygen

GATE_PORT: Final = 2222
BASTION_PORT: Final = 2223
SECONDS: Final = 20.0
CONFIG: Final = f"""
Host gate
  HostName {GATEWAY}
  Port {GATE_PORT}
Host bastion
  HostName 127.0.0.1
  Port {BASTION_PORT}
  ProxyJump gate
Host *
  User {USER}
  StrictHostKeyChecking yes
  HashKnownHosts no
  ServerAliveInterval 1
  ServerAliveCountMax 1
"""
#: Echoes what a connection brings.
ECHO: Final = """
import socket, threading
def echo(sock):
    while data := sock.recv(65536):
        sock.sendall(data)
listener = socket.create_server(("127.0.0.1", 7))
print("ready", flush=True)
while True:
    threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
"""


#: What a command does with a bastion: prints why it has none, or an echo.
COMMAND: Final = """
from meshdev.errors import MeshdevError
from meshdev.ssh.jump import opened
try:
    jump = opened("bastion")
    with jump.dial("127.0.0.1", 7, 20) as sock:
        sock.sendall(b"hello")
        print("echoed", sock.recv(5).decode())
except MeshdevError as error:
    print("error:", error.message, error.hint)
"""


class OnTerminal:
    """A program on a terminal of its own, which is typed on."""

    def __init__(self, laptop: Laptop, program: str = COMMAND) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            laptop.command("setsid", "--ctty", "--wait", sys.executable, "-c", program),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = ""

    def expect(self, text: str) -> None:
        """Read until *text* has been shown."""
        end = time.monotonic() + SECONDS
        while text not in self.seen:
            assert select.select([self._ours], [], [], end - time.monotonic())[0], self.seen
            try:
                self.seen += os.read(self._ours, 65536).decode(errors="replace")
            except OSError:  # EIO: it has ended
                raise AssertionError(f"{text!r} is not in {self.seen!r}") from None

    def type(self, text: str) -> None:
        """Type it."""
        os.write(self._ours, text.encode())

    def echoes(self) -> bool:
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


class World:
    """Both servers, and the home of who logs in: known hosts, one key that both accept, ssh_config."""

    def __init__(self, laptop: Laptop, gate: SshServer, bastion: SshServer, home: Path) -> None:
        self.laptop, self.gate, self.bastion, self.home = laptop, gate, bastion, home
        self.ssh = home / ".ssh"
        self.ssh.mkdir(mode=0o700)
        self.config = self.ssh / "config"
        self.config.write_text(CONFIG)
        self.key = self.ssh / "id_ed25519"
        for server in (gate, bastion):
            (server.folder / "authorized_keys").write_text("")
        self.accept(keygen(self.key))
        self.known = self.ssh / "known_hosts"
        self.know()

    def accept(self, public: Path) -> None:
        """Both servers accept that key, too."""
        for server in (self.gate, self.bastion):
            server.authorize(public)

    def know(self) -> None:
        """The keys of both servers as they are."""
        self.known.write_text("".join(f"{each.name} {each.host_key}\n" for each in (self.gate, self.bastion)))

    def start(self, target: str = "bastion") -> BastionProcess:
        """An SSH client on the laptop."""
        with self.laptop.inside():
            return BastionProcess(target)

    @contextmanager
    def opened(self, target: str = "bastion") -> Iterator[Jump]:
        """Logged in, without a question."""
        jump, _ = self.start(target).result()
        try:
            yield jump
        finally:
            jump.close()

    def error(self, target: str = "bastion") -> MeshdevError:
        """Why nobody is logged in."""
        with pytest.raises(MeshdevError) as caught:
            self.start(target).result()
        return caught.value


def echoed(jump: Jump, data: bytes = b"hello") -> bytes:
    """*data*, there and back."""
    with jump.dial("127.0.0.1", 7, SECONDS) as sock:
        sock.settimeout(SECONDS)
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        answer = bytearray()
        while len(answer) < len(data):
            answer += sock.recv(65536)
        sender.join()
        return bytes(answer)
