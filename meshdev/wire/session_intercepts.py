"""Intercepts between the commands and the session: requests, the stream of an intercept, and how it stands.

``intercept`` is a stream on the session API::

    CLI → session   {"op": "intercept", …InterceptRequest…}      one line
    session → CLI   {"event": "step" | "note" | "wait", …}       any number
                    {"event": "up", "intercept": {…}}            it works; with "detach" the session closes here
                    {"event": "live", "intercept": {…}}          when something changed
                    {"event": "left"}                            after the client's end of file: nothing is left of it
                    {"event": "error", …}                        it has ended and everything is undone

End of file from the client before "up" cancels: everything is undone, the last line is the error "cancelled".
``leave`` is one request with one answer: {"op": "leave", …LeaveRequest…} → {"ok": {"left": ["deployment/b in …"]}}.
"""

from typing import Final, Literal

from meshdev.wire.codecs import FLAG, PORT, Choice, Integer, Many, Nullable, Number, Text
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.intercepts import MAX_AGENTS, MAX_IDENTITY
from meshdev.wire.message import field, message, nested
from meshdev.wire.modes import MODE, Mode
from meshdev.wire.ports import TRANSPORT, Transport

#: How a sidecar enters a pod.
Strategy = Literal["ephemeral", "patch"]
AskedStrategy = Literal["auto", Strategy]
InterceptPhase = Literal["pending", "active", "refused"]

#: In the order in which they are tried.
STRATEGIES: Final[tuple[Strategy, ...]] = ("ephemeral", "patch")
ASKED_STRATEGIES: Final[tuple[AskedStrategy, ...]] = ("auto", *STRATEGIES)
INTERCEPT_PHASES: Final[tuple[InterceptPhase, ...]] = ("pending", "active", "refused")

#: Characters of what was typed: longer than any value that is accepted, so that the session says what is wrong with it.
_MAX_TYPED: Final = 4096
_MAX_PODS: Final = 1 << 20
_MAX_SECONDS: Final = 1e9

_TYPED: Final = Text(_MAX_TYPED)
_ALL_TYPED: Final = Many(_TYPED)
_PODS: Final = Integer(0, _MAX_PODS)
_NAMESPACE: Final = Text(253)


@message(strict=True, kw_only=True)
class InterceptRequest:
    """Asks for an intercept. All texts are as typed; the session parses them, whoever parsed them before."""

    target: str = field(_TYPED)
    namespace: str | None = field(Nullable(_NAMESPACE), default=None)
    """The target's; None: the connection's."""
    mode: Mode = field(MODE)
    headers: tuple[str, ...] = field(_ALL_TYPED, default=())
    path_prefix: str | None = field(Nullable(_TYPED), default=None)
    method: str | None = field(Nullable(_TYPED), default=None)
    baggage: tuple[str, ...] = field(_ALL_TYPED, default=())
    tracestate: tuple[str, ...] = field(_ALL_TYPED, default=())
    ports: tuple[str, ...] = field(_ALL_TYPED, default=())
    """None: every port at the same number."""
    strategy: AskedStrategy = field(Choice(ASKED_STRATEGIES), default="auto")
    takeover: bool = field(FLAG, default=False)
    reset_existing: bool = field(FLAG, default=False)
    fallback: bool = field(FLAG, default=True)
    detach: bool = field(FLAG, default=False)
    """The intercept stays when the client exits."""


@message(strict=True)
class LeaveRequest:
    """Ends this session's intercepts on *target* (as typed), or all of them; the answer comes when they are gone."""

    target: str | None = field(Nullable(_TYPED), default=None)
    namespace: str | None = field(Nullable(_NAMESPACE), default=None)
    """The target's; None: the connection's, or, without a target, every one."""


@message()
class LocalPort:
    """A port of this machine that requests are forwarded to; *up*: a program listens there."""

    port: int = field(PORT)
    transport: Transport = field(TRANSPORT)
    up: bool = field(FLAG)


@message()
class PendingListener:
    """A port of the workload on which nothing listens in so many of its *pods*: it is refused there as before."""

    port: int = field(PORT)
    transport: Transport = field(TRANSPORT)
    pods: int = field(Integer(1, _MAX_PODS))


@message(order=True)
class PodIdentity:
    """The SPIFFE id in the certificate that a pod's Envoy shows."""

    pod: str = field(_TYPED)
    identity: str = field(Text(MAX_IDENTITY))


@message(kw_only=True)
class InterceptStatus:
    """How one intercept of this session stands: what scripts read in ``status -o json`` and from ``mesh -o json``."""

    id: str = field(Text(64))
    target: str = field(_TYPED)
    """The workload: ``deployment/b``."""
    namespace: str = field(_NAMESPACE)
    mode: Mode = field(MODE)
    match: str = field(Text())
    """For people; "all traffic" in mode proxy."""
    ports: tuple[str, ...] = field(_ALL_TYPED)
    """``LOCAL:REMOTE/PROTOCOL``."""
    strategy: str = field(Text(64))
    state: InterceptPhase = field(Choice(INTERCEPT_PHASES))
    fallback: bool = field(FLAG)
    detached: bool = field(FLAG)
    acked: int = field(_PODS, key="pods.acked")
    """Pods that have the route, for each of the ports."""
    total: int = field(_PODS, key="pods.total")
    """Pods."""
    counts: InterceptCounts = field(nested(InterceptCounts))
    local: tuple[LocalPort, ...] = field(Many(nested(LocalPort)))
    notes: tuple[str, ...] = field(Many(Text()))
    age_s: float = field(Number(0, _MAX_SECONDS))
    url: str | None = field(Nullable(_TYPED), default=None, optional=True)
    """Where requests for it can be sent from this machine, to try it: ``http``, ``https``, ``h2c``, ``grpc``, or
    ``tcp`` for a protocol that is none of these. None where no Service leads to its ports.
    """
    pending_listeners: tuple[PendingListener, ...] = field(Many(nested(PendingListener)), default=(), optional=True)
    identities: tuple[PodIdentity, ...] = field(Many(nested(PodIdentity), MAX_AGENTS), default=(), optional=True)
    """Of the pods that have one, by name; not in live events."""


@message()
class Up:
    """Every ready pod has the route and one request has come through."""

    intercept: InterceptStatus = field(nested(InterceptStatus))


@message()
class Live:
    """Counts, pods, local ports or notes have changed."""

    intercept: InterceptStatus = field(nested(InterceptStatus))


@message()
class Left:
    """Every pod has acknowledged that it is gone."""
