"""Control messages about intercepts. Session to manager: INTERCEPT, AGENTS, WITHDRAW, LOCAL; back: RELAYS, REPORT.

All of them tell a state, never a change, and may be told again: after a carrier was lost nobody knows what arrived.
``order`` grows with every message of a session, so that one which was overtaken on another carrier is skipped.
"""

import re
from typing import Final, Literal

from meshdev.config import RELAY_PORTS
from meshdev.wire.codecs import FLAG, PORT, Choice, Integer, Many, Nullable, Parsed, Text, itself
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.message import FLAT, field, message, nested
from meshdev.wire.objects import DIGEST, IDENTITY, ForPeople, Line

Transport = Literal["tcp", "udp"]
State = Literal["joined", "acked", "nacked", "gone"]
#: What came of trying the way from a pod to the laptop: somebody listens, somebody says that nobody does, or nothing.
ProbeResult = Literal["open", "refused", "silent"]
ReturnPath = Literal["untried", "open", "refused", "silent"]

TRANSPORTS: Final[tuple[Transport, ...]] = ("tcp", "udp")
STATES: Final[tuple[State, ...]] = ("joined", "acked", "nacked", "gone")
RETURN_PATHS: Final[tuple[ReturnPath, ...]] = ("untried", "open", "refused", "silent")

#: Characters of an intercept's spec (meshdev.intercept.spec.MAX_SPEC, which is above this folder).
MAX_SPEC: Final = 12 << 10
#: Ports of one intercept (meshdev.intercept.spec.MAX_PORTS).
MAX_RELAYS: Final = 64
#: A pod's name is a DNS subdomain (RFC 1123).
MAX_POD: Final = 253
#: Pods that one intercept leaves out.
MAX_EXCLUDED: Final = 32
#: The agents of one claim are announced in parts: 1,024 digests do not fit one frame of 64 KiB, 256 take 17 KiB.
AGENT_PARTS: Final = 4
MAX_PART: Final = 256
MAX_AGENTS: Final = AGENT_PARTS * MAX_PART
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}(/udp)?", re.ASCII)
_ORDER: Final = Integer(0, 1 << 53)

TRANSPORT: Final = Choice(TRANSPORTS)
RELAY: Final = Integer(RELAY_PORTS.start, RELAY_PORTS.stop - 1)
EXCLUDED: Final = Many(Text(MAX_POD), MAX_EXCLUDED)


def _port(text: str) -> str:
    if _PORT.fullmatch(text) is None:
        raise ValueError("not a port")
    return text


@message()
class Intercept:
    """A session claims traffic. ``spec`` is JSON (meshdev.intercept.spec); AGENTS says of which pods.

    ``reset_older``: connections that are older than the redirect are closed. ``excluded`` are the names of pods that
    are none of the workload's any more: their labels were changed, or the Service selects others.
    """

    id: str = field(IDENTITY)
    spec: str = field(Text(MAX_SPEC))
    reset_older: bool = field(FLAG, default=False)
    order: int = field(_ORDER, default=0)
    excluded: tuple[str, ...] = field(EXCLUDED, default=(), optional=True)


@message()
class AgentKeys:
    """The agents of a claim: the sha256 of each one's token. Claims and sidecars meet under these and nothing else.

    They are announced in :data:`AGENT_PARTS` parts; ``keys`` is the whole of ``part`` and replaces what it was before.
    """

    id: str = field(IDENTITY)
    part: int = field(Integer(0, AGENT_PARTS - 1))
    keys: tuple[str, ...] = field(Many(DIGEST, MAX_PART, distinct=itself))
    order: int = field(_ORDER, default=0)


@message()
class Withdraw:
    """The claim is over. Answered with RELAYS that holds none."""

    id: str = field(IDENTITY)
    order: int = field(_ORDER, default=0)


@message()
class Local:
    """Whether the laptop's program listens for that port of an intercept."""

    id: str = field(IDENTITY)
    remote: int = field(PORT)
    protocol: Transport = field(TRANSPORT)
    up: bool = field(FLAG)
    order: int = field(_ORDER, default=0)


@message()
class Relay:
    """A port of the manager's pod, and of the session's address, that leads to the laptop's program."""

    remote: int = field(PORT)
    protocol: Transport = field(TRANSPORT)
    relay: int = field(RELAY)


@message()
class ClaimRefusal:
    """Why the manager does not take an intercept: ``code`` for programs, ``reason`` for people."""

    code: str = field(Line())
    reason: str = field(ForPeople())


@message()
class Relays:
    """The manager took the intercept, or refused, or (none and no error) has it no more."""

    id: str = field(IDENTITY)
    relays: tuple[Relay, ...] = field(Many(nested(Relay), MAX_RELAYS), default=())
    error: ClaimRefusal | None = field(Nullable(nested(ClaimRefusal)), default=None)


@message()
class Report:
    """One pod of an intercept. ``text`` says why it is nacked.

    ``up`` is how many ports have their local program up in the very state of the claim that ``state`` is about: a
    session that told LOCAL sees by it whether "acked" means that word already. 0 when the pod is gone.

    ``way`` is what came of trying the TCP relays from that pod, the worst of them: "silent", "untried" (one is not
    tried yet, or there is none), "refused", "open". Only "open" says that the laptop was reached. It is another matter
    than ``state``.

    ``pending`` are ports of it (``8080``, ``9090/udp``) on which nothing listens in the pod, so that nothing is
    redirected there yet.
    """

    id: str = field(IDENTITY)
    pod: str = field(ForPeople(MAX_POD))
    state: State = field(Choice(STATES))
    text: str = field(ForPeople(), default="")
    counts: InterceptCounts = field(nested(InterceptCounts), default=InterceptCounts(), key=FLAT)
    up: int = field(Integer(0, MAX_RELAYS), default=0)
    way: ReturnPath = field(Choice(RETURN_PATHS), default="untried")
    pending: tuple[str, ...] = field(Many(Parsed(_port), MAX_RELAYS), default=(), optional=True)
