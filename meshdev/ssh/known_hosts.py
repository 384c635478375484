"""Which host keys are known: the format of known_hosts (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"). Pure.

Not ``paramiko.HostKeys``: it passes over lines with markers, so that a key that is @revoked in one line would be good
by another one, and knows no patterns.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal

_HASHED: Final = "|1|"
_REVOKED: Final = "@revoked"
_AUTHORITY: Final = "@cert-authority"
Verdict = Literal["known", "unknown", "changed", "revoked"]


@dataclass(frozen=True)
class HostKey:
    """A public key: its *kind* ("ssh-ed25519") and its bytes on the wire."""

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As ssh shows it: ``SHA256:…``."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


@dataclass(frozen=True)
class KnownKey:
    """One line of a file."""

    file: str
    line: int
    marker: str
    hosts: str
    key: HostKey

    def means(self, name: str) -> bool:
        """Whether the line is for the host *name*, which is in lower case."""
        if self.hosts.startswith(_HASHED):
            return _hash_matches(self.hosts, name)
        patterns = [pattern.lower() for pattern in self.hosts.split(",")]
        refused = any(_matches(name, pattern[1:]) for pattern in patterns if pattern.startswith("!"))
        return not refused and any(_matches(name, pattern) for pattern in patterns if not pattern.startswith("!"))

    @property
    def where(self) -> str:
        """For sentences."""
        return f"{self.file}, line {self.line}"


@dataclass(frozen=True)
class Judgement:
    """What the files say of a key; *line* is the one that decided."""

    verdict: Verdict
    line: KnownKey | None = None
    authority: bool = False
    """Certificates would be good for this host."""


def name_of(host: str, port: int, alias: str | None = None) -> str:
    """Under which name a host's keys are kept."""
    if alias:
        return alias.lower()
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def parse(text: str, file: str) -> Iterator[KnownKey]:
    """The lines of a *file* that hold a key; others are passed over, as OpenSSH does."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else ""
        if len(words) < 3 or marker not in {"", _REVOKED, _AUTHORITY}:
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except binascii.Error:
            continue
        yield KnownKey(file, number, marker, words[0], HostKey(words[1], blob))


def judge(lines: Iterable[KnownKey], name: str, key: HostKey) -> Judgement:
    """What is known of *key* of the host *name*: revoked before known before changed.

    A host that is known only by keys of other kinds is unknown, as for OpenSSH.
    """
    there = [line for line in lines if line.means(name)]
    authority = any(line.marker == _AUTHORITY for line in there)
    for line in there:
        if line.marker == _REVOKED and line.key.blob == key.blob:
            return Judgement("revoked", line)
    plain = [line for line in there if not line.marker and line.key.kind == key.kind]
    for line in plain:
        if line.key.blob == key.blob:
            return Judgement("known", line)
    if plain:
        return Judgement("changed", plain[0])
    return Judgement("unknown", authority=authority)


def kinds_of(lines: Iterable[KnownKey], name: str) -> tuple[str, ...]:
    """The kinds of keys by which the host is known: it is asked for one of these first (order_hostkeyalgs())."""
    return tuple(dict.fromkeys(line.key.kind for line in lines if not line.marker and line.means(name)))


def preferred(algorithms: Sequence[str], kinds: Iterable[str]) -> tuple[str, ...]:
    """*algorithms* for host keys, those for keys of *kinds* first. RSA keys sign in several ways (RFC 8332)."""
    known = set(kinds)
    signs = {each: "ssh-rsa" if each.startswith("rsa-sha2-") else each for each in algorithms}
    return tuple(sorted(algorithms, key=lambda each: signs[each] not in known))


def new_line(name: str, key: HostKey, salt: bytes | None = None) -> str:
    """The line that makes *key* known; hashed with *salt* (20 bytes) where there is one (HashKnownHosts)."""
    hosts = name if salt is None else f"{_HASHED}{_text(salt)}|{_text(_hash(salt, name))}"
    return f"{hosts} {key.kind} {_text(key.blob)}\n"


def _matches(name: str, pattern: str) -> bool:
    """``*`` and ``?`` only: the brackets of ``[host]:port`` are no class of characters."""
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def _hash_matches(hosts: str, name: str) -> bool:
    salt, _, digest = hosts.removeprefix(_HASHED).partition("|")
    try:
        wanted = base64.b64decode(digest, validate=True)
        return hmac.compare_digest(_hash(base64.b64decode(salt, validate=True), name), wanted)
    except binascii.Error:
        return False


def _hash(salt: bytes, name: str) -> bytes:
    return hmac.new(salt, name.encode(), hashlib.sha1).digest()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
