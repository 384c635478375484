"""Whether a server is who it should be: known_hosts files, and what is written into them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from meshdev.errors import SshError
from meshdev.ssh import known_hosts, terminal
from meshdev.ssh.known_hosts import HostKey, KnownKey
from meshdev.ssh.settings import SshHop

#: A file beyond this is no known_hosts of people.
_MAX_BYTES: Final = 16 << 20


class HostKeys:
    """The keys by which one hop is known."""

    def __init__(self, hop: SshHop) -> None:
        self._hop = hop
        self._name = known_hosts.name_of(hop.host, hop.port, hop.alias)
        files = (*hop.user_known_hosts, *hop.global_known_hosts)
        self._lines: list[KnownKey] = [line for file in files for line in _read(Path(file).expanduser())]

    def preferred(self, algorithms: Sequence[str]) -> tuple[str, ...]:
        """*algorithms*, those first for which a key is known."""
        return known_hosts.preferred(algorithms, known_hosts.kinds_of(self._lines, self._name))

    def check(self, key: HostKey) -> None:
        """Accept *key*, which may mean to ask and to write it down. Raises SshError."""
        found = known_hosts.judge(self._lines, self._name, key)
        shown = f"{key.kind} {key.fingerprint}"
        if found.verdict == "revoked" and found.line:
            raise SshError(
                f"the host key of {self._hop} is revoked: {found.line.where}",
                hint="ask whoever administers that host",
            )
        if found.verdict == "changed" and found.line:
            raise SshError(
                f"the host key of {self._hop} has changed: it is {shown} now, but {found.line.where} has another one; "
                "somebody may be intercepting the connection",
                hint=f"if you know that its key was replaced: ssh-keygen -f {found.line.file} -R '{self._name}'",
            )
        if found.verdict == "unknown":
            self._accept_new(key, shown, authority=found.authority)

    def _accept_new(self, key: HostKey, shown: str, *, authority: bool) -> None:
        if self._hop.checking == "ask":
            question = (
                f"The authenticity of host {self._name} can't be established.\nIts key is {shown}.\n"
                "Are you sure you want to continue connecting (yes/no)? "
            )
            accepted = (terminal.ask(question, echo=True) or "").strip().lower() == "yes"
        else:
            accepted = self._hop.checking == "accept-new"
        if not accepted:
            known_by = (
                "certificates of hosts, by which it is known, are not supported: add its key. " if authority else ""
            )
            raise SshError(
                f"the host key of {self._hop} is not known: {shown}",
                hint=f"{known_by}`ssh {self._hop.as_command}` once makes it known; compare the fingerprint",
            )
        self._remember(key)

    def _remember(self, key: HostKey) -> None:
        if not self._hop.user_known_hosts:
            return
        file = Path(self._hop.user_known_hosts[0]).expanduser()
        line = known_hosts.new_line(self._name, key, os.urandom(20) if self._hop.hashed else None)
        self._lines += known_hosts.parse(line, str(file))
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "r+b") as out:
                out.write(_separator(out.fileno()) + line.encode())
        except OSError as error:
            raise SshError(f"the host key of {self._hop} cannot be kept in {file}: {error.strerror}") from error


def _separator(descriptor: int) -> bytes:
    """A file's last line may lack its newline."""
    size = os.fstat(descriptor).st_size
    return b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""


def _read(file: Path) -> list[KnownKey]:
    """Fail closed: a file that is there and cannot be read may revoke a key."""
    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_BYTES).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise SshError(f"{file} cannot be read: {error.strerror}") from error
    return list(known_hosts.parse(text, str(file)))
