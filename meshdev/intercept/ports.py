"""``--port LOCAL[:REMOTE][/tcp|/udp|/http]`` as typed; :mod:`meshdev.kube.ports` finds the port that it means."""

import re
from dataclasses import dataclass
from typing import Final

from meshdev.errors import UsageError
from meshdev.wire.ports import PROTOCOLS, Protocol

_HINT: Final = "LOCAL[:REMOTE][/tcp|/udp|/http], for instance --port 8080:http"
_NUMBER: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
#: An IANA service name, as ports of containers and Services have them (k8s.io/apimachinery: IsValidPortName and, for
#: Services, a DNS label).
_NAME: Final = re.compile(r"(?=[a-z0-9-]*[a-z])[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class PortRequest:
    """One ``--port``. *remote* None: the target's port of the number *local*, or its only one.

    *protocol* None: the target's.
    """

    local: int
    remote: int | str | None = None
    protocol: Protocol | None = None

    def __str__(self) -> str:
        remote = "" if self.remote is None else f":{self.remote}"
        return f"{self.local}{remote}{f'/{self.protocol}' if self.protocol else ''}"


def parse_port(text: str) -> PortRequest:
    """The request that *text* is. Raises UsageError with the column."""
    numbers, slash, name = text.partition("/")
    local, colon, remote = numbers.partition(":")
    protocol = next((each for each in PROTOCOLS if each == name), None)
    if slash and protocol is None:
        raise _wrong(text, len(numbers) + 1, f"{name!r} is none of {', '.join(PROTOCOLS)}")
    if not _is_port(local):
        raise _wrong(text, 0, f"{local!r} is no port of this machine")
    if not colon:
        return PortRequest(int(local), None, protocol)
    if _is_port(remote):
        return PortRequest(int(local), int(remote), protocol)
    if _NAME.fullmatch(remote):
        return PortRequest(int(local), remote, protocol)
    raise _wrong(text, len(local) + 1, f"{remote!r} is neither a port nor a port's name")


def _is_port(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and 1 <= int(text) <= 65535


def _wrong(text: str, at: int, why: str) -> UsageError:
    return UsageError(f"--port {text}: {why} (column {at + 1})", hint=_HINT)
