"""Control messages about intercepts. Session to manager: INTERCEPT, ATTESTED, WITHDRAW, LOCAL; back: RELAYS, REPORT,
ISSUED.

Each carries a state, never a change, and may be sent again: after a carrier is lost nobody knows what arrived.
``order`` grows with every message of a session, so that one overtaken on another carrier is skipped.
"""

import re
from typing import Final, Literal

from meshdev.config import RELAY_PORTS
from meshdev.wire.codecs import FLAG, PORT, Choice, Integer, Many, Nullable, Parsed, Text, itself
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.message import FLAT, field, message, nested
from meshdev.wire.objects import DIGEST, IDENTITY, Der, ForPeople, Line
from meshdev.wire.ports import TRANSPORT, Transport

ReportState = Literal["joined", "acked", "nacked", "gone"]
#: The result of probing the return path from a pod to the laptop: connected, refused, or no answer.
ProbeResult = Literal["open", "refused", "silent"]
ReturnPath = Literal["untried", "open", "refused", "silent"]

STATES: Final[tuple[ReportState, ...]] = ("joined", "acked", "nacked", "gone")
RETURN_PATHS: Final[tuple[ReturnPath, ...]] = ("untried", "open", "refused", "silent")

#: Characters of an intercept's spec (meshdev.intercept.spec.MAX_SPEC, which is above this folder).
MAX_SPEC: Final = 12 << 10
#: Ports of one intercept (meshdev.intercept.spec.MAX_PORTS).
MAX_RELAYS: Final = 64
#: A pod's name is a DNS subdomain (RFC 1123).
MAX_POD: Final = 253
#: Characters of a SPIFFE id (SPIFFE-ID, 2.3: 2,048 bytes).
MAX_IDENTITY: Final = 2048
#: Pods that one intercept excludes.
MAX_EXCLUDED: Final = 32
#: Bytes of an agent's signing request: 640 characters of base64. Ours, of a P-256 key, have 190.
MAX_REQUEST: Final = 480
#: Bytes of the certificate of a workload: 500 as a rule. With the longest SPIFFE id that its parts allow it has 1,000.
MAX_ISSUED: Final = 1536
#: The agents of one claim are sent in parts: 48 that are as long as they may be take 50 KiB of a frame's 64.
AGENT_PARTS: Final = 22
MAX_PART: Final = 48
MAX_AGENTS: Final = AGENT_PARTS * MAX_PART
#: Those of protocol 3.
FORMER_PARTS: Final = 4
MAX_FORMER_PART: Final = 256
#: A DNS subdomain (RFC 1123); a UUID, or what a static pod has. Both are parts of a SPIFFE id.
_POD: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_UID: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}(/udp)?", re.ASCII)
_ORDER: Final = Integer(0, 1 << 53)

RELAY: Final = Integer(RELAY_PORTS.start, RELAY_PORTS.stop - 1)


def _port(text: str) -> str:
    if _PORT.fullmatch(text) is None:
        raise ValueError("not a port")
    return text


def _pod(text: str) -> str:
    if _POD.fullmatch(text) is None:
        raise ValueError("not the name of a pod")
    return text


EXCLUDED: Final = Many(Parsed(_pod), MAX_EXCLUDED)


def _uid(text: str) -> str:
    if _UID.fullmatch(text) is None:
        raise ValueError("not the uid of a pod")
    return text


@message()
class Intercept:
    """A session's claim on traffic. ``spec`` is JSON (meshdev.intercept.spec); ATTESTED names the agents.

    ``reset_older``: connections older than the redirect are closed. ``excluded`` are the names of pods that no longer
    belong to the workload: their labels were changed, or the Service selects others.
    """

    id: str = field(IDENTITY)
    spec: str = field(Text(MAX_SPEC))
    reset_older: bool = field(FLAG, default=False)
    order: int = field(_ORDER, default=0)
    excluded: tuple[str, ...] = field(EXCLUDED, default=(), optional=True)


@message()
class AttestedAgent:
    """An agent that the session attested: its signing request (PKCS#10, DER) stands for its key. ISSUED answers.

    ``proof`` is :func:`meshdev.identity.edges.claim_proof`. ``pod`` and ``uid`` are what the session reports: they come
    back in its own reports, and in what the agent's Envoy shows of itself.
    """

    request: bytes = field(Der(MAX_REQUEST))
    proof: str = field(DIGEST)
    pod: str = field(Parsed(_pod))
    uid: str = field(Parsed(_uid))


