"""What the agent in a pod and the manager's control container say to each other: one JSON object a message.

They travel on one bidirectional gRPC stream, :data:`METHOD`, with the agent's token in the metadata
(:data:`METADATA_KEY`, as on Envoy's own stream)::

    agent   → {"hello": {"pod": "b-1", "uid": …, "namespace": …, "address": "10.244.0.7", "probes": […]}}    first
    control → {"want": [{"port": "8080", "protocol": "http", "mode": "mesh", "reset_older": false}]}
    agent   → {"listen": {"8080": 15801, "9090/udp": 15802}}        where Envoy shall listen for them
    control → {"redirect": ["8080"]}                                 after Envoy took the listeners and routes
    control → {"try": ["20001"], "address": "10.244.0.9"}            ways to laptops that this pod may use now
    agent   → {"state": {"redirected": ["8080"], "apart": {"7000": "speaks-first"}, "older": {"8080": 3},
                         "intercepts": {"<id>": {"matched": 5, "fell_back": 1, "errors": 0}},
                         "flows": {"9090/udp": {"matched": 2, "fell_back": 0, "errors": 0}},
                         "ways": {"20001": "open"}}}

All of them tell whole states, so a stream that broke is followed by another without history. Two rules:

* what Envoy was once served for a port stays as long as the agent's stream: listener, routes and the original's
  cluster. A port that nobody wants any more has no claims, so its kept-alive connections go to the original for as
  long as their clients like; new ones no longer come there. Taking a listener or cluster away would fail requests;
* a pod has taken what is wanted when each port is in ``redirected`` or in ``apart``, which says why it is not.

The agent may hold a redirect back for a while: the app does not listen, Envoy has died. It then says so.

A way is tried by a connection that is closed at once: what stands between pod and laptop (a NetworkPolicy, a firewall)
is found before anything depends on it. It is ``open``, ``refused`` (somebody answered: nobody listens, or it is not
allowed), or ``silent``: then it is tried again each second.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final, Literal, TypeVar

from meshdev.config import RELAY_PORTS
from meshdev.errors import ProtocolError
from meshdev.wire.fields import parse, plain
from meshdev.wire.intercepts import MAX_POD, Found, Transport
from meshdev.wire.objects import Object

Mode = Literal["proxy", "mesh"]
Protocol = Literal["tcp", "udp", "http"]
#: Why a port that is wanted is not redirected: nobody listens (a probe shall see that), the server speaks first (there
#: are no requests to look at), Envoy is not there (the original serves), or the manager has not asked for it yet.
Apart = Literal["no-listener", "speaks-first", "no-envoy", "waiting"]

#: The gRPC method; requests and answers are the bytes of :func:`encode`.
SERVICE: Final = "meshdev.v1.Agent"
METHOD: Final = f"/{SERVICE}/Session"
#: Key of the token in the metadata of both streams.
METADATA_KEY: Final = "x-meshdev-token"

MODES: Final[tuple[Mode, ...]] = ("proxy", "mesh")
PROTOCOLS: Final[tuple[Protocol, ...]] = ("tcp", "udp", "http")
FOUND: Final[tuple[Found, ...]] = ("open", "refused", "silent")
APART: Final[tuple[Apart, ...]] = ("no-listener", "speaks-first", "no-envoy", "waiting")

#: Bytes of one message: the largest state that these limits allow has 0.8 MiB.
MAX_MESSAGE: Final = 1 << 20
#: Of one pod, claimed now (MAX_CLAIMED_PORTS of them) or formerly.
MAX_PORTS: Final = 1024
MAX_CLAIMED_PORTS: Final = 256
MAX_PROBES: Final = 64
#: More intercepts and relays than a manager takes in all (60 sessions with 32 and 128).
MAX_INTERCEPTS: Final = 2048
MAX_WAYS: Final = 8192
_MAX_COUNT: Final = 1 << 53
_MAX_ID: Final = 32
_MAX_PATH: Final = 1024

_PORT: Final = re.compile(r"([1-9][0-9]{0,4})(/udp)?", re.ASCII)

T = TypeVar("T")
V = TypeVar("V")


@dataclass(frozen=True, order=True)
class PodPort:
    """A port of a pod: ``8080``, ``9090/udp``."""

    number: int
    transport: Transport = "tcp"

    def __str__(self) -> str:
        return f"{self.number}/udp" if self.transport == "udp" else str(self.number)


@dataclass(frozen=True, order=True)
class Probe:
    """An HTTP or gRPC probe of the pod's spec: requests of the kubelet that always see the original.

    ``path`` is compared whole, without its query; ``agent`` is how its ``User-Agent`` begins.
    """

    port: int
    path: str
    agent: str = "kube-probe/"


@dataclass(frozen=True)
class Hello:
    """Who the agent is. ``uid`` is the pod's and the node id of its Envoy; ``address`` the pod's."""

    pod: str
    uid: str
    namespace: str
    address: IPv4Address
    probes: tuple[Probe, ...] = ()


@dataclass(frozen=True)
class Listen:
    """On which port Envoy shall listen for each of the pod's ports that are wanted, or were."""

    ports: Mapping[PodPort, int]


