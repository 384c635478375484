"""Control messages about intercepts. Session to manager: INTERCEPT, AGENTS, WITHDRAW, LOCAL; back: RELAYS, REPORT.

All of them tell a state, never a change, and may be told again: after a carrier was lost nobody knows what arrived.
``order`` grows with every message of a session, so that one which was overtaken on another carrier is skipped.
"""

import re
from dataclasses import dataclass, replace
from typing import Final, Literal

from meshdev.config import RELAY_PORTS
from meshdev.wire.objects import Object, for_people

Transport = Literal["tcp", "udp"]
State = Literal["joined", "acked", "nacked", "gone"]
#: What came of trying the way from a pod to the laptop: somebody listens, somebody says that nobody does, or nothing.
Found = Literal["open", "refused", "silent"]
Way = Literal["untried", "open", "refused", "silent"]

TRANSPORTS: Final[tuple[Transport, ...]] = ("tcp", "udp")
STATES: Final[tuple[State, ...]] = ("joined", "acked", "nacked", "gone")
WAYS: Final[tuple[Way, ...]] = ("untried", "open", "refused", "silent")

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
_MAX_ORDER: Final = 1 << 53
_MAX_COUNT: Final = 1 << 53


@dataclass(frozen=True)
class Intercept:
    """A session claims traffic. ``spec`` is JSON (meshdev.intercept.spec); AGENTS says of which pods.

    ``reset_older``: connections that are older than the redirect are closed. ``excluded`` are the names of pods that
    are none of the workload's any more: their labels were changed, or the Service selects others.
    """

    id: str
    spec: str
    reset_older: bool = False
    order: int = 0
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Agents:
    """The agents of a claim: the sha256 of each one's token. Claims and sidecars meet under these and nothing else.

    They are announced in :data:`AGENT_PARTS` parts; ``keys`` is the whole of ``part`` and replaces what it was before.
    """

    id: str
    part: int
    keys: tuple[str, ...]
    order: int = 0


@dataclass(frozen=True)
class Withdraw:
    """The claim is over. Answered with RELAYS that holds none."""

    id: str
    order: int = 0


@dataclass(frozen=True)
class Local:
    """Whether the laptop's program listens for that port of an intercept."""

    id: str
    remote: int
    protocol: Transport
    up: bool
    order: int = 0


@dataclass(frozen=True)
class Relay:
    """A port of the manager's pod, and of the session's address, that leads to the laptop's program."""

    remote: int
    protocol: Transport
    relay: int


@dataclass(frozen=True)
class Refusal:
    """Why the manager does not take an intercept: ``code`` for programs, ``reason`` for people."""

    code: str
    reason: str


@dataclass(frozen=True)
class Relays:
    """The manager took the intercept, or refused, or (none and no error) has it no more."""

    id: str
    relays: tuple[Relay, ...] = ()
    error: Refusal | None = None


@dataclass(frozen=True)
class Report:
    """One pod of an intercept. ``text`` says why it is nacked; ``older`` connections keep their way to the original.

    ``up`` is how many ports have their local program up in the very state of the claim that ``state`` is about: a
    session that told LOCAL sees by it whether "acked" means that word already. 0 when the pod is gone.

    ``way`` is what came of trying the TCP relays from that pod, the worst of them: "silent", "untried" (one is not
    tried yet, or there is none), "refused", "open". Only "open" says that the laptop was reached. It is another matter
    than ``state``.

    ``pending`` are ports of it (``8080``, ``9090/udp``) on which nothing listens in the pod, so that nothing is
    redirected there yet.
    """

    id: str
    pod: str
    state: State
    text: str = ""
    matched: int = 0
    fell_back: int = 0
    errors: int = 0
    older: int = 0
    up: int = 0
    way: Way = "untried"
    pending: tuple[str, ...] = ()


def read_intercept(fields: Object) -> Intercept:
    """INTERCEPT; the spec inside is not looked at."""
    return Intercept(
        id=fields.identity("id"),
        spec=fields.text("spec", MAX_SPEC),
        reset_older=fields.flag("reset_older"),
        order=_order(fields),
        excluded=read_excluded(fields),
    )


def read_excluded(fields: Object) -> tuple[str, ...]:
    """Names of pods; an older session has none to say."""
    return fields.all_parsed("excluded", str, MAX_EXCLUDED, MAX_POD) if "excluded" in fields else ()


def read_agents(fields: Object, *, ordered: bool = True) -> Agents:
    """AGENTS; from the manager's one container to the other it has no order."""
    return Agents(
        id=fields.identity("id"),
        part=fields.integer("part", 0, AGENT_PARTS - 1),
        keys=fields.digests("keys", MAX_PART),
        order=_order(fields) if ordered else 0,
    )


def read_withdraw(fields: Object) -> Withdraw:
    """WITHDRAW."""
    return Withdraw(id=fields.identity("id"), order=_order(fields))


def read_local(fields: Object) -> Local:
    """LOCAL."""
    return Local(
        id=fields.identity("id"),
        remote=fields.integer("remote", 1, 65535),
        protocol=fields.choice("protocol", TRANSPORTS),
        up=fields.flag("up"),
        order=_order(fields),
    )


def read_relays(fields: Object) -> Relays:
    """RELAYS."""
    error = fields.inner_or_none("error")
    return Relays(
        id=fields.identity("id"),
        relays=fields.inners("relays", read_relay, MAX_RELAYS),
        error=Refusal(error.word("code"), error.word("reason")) if error else None,
    )


def read_relay(fields: Object) -> Relay:
    """One port of RELAYS."""
    return Relay(
        remote=fields.integer("remote", 1, 65535),
        protocol=fields.choice("protocol", TRANSPORTS),
        relay=fields.integer("relay", RELAY_PORTS.start, RELAY_PORTS.stop - 1),
    )


def read_report(fields: Object) -> Report:
    """REPORT."""
    return Report(
        id=fields.identity("id"),
        pod=fields.word("pod", MAX_POD),
        state=fields.choice("state", STATES),
        text=fields.word("text"),
        matched=fields.integer("matched", 0, _MAX_COUNT),
        fell_back=fields.integer("fell_back", 0, _MAX_COUNT),
        errors=fields.integer("errors", 0, _MAX_COUNT),
        older=fields.integer("older", 0, _MAX_COUNT),
        up=fields.integer("up", 0, MAX_RELAYS),
        way=fields.choice("way", WAYS),
        # An older manager does not say it.
        pending=fields.all_parsed("pending", _port, MAX_RELAYS) if "pending" in fields else (),
    )


def relays_for_people(message: Relays) -> Relays:
    """Fit to be sent, whoever said the reason."""
    if message.error is None:
        return message
    return replace(message, error=Refusal(message.error.code, for_people(message.error.reason)))


def report_for_people(message: Report) -> Report:
    """Fit to be sent: the text is Envoy's own, the pod's name an agent's, the counts are sums of what agents say."""
    return replace(
        message,
        pod=for_people(message.pod, MAX_POD),
        text=for_people(message.text),
        matched=min(message.matched, _MAX_COUNT),
        fell_back=min(message.fell_back, _MAX_COUNT),
        errors=min(message.errors, _MAX_COUNT),
        older=min(message.older, _MAX_COUNT),
    )


def _port(text: str) -> str:
    if _PORT.fullmatch(text) is None:
        raise ValueError("not a port")
    return text


def _order(fields: Object) -> int:
    return fields.integer("order", 0, _MAX_ORDER)
