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

from dataclasses import asdict, dataclass
from typing import Final, Literal

from meshdev.wire.fields import Fields, plain

Mode = Literal["proxy", "mesh"]
Strategy = Literal["auto", "ephemeral", "patch"]
InterceptState = Literal["pending", "active", "refused"]
Transport = Literal["tcp", "udp"]

MODES: Final[tuple[Mode, ...]] = ("proxy", "mesh")
STRATEGIES: Final[tuple[Strategy, ...]] = ("auto", "ephemeral", "patch")
INTERCEPT_STATES: Final[tuple[InterceptState, ...]] = ("pending", "active", "refused")
TRANSPORTS: Final[tuple[Transport, ...]] = ("tcp", "udp")

#: Characters of what was typed: longer than any value that is accepted, so that the session says what is wrong with it.
_MAX_TYPED: Final = 4096
_MAX_COUNT: Final = 1 << 62
_MAX_PODS: Final = 1 << 20
_MAX_SECONDS: Final = 1e9


@dataclass(frozen=True, kw_only=True)
class InterceptRequest:
    """Asks for an intercept. All texts are as typed; the session parses them, whoever parsed them before."""

    target: str
    namespace: str | None = None
    """The target's; None: the connection's."""
    mode: Mode
    headers: tuple[str, ...] = ()
    path_prefix: str | None = None
    method: str | None = None
    baggage: tuple[str, ...] = ()
    tracestate: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    """None: every port at the same number."""
    strategy: Strategy = "auto"
    takeover: bool = False
    reset_existing: bool = False
    fallback: bool = True
    detach: bool = False
    """It stays when the client goes."""

    def as_json(self) -> dict[str, object]:
        """The request."""
        return {"op": "intercept", **asdict(self)}

    @classmethod
    def read(cls, fields: Fields) -> "InterceptRequest":
        """The request in an object whose "op" is taken."""
        return cls(
            target=fields.text("target", _MAX_TYPED),
            namespace=fields.text_or_none("namespace", 253),
            mode=fields.choice("mode", MODES),
            headers=fields.texts("headers", _MAX_TYPED),
            path_prefix=fields.text_or_none("path_prefix", _MAX_TYPED),
            method=fields.text_or_none("method", _MAX_TYPED),
            baggage=fields.texts("baggage", _MAX_TYPED),
            tracestate=fields.texts("tracestate", _MAX_TYPED),
            ports=fields.texts("ports", _MAX_TYPED),
            strategy=fields.choice("strategy", STRATEGIES),
            takeover=fields.flag("takeover"),
            reset_existing=fields.flag("reset_existing"),
            fallback=fields.flag("fallback"),
            detach=fields.flag("detach"),
        )


@dataclass(frozen=True)
class LeaveRequest:
    """Ends this session's intercepts on *target* (as typed), or all of them; the answer comes when they are gone."""

    target: str | None = None
    namespace: str | None = None
    """The target's; None: the connection's, or, without a target, every one."""

    def as_json(self) -> dict[str, object]:
        """The request."""
        return {"op": "leave", **asdict(self)}

    @classmethod
    def read(cls, fields: Fields) -> "LeaveRequest":
        """The request in an object whose "op" is taken."""
        return cls(fields.text_or_none("target", _MAX_TYPED), fields.text_or_none("namespace", 253))


@dataclass(frozen=True)
class Counts:
    """Requests (bytes: connections) since it is up; *older* connections still go to the original."""

    matched: int = 0
    fell_back: int = 0
    errors: int = 0
    older: int = 0

    @classmethod
    def read(cls, fields: Fields) -> "Counts":
        """The counts in an object."""
        return cls(*(fields.integer(key, 0, _MAX_COUNT) for key in ("matched", "fell_back", "errors", "older")))


@dataclass(frozen=True)
class LocalPort:
    """A port of this machine that requests are led to; *up*: a program listens there."""

    port: int
    transport: Transport
    up: bool

    @classmethod
    def read(cls, fields: Fields) -> "LocalPort":
        """The port in an object."""
        return cls(fields.integer("port", 1, 65535), fields.choice("transport", TRANSPORTS), fields.flag("up"))