@dataclass(frozen=True, order=True, slots=True)
class Counts:
    """Requests (or connections) of one intercept in this pod since its Envoy started."""

    matched: int = 0
    fell_back: int = 0
    errors: int = 0


@dataclass(frozen=True)
class State:
    """What is true in the pod now.

    ``intercepts`` are counts of requests by the intercept that they matched; ``flows`` those of connections and of
    senders of datagrams by port, which belong to whoever claims all of its traffic. ``ways`` are those of the last
    :class:`Try` that were found out, by relay.
    """

    redirected: tuple[PodPort, ...] = ()
    apart: tuple[tuple[PodPort, Apart], ...] = ()
    older: tuple[tuple[PodPort, int], ...] = ()
    intercepts: tuple[tuple[str, Counts], ...] = ()
    flows: tuple[tuple[PodPort, Counts], ...] = ()
    ways: tuple[tuple[int, Found], ...] = ()


@dataclass(frozen=True, order=True)
class Wanted:
    """A port that some intercept claims. ``reset_older``: connections older than the redirect are closed."""

    port: PodPort
    protocol: Protocol
    mode: Mode
    reset_older: bool = False


@dataclass(frozen=True)
class Want:
    """All of them; none at all: the sidecar goes when nobody comes within its time."""

    ports: tuple[Wanted, ...]


@dataclass(frozen=True)
class Redirect:
    """The ports for which Envoy has taken listener and routes."""

    ports: tuple[PodPort, ...]


@dataclass(frozen=True)
class Try:
    """The relays (TCP ports of *address*, the manager's pod) by which this pod reaches laptops: all of them."""

    relays: tuple[int, ...]
    address: IPv4Address


FromAgent = Hello | Listen | State
FromControl = Want | Redirect | Try


def encode(message: FromAgent | FromControl) -> bytes:
    """The bytes of one message."""
    match message:
        case Hello():
            value: dict[str, object] = {"hello": _hello_plain(message)}
        case Listen():
            value = {"listen": {str(port): number for port, number in message.ports.items()}}
        case State():
            value = {"state": _state_plain(message)}
        case Want():
            value = {"want": [_wanted_plain(each) for each in message.ports]}
        case Redirect():
            value = {"redirect": [str(port) for port in message.ports]}
        case Try():
            value = {"try": [str(relay) for relay in message.relays], "address": str(message.address)}
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def decode_from_agent(data: bytes) -> FromAgent:
    """What an agent said. Raises ProtocolError."""
    return _decode(data, "a message of an agent", _FROM_AGENT)


def decode_from_control(data: bytes) -> FromControl:
    """What the manager said. Raises ProtocolError."""
    return _decode(data, "a message of the manager", _FROM_CONTROL)


def pod_port(text: str) -> PodPort:
    """The port that *text* names. Raises ValueError."""
    found = _PORT.fullmatch(text)
    if found is None or int(found[1]) > 65535:
        raise ValueError(f"{text[:20]!r} is no port")
    return PodPort(int(found[1]), "udp" if found[2] else "tcp")


def _decode(data: bytes, what: str, readers: Mapping[str, Callable[[Object], T]]) -> T:
    if len(data) > MAX_MESSAGE:
        raise ProtocolError(f"{what} is longer than {MAX_MESSAGE:,} bytes")
    fields = Object(parse(data, what), what)
    for key, read in readers.items():
        if key in fields:
            return read(fields)
    raise ProtocolError(f"{what} is of unknown kind")


def _hello_plain(message: Hello) -> dict[str, object]:
    return {
        "pod": message.pod,
        "uid": message.uid,
        "namespace": message.namespace,
        "address": str(message.address),
        "probes": plain(message.probes),
    }


