"""What ``--ssh`` takes: ``[USER@]HOST[:PORT]``; also a hop of ProxyJump. Pure."""

import re
from dataclasses import dataclass
from typing import Final, Self

from meshdev.errors import UsageError

#: A name, an alias of ssh_config or an address; no option ("-oProxyCommand=…") and nothing a shell would read, as the
#: name may get into a ProxyCommand (%h).
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_ADDRESS6: Final = re.compile(r"[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?")
#: As OpenSSH: valid_ruser() in ssh.c refuses these since 9.6 (CVE-2023-51385), control characters since 10.1. Besides
#: "$": "x$IFS-oProxyCommand=…" would be two words of a ProxyCommand (%r).
_USER: Final = re.compile(r"(?!-)[^\x00-\x1f\x7f\s'`\"$;&<>|(){}]+(?<!\\)")
_MAX: Final = 255


@dataclass(frozen=True)
class SshTarget:
    """A host as it was written: *host* may be an alias of ssh_config."""

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str, name: str = "--ssh") -> Self:
        """The target in *text*, which may also be a URL (``ssh://…``). Raises UsageError that names *name*."""
        user, at, place = text.removeprefix("ssh://").rpartition("@")
        host, colon, port = _split(place)
        valid = _HOST.fullmatch(host) or (":" in host and _ADDRESS6.fullmatch(host))
        if (
            len(text) > _MAX
            or not valid
            or (at and not _USER.fullmatch(user))
            or (colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536))
        ):
            raise UsageError(f"invalid {name} {text!r}", hint="use [USER@]HOST[:PORT], such as jane@bastion.example")
        return cls(host, user or None, int(port) if colon else None)

    def __str__(self) -> str:
        return place(self.host, self.port or 22, self.user)


def place(host: str, port: int, user: str | None = None) -> str:
    """For sentences: ``jane@bastion``, with the port where it is not SSH's."""
    shown = f"[{host}]" if ":" in host and port != 22 else host
    return (f"{user}@" if user else "") + shown + (f":{port}" if port != 22 else "")


def _split(text: str) -> tuple[str, bool, str]:
    """Host, whether there is a port, and that; ``[::1]:22``, ``[::1]``, ``::1``, ``host:22``."""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            return "", False, ""
        return host, bool(rest), rest[1:]
    if text.count(":") > 1:
        return text, False, ""
    host, colon, port = text.partition(":")
    return host, bool(colon), port
