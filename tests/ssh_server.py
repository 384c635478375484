"""A real sshd, as an ordinary user, with a configuration of its own: nothing of the machine's is touched."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.cluster.packages import unpacked_with_dependencies

#: Who sshd runs as, and so the only one who may log in: an account that it alone sees. No shell is needed to forward.
USER: Final = "jump"
_UID: Final = 65534
_PASSWD: Final = f"root:x:0:0::/root:/bin/sh\n{USER}:x:{_UID}:{_UID}::/nonexistent:/bin/false\n"
_WITH_ACCOUNTS: Final = 'mount --bind "$1/passwd" /etc/passwd; mount --bind "$1/shadow" /etc/shadow; shift; exec "$@"'
_SECONDS: Final = 10.0


class SshServer:
    """An sshd where *enter* leads to, at *address*. ``folder`` is readable by all. Close it."""

    def __init__(self, enter: Sequence[str], address: str, port: int, *settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="meshdev-sshd-"))
        self.folder.chmod(0o755)
        self.address, self.port = address, port
        self._enter = tuple(enter)
        self._settings = settings
        self.new_host_key()
        (self.folder / "authorized_keys").touch()
        (self.folder / "passwd").write_text(_PASSWD)
        (self.folder / "shadow").write_text(f"{USER}:*:::::::\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def name(self) -> str:
        """As known_hosts names it."""
        return f"[{self.address}]:{self.port}"

    @property
    def host_key(self) -> str:
        """The line of known_hosts without its host: kind and key."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    def authorize(self, public: Path) -> None:
        """Accept that key, too."""
        with (self.folder / "authorized_keys").open("a") as file:
            file.write(public.read_text())

    def set_password(self, password: str) -> None:
        """Of the one who may log in."""
        digest = subprocess.check_output(["openssl", "passwd", "-6", password], text=True).strip()
        (self.folder / "shadow").write_text(f"{USER}:{digest}:::::::\n")

    def new_host_key(self) -> None:
        """Another one, from the next start on."""
        for file in ("host_key", "host_key.pub"):
            (self.folder / file).unlink(missing_ok=True)
        keygen(self.folder / "host_key")
        os.chown(self.folder / "host_key", _UID, _UID)

    def start(self) -> None:
        """Start it, and wait until it listens."""
        program = sshd()
        config = self.folder / "sshd_config"
        config.write_text(
            "\n".join(
                (
                    f"ListenAddress {self.address}:{self.port}",
                    f"HostKey {self.folder}/host_key",
                    f"AuthorizedKeysFile {self.folder}/authorized_keys",
                    "PidFile none",
                    "UsePAM no",
                    "StrictModes no",
                    *self._settings,  # the first value counts
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    *_parts(program),
                )
            )
        )
        self._process = subprocess.Popen(
            [
                *self._enter,
                *("unshare", "--mount", "sh", "-ec", _WITH_ACCOUNTS, "sh", str(self.folder)),
                *("setpriv", f"--reuid={_UID}", f"--regid={_UID}", "--clear-groups"),
                *("env", f"LD_LIBRARY_PATH={_libraries(program)}", str(program), "-D", "-e", "-f", str(config)),
            ],
            stderr=(self.folder / "log").open("ab"),
            start_new_session=True,
        )
        self._wait_until_it_listens()

    def log(self) -> str:
        """What it wrote."""
        return (self.folder / "log").read_text(errors="replace")

    def kill_connections(self) -> None:
        """Its processes of connections die; it goes on."""
        assert self._process is not None
        for pid in _descendants(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """It and its connections."""
        if self._process is not None:
            self.kill_connections()
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Leave nothing."""
        self.stop()
        shutil.rmtree(self.folder)

    def _wait_until_it_listens(self) -> None:
        end = time.monotonic() + _SECONDS
        probe = f"import socket; socket.create_connection(({self.address!r}, {self.port}), 1)"
        while subprocess.run([*self._enter, "python3", "-c", probe], capture_output=True, check=False).returncode:
            assert time.monotonic() < end, self.log()


def keygen(file: Path, *, passphrase: str = "", kind: str = "ed25519") -> Path:
    """A new private key in *file*; its public one is beside it, and is the answer."""
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", str(file)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return Path(f"{file}.pub")


def _descendants(pid: int) -> Iterator[int]:
    """Below *pid*, children before their parents: a connection is two processes."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in map(int, children):
        yield from _descendants(child)
        yield child


def sshd() -> Path:
    """The machine's, else Debian's, unpacked."""
    found = shutil.which("sshd", path="/usr/local/sbin:/usr/sbin:/sbin")
    return Path(found) if found else unpacked_with_dependencies("openssh-server") / "usr/sbin/sshd"


def _libraries(program: Path) -> str:
    root = program.parents[2]
    return (
        ":".join(map(str, sorted({each.parent for each in root.glob("usr/lib/**/*.so*")}))) if root != Path("/") else ""
    )


def _parts(program: Path) -> tuple[str, ...]:
    """From OpenSSH 9.8 on the rest of sshd is a program of its own; 10.0 can be told where."""
    session = program.parents[1] / "lib/openssh/sshd-session"
    return (f"SshdSessionPath {session}",) if session.exists() and program.parents[2] != Path("/") else ()


def free_port() -> int:
    """Of 127.0.0.1."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