def _state_plain(message: State) -> dict[str, object]:
    return {
        "redirected": [str(port) for port in message.redirected],
        "apart": {str(port): why for port, why in message.apart},
        "older": {str(port): count for port, count in message.older},
        "intercepts": {name: plain(each) for name, each in message.intercepts},
        "flows": {str(port): plain(each) for port, each in message.flows},
        "ways": {str(relay): found for relay, found in message.ways},
    }


def _wanted_plain(each: Wanted) -> dict[str, object]:
    return {
        "port": str(each.port),
        "protocol": each.protocol,
        "mode": each.mode,
        "reset_older": each.reset_older,
    }


def _hello(fields: Object) -> Hello:
    inner = fields.inner("hello")
    return Hello(
        pod=inner.word("pod", MAX_POD),
        uid=inner.word("uid", 63),
        namespace=inner.word("namespace", 63),
        address=inner.address("address"),
        probes=inner.inners("probes", read_probe, MAX_PROBES),
    )


def read_probe(fields: Object) -> Probe:
    """One probe, as it stands in the hello and in the sidecar's environment."""
    return Probe(fields.integer("port", 1, 65535), fields.word("path", _MAX_PATH), fields.word("agent", _MAX_PATH))


def _listen(fields: Object) -> Listen:
    return Listen(dict(_pairs(fields, "listen", pod_port, lambda inner, key: inner.integer(key, 1, 65535), MAX_PORTS)))


def _state(fields: Object) -> State:
    inner = fields.inner("state")
    return State(
        redirected=inner.distinct("redirected", pod_port, MAX_PORTS),
        apart=_pairs(inner, "apart", pod_port, lambda found, key: found.choice(key, APART), MAX_PORTS),
        older=_pairs(inner, "older", pod_port, lambda found, key: found.integer(key, 0, _MAX_COUNT), MAX_PORTS),
        intercepts=_pairs(inner, "intercepts", _intercept, _counts, MAX_INTERCEPTS),
        flows=_pairs(inner, "flows", pod_port, _counts, MAX_PORTS),
        ways=_pairs(inner, "ways", _relay, lambda found, key: found.choice(key, FOUND), MAX_WAYS),
    )


def _intercept(text: str) -> str:
    if len(text) > _MAX_ID:
        raise ValueError("the id of an intercept is longer than any")
    return text


def _relay(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) == 5 and int(text) in RELAY_PORTS):
        raise ValueError(f"{text[:20]!r} is no relay")
    return int(text)


def _counts(fields: Object, key: str) -> Counts:
    inner = fields.inner(key)
    return Counts(*(inner.integer(name, 0, _MAX_COUNT) for name in ("matched", "fell_back", "errors")))


def _pairs(
    fields: Object, key: str, name: Callable[[str], T], read: Callable[[Object, str], V], most: int
) -> tuple[tuple[T, V], ...]:
    """An object as pairs: its keys are read by *name*, which raises ValueError."""
    values = fields.inner(key).rest()
    if len(values) > most:
        raise ProtocolError(f"{key} has more than {most} entries")
    found = Object(values, key)
    pairs = []
    for each in values:
        try:
            pairs.append((name(each), read(found, each)))
        except ValueError as error:
            raise ProtocolError(f"{key}: {error}") from None
    return tuple(pairs)


def _want(fields: Object) -> Want:
    return Want(fields.inners("want", _wanted, MAX_PORTS))


def _wanted(fields: Object) -> Wanted:
    return Wanted(
        port=fields.parsed("port", pod_port),
        protocol=fields.choice("protocol", PROTOCOLS),
        mode=fields.choice("mode", MODES),
        reset_older=fields.flag("reset_older"),
    )


def _redirect(fields: Object) -> Redirect:
    return Redirect(fields.distinct("redirect", pod_port, MAX_PORTS))


def _try(fields: Object) -> Try:
    return Try(fields.distinct("try", _relay, MAX_WAYS), fields.address("address"))


_FROM_AGENT: Final[dict[str, Callable[[Object], FromAgent]]] = {"hello": _hello, "listen": _listen, "state": _state}
_FROM_CONTROL: Final[dict[str, Callable[[Object], FromControl]]] = {
    "want": _want,
    "redirect": _redirect,
    "try": _try,
}
