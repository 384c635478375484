"""The claim itself: frozen values, their JSON and its limits.

A :class:`Spec` is written by one session and read by others and by the manager, so decoding checks everything: what
is missing, unknown, too long or impossible raises ProtocolError.
"""

import json
import re
from dataclasses import dataclass
from typing import Final, Literal

from meshdev.errors import UsageError
from meshdev.intercept import checks
from meshdev.wire.fields import Fields, parse, plain

Mode = Literal["proxy", "mesh"]
Protocol = Literal["tcp", "udp", "http"]
#: Lower case, singular: ``deployment/b`` is how people name a workload.
#: A Service is the workload where its pods have no owner of the other kinds (a Job, a Rollout, nobody).
Kind = Literal["deployment", "statefulset", "daemonset", "replicaset", "pod", "service"]
How = Literal["exact", "regex", "present"]

MODES: Final[tuple[Mode, ...]] = ("proxy", "mesh")
PROTOCOLS: Final[tuple[Protocol, ...]] = ("tcp", "udp", "http")
KINDS: Final[tuple[Kind, ...]] = ("deployment", "statefulset", "daemonset", "replicaset", "pod", "service")
HOWS: Final[tuple[How, ...]] = ("exact", "regex", "present")

#: Bytes of a Spec as JSON: it is an annotation of the Lease; Kubernetes takes 256 KiB of them in all.
MAX_SPEC: Final = 12 << 10
MAX_PORTS: Final = 64
#: Headers of one match; as many members of baggage and of tracestate.
MAX_CONDITIONS: Final = 16

_IDENTITY: Final = re.compile(r"[0-9a-f]{32}")
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")  # RFC 1123 subdomain, as Kubernetes has it
_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_UID: Final = re.compile(r"[A-Za-z0-9-]{1,63}")  # a UUID; it is used as the value of a label


@dataclass(frozen=True, order=True)
class Workload:
    """What a target resolved to: the object that owns the pods, or the Service that selects them.

    *uid* is the one Kubernetes gave it.
    """

    namespace: str
    kind: Kind
    name: str
    uid: str

    def __str__(self) -> str:
        """As users name it: ``deployment/b``."""
        return f"{self.kind}/{self.name}"

    @property
    def has_template(self) -> bool:
        """Whether its pods are made of a template that it has."""
        return self.kind not in {"pod", "service"}


@dataclass(frozen=True, order=True)
class Port:
    """One intercepted port: *remote* at the pod, *local* on the laptop. "tcp" is of unknown content."""

    remote: int
    protocol: Protocol
    local: int

    @property
    def transport(self) -> Literal["tcp", "udp"]:
        """What of the kernel's two it is."""
        return "udp" if self.protocol == "udp" else "tcp"


@dataclass(frozen=True, order=True)
class HeaderMatch:
    """One condition on a header; *name* is lower case, *value* is empty for "present"."""

    name: str
    kind: How
    value: str = ""


@dataclass(frozen=True)
class Match:
    """Which requests: all conditions hold at once. Always in the order of :func:`meshdev.intercept.match.canonical`.

    ``baggage`` and ``tracestate`` are members (key, value) of the list headers of these names.
    """

    headers: tuple[HeaderMatch, ...] = ()
    path_prefix: str | None = None
    method: str | None = None
    baggage: tuple[tuple[str, str], ...] = ()
    tracestate: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls,
        headers: tuple[HeaderMatch, ...] = (),
        path_prefix: str | None = None,
        method: str | None = None,
        baggage: tuple[tuple[str, str], ...] = (),
        tracestate: tuple[tuple[str, str], ...] = (),
    ) -> "Match":
        """The canonical form: sorted, nothing twice. Equal matches are equal values."""
        lists = (tuple(sorted(set(each))) for each in (baggage, tracestate))
        return cls(tuple(sorted(set(headers))), path_prefix, method, *lists)


@dataclass(frozen=True)
class Spec:
    """One intercept. *match* is None exactly in mode "proxy"; *ports* are sorted, none is there twice."""

    id: str
    workload: Workload
    mode: Mode
    match: Match | None
    ports: tuple[Port, ...]
    fallback: bool = True