@message()
class Agents:
    """The agents of a claim. One that has given the same proof to the manager has an edge to the session: the claim
    reaches exactly those.

    They are sent in :data:`AGENT_PARTS` parts; ``agents`` is the whole of ``part`` and replaces its former value.
    """

    id: str = field(IDENTITY)
    part: int = field(Integer(0, AGENT_PARTS - 1))
    agents: tuple[AttestedAgent, ...] = field(Many(nested(AttestedAgent), MAX_PART, distinct=itself))
    order: int = field(_ORDER, default=0)


@message()
class Issued:
    """The certificate (DER) by which an agent that a claim names is known to the manager, and which its Envoy shows.

    ``request`` is the sha256 of the agent's request. The next one comes at half of its life, as long as it is named.
    The session gives it to the agent along with the manager's own certificate, which issued it.
    """

    id: str = field(IDENTITY)
    request: str = field(DIGEST)
    certificate: bytes = field(Der(MAX_ISSUED))


@message()
class AgentKeys:
    """What sessions of protocol 3 send: the agents of a claim, each by the sha256 of a token. Read and not used."""

    id: str = field(IDENTITY)
    part: int = field(Integer(0, FORMER_PARTS - 1))
    keys: tuple[str, ...] = field(Many(DIGEST, MAX_FORMER_PART, distinct=itself))
    order: int = field(_ORDER, default=0)


@message()
class Withdraw:
    """End a claim. Answered by RELAYS without relays."""

    id: str = field(IDENTITY)
    order: int = field(_ORDER, default=0)


@message()
class Local:
    """Whether the local program listens for that port of an intercept."""

    id: str = field(IDENTITY)
    remote: int = field(PORT)
    protocol: Transport = field(TRANSPORT)
    up: bool = field(FLAG)
    order: int = field(_ORDER, default=0)


@message()
class Relay:
    """A port of the manager's pod, and of the session's address, that forwards to the local program."""

    remote: int = field(PORT)
    protocol: Transport = field(TRANSPORT)
    relay: int = field(RELAY)


@message()
class ClaimRefusal:
    """Why the manager refuses a claim: ``code`` for programs, ``reason`` for people."""

    code: str = field(Line())
    reason: str = field(ForPeople())


@message()
class Relays:
    """The manager accepted the claim, refused it, or (neither relays nor error) no longer has it."""

    id: str = field(IDENTITY)
    relays: tuple[Relay, ...] = field(Many(nested(Relay), MAX_RELAYS), default=())
    error: ClaimRefusal | None = field(Nullable(nested(ClaimRefusal)), default=None)


@message()
class Report:
    """The state of one pod of an intercept. ``text`` is the reason of "nacked".

    ``up`` is how many ports have their local program up in the state of the claim that ``state`` is about: a session
    that sent LOCAL learns from it whether "acked" covers that message. 0 when the pod is gone.

    ``return_path`` is the worst result of probing the TCP relays from that pod: "silent", "untried" (one is not probed
    yet, or there is none), "refused", "open". Only "open" means that the laptop was reached. It is independent of
    ``state``.

    ``pending`` are its ports (``8080``, ``9090/udp``) on which nothing listens in the pod: nothing is redirected yet.

    "acked": Envoy has the routes, the ports are redirected or pending, and the passthrough worker decides by the claim.

    ``identity`` is the SPIFFE id in the certificate that its Envoy shows; empty before it has one.
    """

    id: str = field(IDENTITY)
    pod: str = field(ForPeople(MAX_POD))
    state: ReportState = field(Choice(STATES))
    text: str = field(ForPeople(), default="")
    counts: InterceptCounts = field(nested(InterceptCounts), default=InterceptCounts(), key=FLAT)
    up: int = field(Integer(0, MAX_RELAYS), default=0)
    return_path: ReturnPath = field(Choice(RETURN_PATHS), default="untried", key="way")
    pending: tuple[str, ...] = field(Many(Parsed(_port), MAX_RELAYS), default=(), optional=True)
    identity: str = field(Text(MAX_IDENTITY), default="", optional=True)
