"""The spec of an intercept: frozen values, their JSON and its limits.

A :class:`Spec` is written by one session and read by others and by the manager, so decoding checks everything: what
is missing, too long or impossible raises ProtocolError. What a newer session adds to a Spec is skipped; what it adds to
a match is refused, because a condition that is not looked at claims the requests of others.
"""

import json
import re
from dataclasses import replace
from typing import Final, Literal

from meshdev.errors import UsageError
from meshdev.intercept.match import CODEC, Match
from meshdev.wire.codecs import FLAG, PORT, Choice, InvalidValueError, Many, Nullable, Parsed
from meshdev.wire.message import decode as read_object
from meshdev.wire.message import dump, field, load, message, nested, take
from meshdev.wire.modes import MODE, Mode
from meshdev.wire.ports import PROTOCOL, Protocol, Transport, transport_of

#: Lower case, singular: ``deployment/b`` is how people name a workload.
#: A Service is the workload where its pods have no owner of the other kinds (a Job, a Rollout, none at all).
Kind = Literal["deployment", "statefulset", "daemonset", "replicaset", "pod", "service"]

KINDS: Final[tuple[Kind, ...]] = ("deployment", "statefulset", "daemonset", "replicaset", "pod", "service")

#: Bytes of a Spec as JSON: it is an annotation of the Lease; Kubernetes takes 256 KiB of them in all.
MAX_SPEC: Final = 12 << 10
MAX_PORTS: Final = 64


def _matching(pattern: str, what: str) -> Parsed[str]:
    compiled = re.compile(pattern)

    def parse(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(f"{text!r} is not {what}")
        return text

    return Parsed(parse)


@message(strict=True, order=True)
class Workload:
    """What a target resolved to: the object that owns the pods, or the Service that selects them.

    *uid* is the one Kubernetes gave it.
    """

    namespace: str = field(_matching(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "a namespace"))
    kind: Kind = field(Choice(KINDS))
    #: RFC 1123 subdomain, as Kubernetes has it
    name: str = field(_matching(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", "a name"))
    #: a UUID; it is used as the value of a label
    uid: str = field(_matching(r"[A-Za-z0-9-]{1,63}", "a uid"))

    def __str__(self) -> str:
        """As users name it: ``deployment/b``."""
        return f"{self.kind}/{self.name}"

    @property
    def has_template(self) -> bool:
        """Whether its pods are made of a template that it has."""
        return self.kind not in {"pod", "service"}


@message(strict=True, order=True)
class Port:
    """One intercepted port: *remote* at the pod, *local* on the laptop."""

    remote: int = field(PORT)
    protocol: Protocol = field(PROTOCOL)
    local: int = field(PORT)

    @property
    def transport(self) -> Transport:
        """What of the kernel's two it is."""
        return transport_of(self.protocol)


@message()
class Spec:
    """One intercept. *match* is None exactly where the mode needs none; *ports* are sorted, none is there twice.

    *trace*: its requests get a W3C trace context, which an older manager does not do.
    """

    id: str = field(_matching(r"[0-9a-f]{32}", "32 hexadecimal digits"))
    workload: Workload = field(nested(Workload))
    mode: Mode = field(MODE)
    match: Match | None = field(Nullable(CODEC))
    ports: tuple[Port, ...] = field(Many(nested(Port), MAX_PORTS, distinct=lambda port: (port.remote, port.transport)))
    fallback: bool = field(FLAG, default=True)
    trace: bool = field(FLAG, default=False, sparse=True)


def encode(spec: Spec) -> str:
    """One line of JSON. Raises UsageError if it is longer than a Lease can hold."""
    text = json.dumps(dump(spec), separators=(",", ":"), sort_keys=True)
    if len(text) > MAX_SPEC:
        raise UsageError(
            f"the match and ports of this intercept take {len(text):,} bytes, more than {MAX_SPEC:,}",
            hint="fewer or shorter conditions",
        )
    return text


def decode(text: str | bytes) -> Spec:
    """The Spec that :func:`encode` wrote. Raises ProtocolError."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > MAX_SPEC:
        data = b""  # no JSON, and so the same error
    return read_object(data, "an intercept's spec", _spec)


def canonical_json(match: Match | None) -> str:
    """The same text for equal matches: what locks are named after."""
    return json.dumps(Nullable(CODEC).dump(match), separators=(",", ":"), sort_keys=True)


def match_of(text: str) -> Match | None:
    """The match that :func:`canonical_json` wrote. Raises ProtocolError."""
    return read_object(b'{"match":%b}' % text.encode("utf-8", "surrogatepass"), "a match", _match_in)


def _match_in(found: dict[str, object]) -> Match | None:
    match = take(found, "match", Nullable(CODEC))
    if found:
        raise InvalidValueError(" has more than one value")
    return match


def _spec(found: dict[str, object]) -> Spec:
    spec = load(Spec, found)
    if (spec.match is not None) != spec.mode.needs_match:
        raise ValueError(f"mode {spec.mode} and its match exclude each other")
    if not spec.ports or spec.match == Match():  # what matches everything is another mode
        raise ValueError("it has no ports or no conditions")
    return replace(spec, ports=tuple(sorted(spec.ports)))
