"""How a session learns an agent's certificate: a line in the agent's log, and JSON lines over TLS on a port of the pod.

::

    container's env     MESHDEV_ATTESTATION_PORT=16201        of an ephemeral container: the port to try first
    agent's log         meshdev-agent/2 port=16201 certificate=5f…(sha256 of its DER, 64 hexadecimal digits)
    session → agent     {"attest": {"version": 2, "uid": "<pod uid>"}}
    agent → session     {"capability": "<64 hexadecimal digits>", "csr": "<PKCS#10, base64>"}  or  {"error": "…"}
    session → agent     {"manager": {"certificate": "<DER, base64>", "proof": "<HMAC of the capability>",
                                      "issued": "<DER, base64>"}}
    agent → session     {"accepted": true}  or  {"accepted": false, "reason": "…"}

The agent is the TLS server and has a self-signed certificate. The kubelet shows the log of a container only once its
own relist has seen that it runs, up to a second later; the assigned port can be asked before that. Where it is taken
the agent listens on another one. Only the agent's container writes its log, so the certificate that is named there is
that agent's, whoever else listens in the pod. Everything else in the log begins with a date
(meshdev.sidecar.agent.announcing). What arrives here is hostile until it is checked.
"""

import re
from dataclasses import dataclass
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.wire import jsonlines
from meshdev.wire.codecs import FLAG, Integer
from meshdev.wire.intercepts import MAX_ISSUED, MAX_REQUEST
from meshdev.wire.message import Keyed, decode, field, message
from meshdev.wire.objects import CERTIFICATE, DIGEST, Der, ForPeople, Line

#: Of the announcement and of the channel. Agents of version 1 gave a token away (docs/design/0013).
VERSION: Final = 2
#: Names the assigned port in the container's environment.
PORT_VARIABLE: Final = "MESHDEV_ATTESTATION_PORT"
#: Below what outgoing connections use (32768 and up, where gRPC's 50051 lies, too), beside Envoy's
#: (meshdev.sidecar.agent.listener_ports): a program of the pod that starts later finds its port free. No agent takes
#: an assigned port of its own choice, so that what answers there is never another agent.
ASSIGNED_PORTS: Final = range(16200, 16300)
CHOSEN_PORTS: Final = range(16300, 16400)
#: How long a capability is good: a session attests the agent again before, and one that is gone is forgotten.
CAPABILITY_SECONDS: Final = 3600.0
#: Bytes of a line with its end. The longest has certificates of MAX_CERTIFICATE and MAX_ISSUED bytes: 7.5 KiB.
MAX_LINE: Final = 8 << 10

_LINE: Final = re.compile(rb"meshdev-agent/([0-9]{1,4}) ([ -~]*)")
_FIELDS: Final = re.compile(rb"port=([1-9][0-9]{0,4}) certificate=([0-9a-f]{64})(?: [ -~]*)?")
#: No announcement is longer; of longer lines the rest is skipped unread.
_MAX_ANNOUNCEMENT: Final = 256
#: Characters of a uid (RFC 4122, and what a static pod has).
_MAX_UID: Final = 63


@dataclass(frozen=True)
class AgentAnnouncement:
    """An agent answers on this *port* of the pod's 127.0.0.1, with the certificate of this *fingerprint*."""

    port: int
    fingerprint: str

    def __str__(self) -> str:
        return f"meshdev-agent/{VERSION} port={self.port} certificate={self.fingerprint}"


def assigned_port(text: str) -> int:
    """What :data:`PORT_VARIABLE` says; 0 for everything but one of :data:`ASSIGNED_PORTS`."""
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return port if port in ASSIGNED_PORTS else 0


class AgentLogReader:
    """Finds the announcement in a log that arrives in pieces; keeps at most one line's beginning."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> AgentAnnouncement | None:
        """The newest announcement that *data* completes.

        Raises ProtocolError where the agent announces itself in another version.
        """
        found: AgentAnnouncement | None = None
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._keep(line)
            if not self._too_long:
                found = parse_announcement(bytes(self._line)) or found
            self._line.clear()
            self._too_long = False
        self._keep(rest)
        return found

    def _keep(self, piece: bytes) -> None:
        self._too_long = self._too_long or len(self._line) + len(piece) > _MAX_ANNOUNCEMENT
        if not self._too_long:
            self._line += piece


def parse_announcement(line: bytes) -> AgentAnnouncement | None:
    """The announcement that *line* (without its end) is, None where it is none.

    Raises ProtocolError for the announcement of another version.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    if (version := int(match[1])) != VERSION:
        raise _other_version(version)
    fields = _FIELDS.fullmatch(match[2])
    port = int(fields[1]) if fields is not None else 0
    return AgentAnnouncement(port, fields[2].decode()) if fields is not None and port < 1 << 16 else None


def _other_version(version: int) -> ProtocolError:
    if version < VERSION:
        return ProtocolError(
            "the sidecar is of an earlier version of meshdev, which identified itself by a token",
            hint="one in a pod ends when nobody intercepts any more; one in a template is replaced by a rollout",
        )
    return ProtocolError(
        f"the agent announces itself in version {version}, this meshdev knows {VERSION}", hint="upgrade meshdev"
    )


@message()
class AttestRequest:
    """Ask the agent of the pod with that *uid* for a capability."""

    version: int = field(Integer(1, 9999))
    uid: str = field(Line(_MAX_UID))


@message()
class IssuedCapability:
    """A new one for whoever asked, as hexadecimal digits: a secret of the two. And the agent's signing request."""

    capability: str = field(DIGEST)
    request: bytes = field(Der(MAX_REQUEST), key="csr")

    def __repr__(self) -> str:
        return "IssuedCapability(…)"


@message()
class AttestRefusal:
    """Why there is no capability; nothing comes after it."""

    error: str = field(ForPeople())


@message()
class ManagerOffer:
    """The manager to serve: its certificate, proven by the capability that was issued on the same connection.

    ``issued`` is what it issued on the agent's request. It needs no proof: the manager's certificate vouches for it.
    """

    certificate: bytes = field(CERTIFICATE)
    proof: str = field(DIGEST)
    issued: bytes = field(Der(MAX_ISSUED))


@message()
class ManagerVerdict:
    """Whether the agent takes that manager; if not, *reason* is for people."""

    accepted: bool = field(FLAG)
    reason: str = field(ForPeople(), default="", sparse=True)


FromSession = AttestRequest | ManagerOffer
FromAttestedAgent = IssuedCapability | AttestRefusal | ManagerVerdict

_FROM_SESSION: Final[Keyed[FromSession]] = Keyed(attest=AttestRequest, manager=ManagerOffer)
_FROM_AGENT: Final[Keyed[FromAttestedAgent]] = Keyed(IssuedCapability, AttestRefusal, ManagerVerdict)


def encode(value: FromSession | FromAttestedAgent) -> bytes:
    """One line with its end."""
    found = _FROM_SESSION.dump(value) if isinstance(value, FromSession) else _FROM_AGENT.dump(value)
    return jsonlines.encode(found, MAX_LINE)


def decode_from_session(line: bytes) -> FromSession:
    """Decode one line of a session. Raises ProtocolError."""
    return decode(line, "a message of a session", _FROM_SESSION.load)


def decode_from_agent(line: bytes) -> FromAttestedAgent:
    """Decode one line of an agent. Raises ProtocolError."""
    return decode(line, "a message of the agent", _FROM_AGENT.load)
