"""The hops to a bastion, from ssh_config: what OpenSSH's options mean here. Pure; *lookup* is paramiko's.

Understood: Host, Match, Include, HostName, User, Port, IdentityFile, IdentitiesOnly, ProxyJump, ProxyCommand (of the
first hop), UserKnownHostsFile, GlobalKnownHostsFile, HostKeyAlias, HashKnownHosts, StrictHostKeyChecking,
ConnectTimeout, ServerAliveInterval, ServerAliveCountMax. Others are passed over.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from meshdev.errors import SshError, UsageError
from meshdev.ssh.target import SshTarget, place

#: Options of one host, with keys in lower case.
Lookup = Callable[[str], Mapping[str, Any]]
#: Files that match a pattern of Include, each with its text.
ReadFiles = Callable[[str], Iterable[str]]
Checking = Literal["ask", "accept-new", "yes"]

MAX_HOPS: Final = 8
_MAX_INCLUDES: Final = 16  # OpenSSH: READCONF_MAX_DEPTH
_KEYS: Final = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_USER_FILES: Final = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_GLOBAL_FILES: Final = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
_SECTION: Final = re.compile(r"\s*(?:host|match)\b", re.IGNORECASE)
_INCLUDE: Final = re.compile(r"\s*include(?:\s*=\s*|\s+)(.*)", re.IGNORECASE)
_TIME: Final = re.compile(r"(\d+)([smhdw]?)", re.IGNORECASE)
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True)
class SshHop:
    """One SSH server on the way, and how to log in there. Paths may begin with ``~``."""

    host: str
    user: str
    port: int = 22
    identities: tuple[str, ...] = _KEYS
    named: bool = False
    """The identities are those of ssh_config, not the default ones, which need not exist."""
    identities_only: bool = False
    user_known_hosts: tuple[str, ...] = ()
    global_known_hosts: tuple[str, ...] = ()
    alias: str | None = None
    hashed: bool = False
    checking: Checking = "ask"
    command: str | None = None
    """ProxyCommand: what to run instead of connecting."""
    connect_seconds: float = 10.0
    alive_seconds: float = 5.0
    alive_count: int = 2

    def __str__(self) -> str:
        return place(self.host, self.port, self.user)

    @property
    def as_command(self) -> str:
        """For hints: OpenSSH takes the port by an option."""
        return f"{f'-p {self.port} ' if self.port != 22 else ''}{place(self.host, 22, self.user)}"


def hops(target: SshTarget, lookup: Lookup, user: str) -> tuple[SshHop, ...]:
    """The hops to *target*, which is the last. *user* is the one on this machine. Raises SshError."""
    return _hops(target, lookup, user, ())


def _hops(target: SshTarget, lookup: Lookup, user: str, behind: tuple[str, ...]) -> tuple[SshHop, ...]:
    if len(behind) >= MAX_HOPS or target.host in behind:
        raise SshError(f"ProxyJump leads in a circle, or over more than {MAX_HOPS} hosts: {' → '.join(behind)}")
    options = lookup(target.host)
    before: tuple[SshHop, ...] = ()
    jumps = str(options.get("proxyjump") or "none")
    if jumps.lower() != "none":
        try:
            first, *others = (SshTarget.parse(each.strip(), "ProxyJump") for each in jumps.split(","))
        except UsageError as error:
            raise SshError(f"{error.message} of {target.host} in ssh_config", hint=error.hint) from error
        # As for `ssh -J a,b`: only the first one's own ProxyJump counts. "Host *" may lead a host to itself.
        if first.host != target.host:
            before = _hops(first, lookup, user, (*behind, target.host))
        before += tuple(replace(_hop(each, lookup(each.host), user), command=None) for each in others)
    own = _hop(target, options, user)
    return (*before, replace(own, command=None) if before else own)


def _hop(target: SshTarget, options: Mapping[str, Any], user: str) -> SshHop:
    files = tuple(options.get("identityfile") or ())
    files = tuple(each for each in files if each.lower() != "none")
    return SshHop(
        host=str(options.get("hostname") or target.host),
        user=target.user or str(options.get("user") or user),
        port=target.port or _number(target, options, "port", 22),
        identities=files or _KEYS,
        named=bool(files),
        identities_only=_flag(options, "identitiesonly"),
        user_known_hosts=_files(options.get("userknownhostsfile") or _USER_FILES),
        global_known_hosts=_files(options.get("globalknownhostsfile") or _GLOBAL_FILES),
        alias=options.get("hostkeyalias"),
        hashed=_flag(options, "hashknownhosts"),
        checking=_checking(str(options.get("stricthostkeychecking") or "ask").lower()),
        command=options.get("proxycommand") or None,
        connect_seconds=_number(target, options, "connecttimeout", 10) or 10,
        alive_seconds=_number(target, options, "serveraliveinterval", 5) or 5,
        alive_count=_number(target, options, "serveralivecountmax", 2) or 2,
    )


def _checking(text: str) -> Checking:
    """ "no" and "off" are no more than "accept-new" here: a changed key is never accepted."""
    if text in {"accept-new", "no", "off"}:
        return "accept-new"
    return "yes" if text == "yes" else "ask"


def _flag(options: Mapping[str, Any], key: str) -> bool:
    return str(options.get(key)).lower() in {"yes", "true"}


def _number(target: SshTarget, options: Mapping[str, Any], key: str, default: int) -> int:
    """A number, or a time in seconds (``1m30s``)."""
    text = str(options.get(key, default)).lower()
    if text == "none":
        return default
    if not re.fullmatch(f"(?:{_TIME.pattern})+", text, re.IGNORECASE):
        raise SshError(f"{key} of {target.host} in ssh_config is {text!r}, which is no number")
    return sum(int(number) * _SECONDS[unit] for number, unit in _TIME.findall(text))


def _files(value: str) -> tuple[str, ...]:
    try:
        words = shlex.split(value)
    except ValueError:
        words = [value]
    return tuple(word for word in words if word.lower() != "none")


def inlined(text: str, read: ReadFiles, depth: int = 0) -> str:
    """*text* with the files of Include in their places, which paramiko does not know.

    The section in which an Include stands goes on behind it.
    """
    if depth > _MAX_INCLUDES:
        raise SshError("ssh_config: too many files that include each other")
    section, lines = "Match all", []
    for line in text.splitlines():
        if include := _INCLUDE.match(line):
            for pattern in _files(include[1]):
                lines += [part for each in read(pattern) for part in (inlined(each, read, depth + 1), section)]
            continue
        if _SECTION.match(line):
            section = line
        lines.append(line)
    return "\n".join(lines)
