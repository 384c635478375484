"""How a session learns an agent's token: a line in the agent's log, and an exchange on the port that it names.

::

    container's env      MESHDEV_TOKEN_PORT=16201                       of an ephemeral container: the port to try first
    agent's log          meshdev-agent/1 token-port=16201
    session → 127.0.0.1  meshdev-agent/1 token\\n
    agent → session      meshdev-agent/1 token 5f…(64 hexadecimal digits)\\n      and closes

The kubelet shows the log of a container only once its own relist has seen that it runs, up to a second later; the
assigned port can be asked before that. Where it is taken the agent listens on another one, which the log names: only
the agent's container writes it, whoever else listens in the pod. Everything else in the log begins with a date
(meshdev.sidecar.agent.announcing). What arrives here is hostile until it is checked: lines have no bound, and behind a
port may be another process.
"""

import re
from dataclasses import dataclass
from typing import Final

from meshdev.errors import ProtocolError

VERSION: Final = 1
#: Names the assigned port in the container's environment.
PORT_VARIABLE: Final = "MESHDEV_TOKEN_PORT"
#: Below what outgoing connections use (32768 and up, where gRPC's 50051 lies, too), beside Envoy's
#: (meshdev.sidecar.agent.listener_ports): a program of the pod that starts later finds its port free. No agent takes
#: an assigned port of its own choice, so that what answers there is never another agent.
ASSIGNED_PORTS: Final = range(16200, 16300)
CHOSEN_PORTS: Final = range(16300, 16400)
#: The session asks for it by name: a request that an application is made to send (HTTP, say) gets nothing.
REQUEST: Final = b"meshdev-agent/%d token\n" % VERSION
_REPLY: Final = re.compile(rb"meshdev-agent/1 token ([0-9a-f]{64})\n")
#: Bytes of the whole reply: always the same.
REPLY_SIZE: Final = len(REQUEST) + 65

_LINE: Final = re.compile(rb"meshdev-agent/([0-9]{1,4}) ([ -~]*)")
_PORT: Final = re.compile(rb"token-port=([1-9][0-9]{0,4})(?: [ -~]*)?")
_TOKEN: Final = re.compile(r"[0-9a-f]{64}")
#: No announcement is longer; of longer lines the rest is skipped unread.
_MAX_LINE: Final = 256


@dataclass(frozen=True)
class Announcement:
    """An agent answers on this *port* of the pod's 127.0.0.1."""

    port: int

    def __str__(self) -> str:
        return f"meshdev-agent/{VERSION} token-port={self.port}"


def assigned_port(text: str) -> int:
    """What :data:`PORT_VARIABLE` says; 0 for everything but one of :data:`ASSIGNED_PORTS`."""
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return port if port in ASSIGNED_PORTS else 0


class AnnouncementReader:
    """Finds the announcement in a log that arrives in pieces; keeps at most one line's beginning."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> Announcement | None:
        """The newest announcement that *data* completes.

        Raises ProtocolError where the agent announces itself in another version only.
        """
        found: Announcement | None = None
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._keep(line)
            if not self._too_long:
                found = parse_line(bytes(self._line)) or found
            self._line.clear()
            self._too_long = False
        self._keep(rest)
        return found

    def _keep(self, piece: bytes) -> None:
        self._too_long = self._too_long or len(self._line) + len(piece) > _MAX_LINE
        if not self._too_long:
            self._line += piece


def parse_line(line: bytes) -> Announcement | None:
    """The announcement that *line* (without its end) is, None where it is none.

    Raises ProtocolError for the announcement of another version.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    if int(match[1]) != VERSION:
        raise ProtocolError(f"the agent announces itself in version {int(match[1])}, this meshdev knows {VERSION}")
    port = _PORT.fullmatch(match[2])
    number = int(port[1]) if port is not None else 0
    return Announcement(number) if 0 < number < 1 << 16 else None


def reply(token: str) -> bytes:
    """What the agent sends. Raises ValueError for a token of another form."""
    if _TOKEN.fullmatch(token) is None:
        raise ValueError("a token has 64 hexadecimal digits")
    return REQUEST[:-1] + b" " + token.encode() + b"\n"


def parse_reply(data: bytes) -> str:
    """The token. Raises ProtocolError for everything else."""
    match = _REPLY.fullmatch(data)
    if match is None:
        raise ProtocolError("what answers on the agent's port is not the agent")
    return match[1].decode()