def encode(spec: Spec) -> str:
    """One line of JSON. Raises UsageError where it is longer than a Lease can hold."""
    text = json.dumps(_plain(spec), separators=(",", ":"), sort_keys=True)
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
    return Fields(parse(data, "an intercept's spec"), "an intercept's spec").whole(_spec)


def canonical_json(match: Match | None) -> str:
    """The same text for equal matches: what locks are named after."""
    return json.dumps(_plain_match(match), separators=(",", ":"), sort_keys=True)


def _plain(spec: Spec) -> dict[str, object]:
    return {
        "id": spec.id,
        "workload": plain(spec.workload),
        "mode": spec.mode,
        "match": _plain_match(spec.match),
        "ports": plain(spec.ports),
        "fallback": spec.fallback,
    }


def _plain_match(match: Match | None) -> dict[str, object] | None:
    if match is None:
        return None
    return {
        "headers": plain(match.headers),
        "path_prefix": match.path_prefix,
        "method": match.method,
        "baggage": [{"key": key, "value": value} for key, value in match.baggage],
        "tracestate": [{"key": key, "value": value} for key, value in match.tracestate],
    }


def _spec(fields: Fields) -> Spec:
    mode = fields.choice("mode", MODES)
    ports = fields.wholes("ports", _port, MAX_PORTS)
    match = fields.inner_or_none("match")
    found = Spec(
        id=fields.parsed("id", _matching(_IDENTITY, "32 hexadecimal digits")),
        workload=fields.inner("workload").whole(_workload),
        mode=mode,
        match=match.whole(_match) if match else None,
        ports=tuple(sorted(ports)),
        fallback=fields.flag("fallback"),
    )
    fields.check("match", (found.match is None) == (mode == "proxy"))
    fields.check("ports", bool(ports) and len({(port.remote, port.transport) for port in ports}) == len(ports))
    return found


def _workload(fields: Fields) -> Workload:
    return Workload(
        namespace=fields.parsed("namespace", _matching(_NAMESPACE, "a namespace")),
        kind=fields.choice("kind", KINDS),
        name=fields.parsed("name", _matching(_NAME, "a name")),
        uid=fields.parsed("uid", _matching(_UID, "a uid")),
    )


def _port(fields: Fields) -> Port:
    return Port(
        remote=fields.integer("remote", 1, 65535),
        protocol=fields.choice("protocol", PROTOCOLS),
        local=fields.integer("local", 1, 65535),
    )


def _match(fields: Fields) -> Match:
    found = Match.of(
        headers=fields.wholes("headers", _header, MAX_CONDITIONS),
        path_prefix=fields.parsed_or_none("path_prefix", checks.path_prefix, checks.MAX_VALUE),
        method=fields.parsed_or_none("method", checks.method),
        baggage=fields.wholes("baggage", _baggage, MAX_CONDITIONS),
        tracestate=fields.wholes("tracestate", _tracestate, MAX_CONDITIONS),
    )
    fields.check("headers", found != Match())  # a match of everything is mode "proxy"
    return found


def _header(fields: Fields) -> HeaderMatch:
    how = fields.choice("kind", HOWS)
    check = {"exact": checks.header_value, "regex": checks.regex, "present": checks.nothing}[how]
    return HeaderMatch(
        name=fields.parsed("name", checks.header_name, checks.MAX_NAME),
        kind=how,
        value=fields.parsed("value", check, checks.MAX_VALUE),
    )


def _baggage(fields: Fields) -> tuple[str, str]:
    key = fields.parsed("key", checks.baggage_key, checks.MAX_NAME)
    return key, fields.parsed("value", checks.baggage_value, checks.MAX_VALUE)


def _tracestate(fields: Fields) -> tuple[str, str]:
    key = fields.parsed("key", checks.tracestate_key, checks.MAX_NAME)
    return key, fields.parsed("value", checks.tracestate_value, checks.MAX_VALUE)


def _matching(pattern: re.Pattern[str], what: str) -> checks.Check:
    def load(text: str) -> str:
        if pattern.fullmatch(text) is None:
            raise ValueError(f"{text!r} is not {what}")
        return text

    return load
