"""The user's keys for one server: those of the agent, of files, and of encrypted files by a question.

A decrypted key is kept in memory, so that a lost connection is made again without a question.
"""

import base64
import binascii
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import paramiko
from paramiko.ssh_exception import PasswordRequiredException, SSHException

from meshdev.ssh import terminal
from meshdev.ssh.settings import SshHop

log = logging.getLogger(__name__)

#: How often a passphrase or password may be typed, as for ssh (NumberOfPasswordPrompts).
PROMPTS: Final = 3
_KINDS: Final = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


class Keys:
    """The keys to try at one hop."""

    def __init__(self, hop: SshHop, loaded: dict[str, paramiko.PKey]) -> None:
        """*loaded*: keys by their files, of all hops: a passphrase is asked for once."""
        self._hop = hop
        self._loaded = loaded
        self._worked: paramiko.PKey | None = None
        self.problems: list[str] = []
        """Why some could not be tried, of the last :meth:`candidates`."""

    def worked(self, key: paramiko.PKey) -> None:
        """The server accepted *key*. An agent's is asked for anew next time: the agent may have been restarted."""
        if not isinstance(key, paramiko.AgentKey):
            self._worked = key

    def candidates(self) -> Iterator[paramiko.PKey]:
        """Keys in the order of OpenSSH, but those last for which a passphrase must be typed."""
        self.problems = []
        if self._worked is not None:
            yield self._worked
        named = {blob: path for path in self._hop.identities if (blob := _public_blob(path))}
        offered: set[str] = set()
        for key in self._of_agent(named):
            offered.add(named.get(key.asbytes(), ""))
            yield key
        encrypted = []
        for path in (each for each in self._hop.identities if each not in offered):
            try:
                if found := self._load(path):
                    yield found
            except PasswordRequiredException:
                encrypted.append(path)
        for path in encrypted:
            if decrypted := self._decrypt(path):
                yield decrypted

    def _of_agent(self, named: dict[bytes, str]) -> list[paramiko.AgentKey]:
        """The ones that are *named* first: a server breaks off after some tries."""
        try:
            keys = paramiko.Agent().get_keys()
        except (SSHException, OSError) as error:
            log.info("the SSH agent cannot be used: %s", error)
            return []
        allowed = [key for key in keys if key.asbytes() in named or not self._hop.identities_only]
        return sorted(allowed, key=lambda key: key.asbytes() not in named)

    def _load(self, path: str, passphrase: str | None = None) -> paramiko.PKey | None:
        """The key in a file, None where there is none. Raises PasswordRequiredException."""
        if path in self._loaded:
            return self._loaded[path]
        file = Path(path).expanduser()
        if file.suffix == ".pub" or not file.is_file():
            if self._hop.named and file.suffix != ".pub":
                self.problems.append(f"there is no {path}")
            return None
        try:
            key = _read(file, passphrase)
        except OSError as error:
            self.problems.append(f"{path} cannot be read: {error.strerror}")
            return None
        if key is not None:
            self._loaded[path] = key
        elif passphrase is None:
            self.problems.append(f"{path} is no key that can be used")
        return key

    def _decrypt(self, path: str) -> paramiko.PKey | None:
        for _ in range(PROMPTS):
            typed = terminal.ask(f"Enter passphrase for key '{path}': ")
            if typed is None:
                self.problems.append(f"{path} is encrypted, and there is no terminal to ask for its passphrase")
                return None
            if not typed:
                return None
            if key := self._load(path, typed):
                return key
        self.problems.append(f"the passphrase of {path} was wrong")
        return None


def _read(file: Path, passphrase: str | None) -> paramiko.PKey | None:
    """With its certificate, where there is one beside it; None where no kind of key can be read from it."""
    for kind in _KINDS:
        try:
            key: paramiko.PKey = kind.from_private_key_file(str(file), passphrase)
        except PasswordRequiredException:
            raise
        except (SSHException, ValueError):
            continue
        certificate = Path(f"{file}-cert.pub")
        if certificate.is_file():
            key.load_certificate(str(certificate))
        return key
    return None


def _public_blob(path: str) -> bytes | None:
    """Of the public key beside a private one, or of a file that is one itself (its private half is the agent's)."""
    file = Path(path).expanduser()
    try:
        words = (file if file.suffix == ".pub" else Path(f"{file}.pub")).read_text().split()
        return base64.b64decode(words[1], validate=True)
    except (OSError, UnicodeDecodeError, IndexError, binascii.Error):
        return None