@dataclass(frozen=True)
class PendingListener:
    """A port of the workload on which nothing listens in so many of its *pods*: it is refused there as before."""

    port: int
    transport: Transport
    pods: int

    @classmethod
    def read(cls, fields: Fields) -> "PendingListener":
        """The port in an object."""
        number = fields.integer("port", 1, 65535)
        return cls(number, fields.choice("transport", TRANSPORTS), fields.integer("pods", 1, _MAX_PODS))


@dataclass(frozen=True, kw_only=True)
class InterceptStatus:
    """How one intercept of this session stands."""

    id: str
    target: str
    """The workload: ``deployment/b``."""
    namespace: str
    mode: Mode
    match: str
    """For people; "all traffic" in mode proxy."""
    ports: tuple[str, ...]
    """``LOCAL:REMOTE/PROTOCOL``."""
    strategy: str
    state: InterceptState
    fallback: bool
    detached: bool
    acked: int
    """Pods that have the route, for each of the ports."""
    total: int
    """Pods."""
    counts: Counts
    local: tuple[LocalPort, ...]
    notes: tuple[str, ...]
    age_s: float
    url: str | None = None
    """Where requests for it can be sent from this machine, to try it: ``http``, ``https``, ``h2c``, ``grpc``, or
    ``tcp`` for a protocol that is none of these. None where no Service leads to its ports.
    """
    pending_listeners: tuple[PendingListener, ...] = ()

    def as_json(self) -> dict[str, object]:
        """An object; what scripts read in ``status -o json`` and from ``mesh -o json``."""
        return {
            "id": self.id,
            "target": self.target,
            "namespace": self.namespace,
            "mode": self.mode,
            "match": self.match,
            "ports": list(self.ports),
            "strategy": self.strategy,
            "state": self.state,
            "fallback": self.fallback,
            "detached": self.detached,
            "pods": {"acked": self.acked, "total": self.total},
            "counts": asdict(self.counts),
            "local": plain(self.local),
            "notes": list(self.notes),
            "age_s": self.age_s,
            "url": self.url,
            "pending_listeners": plain(self.pending_listeners),
        }

    @classmethod
    def read(cls, fields: Fields) -> "InterceptStatus":
        """The status in an object; unknown keys are passed over, so that a newer session can be asked."""
        pods = fields.inner("pods")
        return cls(
            id=fields.text("id", 64),
            target=fields.text("target", _MAX_TYPED),
            namespace=fields.text("namespace", 253),
            mode=fields.choice("mode", MODES),
            match=fields.text("match"),
            ports=fields.texts("ports", _MAX_TYPED),
            strategy=fields.text("strategy", 64),
            state=fields.choice("state", INTERCEPT_STATES),
            fallback=fields.flag("fallback"),
            detached=fields.flag("detached"),
            acked=pods.integer("acked", 0, _MAX_PODS),
            total=pods.integer("total", 0, _MAX_PODS),
            counts=Counts.read(fields.inner("counts")),
            local=fields.inners("local", LocalPort.read),
            notes=fields.texts("notes"),
            age_s=fields.number("age_s", 0, _MAX_SECONDS),
            url=fields.text_or_none("url", _MAX_TYPED) if "url" in fields else None,
            pending_listeners=fields.inners("pending_listeners", PendingListener.read)
            if "pending_listeners" in fields
            else (),
        )


@dataclass(frozen=True)
class Up:
    """Every ready pod has the route and one request has come through."""

    intercept: InterceptStatus

    def as_json(self) -> dict[str, object]:
        """The event."""
        return {"event": "up", "intercept": self.intercept.as_json()}


@dataclass(frozen=True)
class Live:
    """Counts, pods, local ports or notes have changed."""

    intercept: InterceptStatus

    def as_json(self) -> dict[str, object]:
        """The event."""
        return {"event": "live", "intercept": self.intercept.as_json()}


@dataclass(frozen=True)
class Left:
    """Every pod has acknowledged that it is gone."""

    def as_json(self) -> dict[str, object]:
        """The event."""
        return {"event": "left"}
