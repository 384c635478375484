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
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final, Literal

from meshdev.config import RELAY_PORTS
from meshdev.errors import ProtocolError
from meshdev.wire.codecs import FLAG, PORT, Choice, Codec, Many, Pairs, Parsed, itself
from meshdev.wire.counts import COUNT, Counts
from meshdev.wire.intercepts import MAX_POD, ProbeResult, Transport
from meshdev.wire.message import Keyed, decode, field, message, nested
from meshdev.wire.objects import IPV4, Line

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
FOUND: Final[tuple[ProbeResult, ...]] = ("open", "refused", "silent")
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
_MAX_ID: Final = 32
_PATH: Final = Line(1024)

_PORT: Final = re.compile(r"([1-9][0-9]{0,4})(/udp)?", re.ASCII)


@dataclass(frozen=True, order=True)
class PodPort:
    """A port of a pod: ``8080``, ``9090/udp``."""

    number: int
    transport: Transport = "tcp"

    def __str__(self) -> str:
        return f"{self.number}/udp" if self.transport == "udp" else str(self.number)


def pod_port(text: str) -> PodPort:
    """The port that *text* names. Raises ValueError."""
    found = _PORT.fullmatch(text)
    if found is None or int(found[1]) > 65535:
        raise ValueError(f"{text[:20]!r} is no port")
    return PodPort(int(found[1]), "udp" if found[2] else "tcp")


def _intercept(text: str) -> str:
    if len(text) > _MAX_ID:
        raise ValueError("the id of an intercept is longer than any")
    return text


def _relay(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) == 5 and int(text) in RELAY_PORTS):
        raise ValueError(f"{text[:20]!r} is no relay")
    return int(text)


_PORTS: Final = Many(Parsed(pod_port), MAX_PORTS, distinct=itself)


class _Listening(Codec[Mapping[PodPort, int]]):
    """By port of the pod."""

    _pairs: Final = Pairs(pod_port, PORT, MAX_PORTS)

    def load(self, value: object) -> Mapping[PodPort, int]:
        return dict(self._pairs.load(value))

    def dump(self, value: Mapping[PodPort, int]) -> object:
        return self._pairs.dump(tuple(value.items()))


@message(order=True)
class Probe:
    """An HTTP or gRPC probe of the pod's spec: requests of the kubelet that always see the original.

    ``path`` is compared whole, without its query; ``agent`` is how its ``User-Agent`` begins.
    """

    port: int = field(PORT)
    path: str = field(_PATH)
    agent: str = field(_PATH, default="kube-probe/")


PROBES: Final = Many(nested(Probe), MAX_PROBES)


@message()
class AgentHello:
    """Who the agent is. ``uid`` is the pod's and the node id of its Envoy; ``address`` the pod's."""

    pod: str = field(Line(MAX_POD))
    uid: str = field(Line(63))
    namespace: str = field(Line(63))
    address: IPv4Address = field(IPV4)
    probes: tuple[Probe, ...] = field(PROBES, default=())


@message()
class Listen:
    """On which port Envoy shall listen for each of the pod's ports that are wanted, or were."""

    ports: Mapping[PodPort, int] = field(_Listening(), key="listen")


@message()
class State:
    """What is true in the pod now.

    ``intercepts`` are counts of requests by the intercept that they matched; ``flows`` those of connections and of
    senders of datagrams by port, which belong to whoever claims all of its traffic. ``ways`` are those of the last
    :class:`Try` that were found out, by relay.
    """

    redirected: tuple[PodPort, ...] = field(_PORTS, default=())
    apart: tuple[tuple[PodPort, Apart], ...] = field(Pairs(pod_port, Choice(APART), MAX_PORTS), default=())
    older: tuple[tuple[PodPort, int], ...] = field(Pairs(pod_port, COUNT, MAX_PORTS), default=())
    intercepts: tuple[tuple[str, Counts], ...] = field(Pairs(_intercept, nested(Counts), MAX_INTERCEPTS), default=())
    flows: tuple[tuple[PodPort, Counts], ...] = field(Pairs(pod_port, nested(Counts), MAX_PORTS), default=())
    ways: tuple[tuple[int, ProbeResult], ...] = field(Pairs(_relay, Choice(FOUND), MAX_WAYS), default=())


@message(order=True)
class Wanted:
    """A port that some intercept claims. ``reset_older``: connections older than the redirect are closed."""

    port: PodPort = field(Parsed(pod_port))
    protocol: Protocol = field(Choice(PROTOCOLS))
    mode: Mode = field(Choice(MODES))
    reset_older: bool = field(FLAG, default=False)


@message()
class Want:
    """All of them; none at all: the sidecar goes when nobody comes within its time."""

    ports: tuple[Wanted, ...] = field(Many(nested(Wanted), MAX_PORTS), key="want")


@message()
class Redirect:
    """The ports for which Envoy has taken listener and routes."""

    ports: tuple[PodPort, ...] = field(_PORTS, key="redirect")


@message()
class Try:
    """The relays (TCP ports of *address*, the manager's pod) by which this pod reaches laptops: all of them."""

    relays: tuple[int, ...] = field(Many(Parsed(_relay), MAX_WAYS, distinct=itself), key="try")
    address: IPv4Address = field(IPV4)


FromAgent = AgentHello | Listen | State
FromControl = Want | Redirect | Try


_FROM_AGENT: Final[Keyed[FromAgent]] = Keyed(Listen, hello=AgentHello, state=State)
_FROM_CONTROL: Final[Keyed[FromControl]] = Keyed(Want, Redirect, Try)


def encode(message: FromAgent | FromControl) -> bytes:
    """The bytes of one message."""
    value = _FROM_AGENT.dump(message) if isinstance(message, FromAgent) else _FROM_CONTROL.dump(message)
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def decode_from_agent(data: bytes) -> FromAgent:
    """What an agent said. Raises ProtocolError."""
    return decode(_bounded(data), "a message of an agent", _FROM_AGENT.load)


def decode_from_control(data: bytes) -> FromControl:
    """What the manager said. Raises ProtocolError."""
    return decode(_bounded(data), "a message of the manager", _FROM_CONTROL.load)


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_MESSAGE:
        raise ProtocolError(f"a message of {len(data):,} bytes is longer than {MAX_MESSAGE:,}")
    return data
