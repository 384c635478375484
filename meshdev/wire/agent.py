"""Messages between the agent in a pod and the manager's control container, one JSON object each.

They travel on one bidirectional gRPC stream, :data:`METHOD`, over TLS with the certificate that control issued for the
agent's key, which Envoy's own stream has, too::

    agent   → {"hello": {"pod": "b-1", "uid": …, "namespace": …, "address": "10.244.0.7", "probes": […]}}    first
    agent   → {"consents": ["<claim_proof>", …]}            whom it knows; before that nothing is asked of it
    control → {"certificate": "<base64>", "authority": "<base64>"}    once it has an edge, and at half of its life
    control → {"want": [{"port": "8080", "protocol": "http", "mode": "mesh", "reset_older": false}]}
    agent   → {"listen": {"8080": 15801, "9090/udp": 15802}, "folder": "/tmp/meshdev-x"}    the listener ports
    control → {"redirect": ["8080"], "claims": [{"ports": ["8080"], "match": "{…}"}]}       once Envoy accepted that
    control → {"try": ["20001"], "address": "10.244.0.9"}            relays that this pod may use now
    agent   → {"state": {"redirected": ["8080"], "apart": {"7000": "no-listener"}, "older": {"8080": 3},
                         "intercepts": {"<id>": {"matched": 5, "fell_back": 1, "errors": 0}},
                         "flows": {"9090/udp": {"matched": 2, "fell_back": 0, "errors": 0}},
                         "ways": {"20001": "open"}}}

Every message carries a whole state, so after a broken stream the next one needs no history. A capability that lapsed or
was withdrawn is no longer among the consents, and the claims that rest on it alone no longer reach the pod. Four rules:

* what Envoy was once served for a port stays as long as the agent's process: listener, routes and the original's
  cluster. A port that is no longer wanted has no claims, so its kept-alive connections go to the original for as long
  as their clients keep them; new connections no longer reach the listener. Removing a listener or cluster would fail
  requests;
* a pod has applied what is wanted when each port is in ``redirected``, or in ``apart`` with the reason why it is not;
* redirected connections to TCP ports come to the passthrough proxy, whose listener ports are in ``listen``; Envoy
  listens on unix sockets in the folder (``sidecar.envoy.names.socket``). Listener ports of UDP are Envoy's. The proxy
  decides by ``claims``: a claim is among them from Envoy's acknowledgement of its routes until it ends, and is taken
  out before its routes are removed;
* on each stream an agent that ever was to listen sends ``listen`` before ``state``. The folder is its process's: with
  another one, or with ``state`` first, it is another process, and Envoy another Envoy. Until there is a ``state``
  control sends no ``redirect``, and Envoy nothing new.

A ``redirect`` has a ``number``, which grows. The agent repeats it in ``state`` once the proxy decides by its claims::

    control → {"redirect": ["8080"], "claims": [{"ports": ["8080"], "match": "{…}"}], "number": 3}
    agent   → {"state": {…, "applied": 3}}

The agent may hold a redirect back: the app does not listen, or (for UDP) Envoy has exited. It then reports the reason.
Of a TCP port without a listener the rule may stay in place, where the kernel itself looks for one at each connection.

While somebody watches the pod (:mod:`meshdev.wire.access`), control says so again and again, and the agent sends what
its passthrough worker saw. Control says it only to agents whose hello has ``records``: others would end the stream. So
nothing is sent that an older peer does not know::

    control → {"watch": {"on": true, "all": true}}
    agent   → {"records": {"records": [{…}], "dropped": 3}}

A relay is probed by a connection that is closed at once, so that a NetworkPolicy or firewall between pod and laptop is
found before anything depends on it. Its return path is ``open``, ``refused`` (there was an answer: nothing listens, or
it is not allowed) or ``silent``, and is then probed again every second.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Final, Literal

from meshdev.config import RELAY_PORTS
from meshdev.errors import ProtocolError
from meshdev.wire.access import AccessRecords, Watch
from meshdev.wire.codecs import FLAG, PORT, Choice, Codec, Many, Pairs, Parsed, Text, itself
from meshdev.wire.counts import COUNT, Counts, PassthroughTotals, Traffic
from meshdev.wire.intercepts import MAX_POD, ProbeResult
from meshdev.wire.message import Keyed, decode, field, message, nested
from meshdev.wire.modes import MODE, Mode
from meshdev.wire.objects import CERTIFICATE, DIGEST, IPV4, Line
from meshdev.wire.ports import PROTOCOL, Protocol, Transport

#: Why a wanted port is not redirected: nothing listens (probes must see that), Envoy is not running (of UDP ports: the
#: original serves), or the manager has not asked for it yet.
HoldReason = Literal["no-listener", "no-envoy", "waiting"]

#: The gRPC method; requests and answers are the bytes of :func:`encode`. Agents of meshdev.v1 and v2 do not speak TLS:
#: none of them reaches a manager of today.
SERVICE: Final = "meshdev.v3.Agent"
METHOD: Final = f"/{SERVICE}/Session"

PROBE_RESULTS: Final[tuple[ProbeResult, ...]] = ("open", "refused", "silent")
HOLD_REASONS: Final[tuple[HoldReason, ...]] = ("no-listener", "no-envoy", "waiting")

#: Bytes of one message: the largest state that these limits allow has 0.8 MiB.
MAX_MESSAGE: Final = 1 << 20
#: Of one pod, claimed now (at most MAX_CLAIMED_PORTS) or earlier.
MAX_PORTS: Final = 1024
MAX_CLAIMED_PORTS: Final = 256
MAX_PROBES: Final = 64
#: More intercepts and relays than a manager accepts in total (60 sessions with 32 and 128 each).
MAX_INTERCEPTS: Final = 2048
MAX_RETURN_PATHS: Final = 8192
#: Intercepts of one pod whose bytes and durations are reported.
MAX_TRAFFIC: Final = 256
#: Claims of one pod that its passthrough proxy decides by, ports of one and bytes of its match: those of a Spec.
MAX_CLAIMS: Final = 1024
_MAX_CLAIM_PORTS: Final = 64
_MAX_MATCH: Final = 12 << 10
#: Bytes of the folder of Envoy's sockets: sun_path (unix(7)) has 108 with its NUL.
MAX_FOLDER: Final = 80
#: Capabilities that an agent keeps.
MAX_CONSENTS: Final = 1024
_MAX_ID: Final = 32
_PATH: Final = Line(1024)

_PORT: Final = re.compile(r"([1-9][0-9]{0,4})(/udp)?", re.ASCII)
_FOLDER: Final = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+", re.ASCII)


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
        raise ValueError(f"{text[:20]!r} is not a port")
    return PodPort(int(found[1]), "udp" if found[2] else "tcp")


def tcp_port(text: str) -> PodPort:
    """The TCP port that *text* names. Raises ValueError."""
    port = pod_port(text)
    if port.transport != "tcp":
        raise ValueError(f"{text[:20]!r} is not a TCP port")
    return port


def _folder(text: str) -> str:
    if _FOLDER.fullmatch(text) is None:
        raise ValueError("it is not the absolute path of a folder")
    return text


def _intercept(text: str) -> str:
    if len(text) > _MAX_ID:
        raise ValueError("the id of an intercept is too long")
    return text


def _relay(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) == 5 and int(text) in RELAY_PORTS):
        raise ValueError(f"{text[:20]!r} is not a relay")
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
    """An HTTP or gRPC probe of the pod's spec: requests of the kubelet that always go to the original.

    ``path`` is compared as a whole, without the query; ``agent`` is the prefix of its ``User-Agent``.
    """

    port: int = field(PORT)
    path: str = field(_PATH)
    agent: str = field(_PATH, default="kube-probe/")


PROBES: Final = Many(nested(Probe), MAX_PROBES)


@message()
class AgentHello:
    """The agent's identity. ``uid`` is the pod's and the node id of its Envoy; ``address`` the pod's.

    ``records``: it may be watched.
    """

    pod: str = field(Line(MAX_POD))
    uid: str = field(Line(63))
    namespace: str = field(Line(63))
    address: IPv4Address = field(IPV4)
    probes: tuple[Probe, ...] = field(PROBES, default=())
    records: bool = field(FLAG, default=False, sparse=True)


@message()
class Consents:
    """The proofs (meshdev.identity.edges.claim_proof) of all capabilities that the agent gave and that still hold."""

    proofs: tuple[str, ...] = field(Many(DIGEST, MAX_CONSENTS, distinct=itself), key="consents")


@message()
class IssuedCertificate:
    """The certificate that agent and Envoy show, and that of the authority, by which they know control and relay.

    Both are DER. The next one comes at half of its life, as long as the agent has an edge.
    """

    certificate: bytes = field(CERTIFICATE)
    authority: bytes = field(CERTIFICATE)


@message()
class Listen:
    """The listener port for each of the pod's ports that is, or was, wanted: the proxy's for TCP, Envoy's for UDP.

    Where the proxy finds Envoy for a TCP port is a unix socket in ``folder``.
    """

    ports: Mapping[PodPort, int] = field(_Listening(), key="listen")
    folder: str = field(Parsed(_folder, MAX_FOLDER))


@message()
class State:
    """The pod's state now.

    ``intercepts`` counts requests by the intercept they matched; ``flows`` counts connections and senders of datagrams
    by port, for the holder that claims all of its traffic. ``return_paths`` has the results so far of the last
    :class:`ProbeRelays`, by relay. ``applied`` is the number of the newest :class:`Redirect` of this stream by whose
    claims the passthrough proxy decides; 0 before any.

    ``envoys`` is the number of the Envoy that counted ``intercepts`` and ``flows``, 1 for the agent's first: with each
    they begin anew. ``passthrough`` is up to 10 s old. Agents that are older send neither.

    ``traffic`` and ``flow_traffic`` are by intercept and by port, as ``intercepts`` and ``flows`` are; of at most
    MAX_TRAFFIC intercepts. Agents that are older send none.
    """

    redirected: tuple[PodPort, ...] = field(_PORTS, default=())
    held_back: tuple[tuple[PodPort, HoldReason], ...] = field(
        Pairs(pod_port, Choice(HOLD_REASONS), MAX_PORTS), default=(), key="apart"
    )
    older: tuple[tuple[PodPort, int], ...] = field(Pairs(pod_port, COUNT, MAX_PORTS), default=())
    intercepts: tuple[tuple[str, Counts], ...] = field(Pairs(_intercept, nested(Counts), MAX_INTERCEPTS), default=())
    flows: tuple[tuple[PodPort, Counts], ...] = field(Pairs(pod_port, nested(Counts), MAX_PORTS), default=())
    return_paths: tuple[tuple[int, ProbeResult], ...] = field(
        Pairs(_relay, Choice(PROBE_RESULTS), MAX_RETURN_PATHS), default=(), key="ways"
    )
    applied: int = field(COUNT, default=0, sparse=True)
    envoys: int = field(COUNT, default=0, sparse=True)
    passthrough: PassthroughTotals = field(nested(PassthroughTotals), default=PassthroughTotals(), sparse=True)
    traffic: tuple[tuple[str, Traffic], ...] = field(
        Pairs(_intercept, nested(Traffic), MAX_TRAFFIC), default=(), sparse=True
    )
    flow_traffic: tuple[tuple[PodPort, Traffic], ...] = field(
        Pairs(pod_port, nested(Traffic), MAX_CLAIMED_PORTS), default=(), sparse=True
    )

    def without_traffic(self) -> "State":
        """What is kept of it: thousands of pods may report some."""
        return replace(self, traffic=(), flow_traffic=()) if self.traffic or self.flow_traffic else self


@message(order=True)
class Wanted:
    """A port that an intercept claims. ``reset_older``: connections older than the redirect are closed."""

    port: PodPort = field(Parsed(pod_port))
    protocol: Protocol = field(PROTOCOL)
    mode: Mode = field(MODE)
    reset_older: bool = field(FLAG, default=False)


@message()
class Want:
    """All wanted ports. With none, the sidecar exits once its idle time is over."""

    ports: tuple[Wanted, ...] = field(Many(nested(Wanted), MAX_PORTS), key="want")


@message()
class DecidedClaim:
    """A claim by which the passthrough proxy decides now: Envoy has its routes.

    ``match`` is a text of ``intercept.spec.canonical_json``: "null" is every request. ``whole``: everything that comes
    to the ports, whatever it is (proxy mode).
    """

    ports: tuple[PodPort, ...] = field(Many(Parsed(tcp_port), _MAX_CLAIM_PORTS, distinct=itself))
    match: str = field(Text(_MAX_MATCH), default="null", sparse=True)
    whole: bool = field(FLAG, default=False, sparse=True)


@message()
class Redirect:
    """The ports for which Envoy has accepted listener and routes.

    ``claims``, in the order in which they were made, are those that the passthrough proxy decides by. Once it does, the
    agent repeats the ``number`` (:attr:`State.applied`). Numbers grow on a stream; 0 is not answered.
    """

    ports: tuple[PodPort, ...] = field(_PORTS, key="redirect")
    claims: tuple[DecidedClaim, ...] = field(Many(nested(DecidedClaim), MAX_CLAIMS), default=(), sparse=True)
    number: int = field(COUNT, default=0, sparse=True)

    def matches(self, port: PodPort) -> tuple[str, ...]:
        """The texts of the matches on a port, in the order of the claims."""
        return tuple(claim.match for claim in self.claims if port in claim.ports)

    def is_whole(self, port: PodPort) -> bool:
        """Whether all that comes to a port is claimed."""
        return any(claim.whole and port in claim.ports for claim in self.claims)


@message()
class ProbeRelays:
    """All relays of TCP, at *address* (the manager's pod), by which this pod reaches laptops."""

    relays: tuple[int, ...] = field(Many(Parsed(_relay), MAX_RETURN_PATHS, distinct=itself), key="try")
    address: IPv4Address = field(IPV4)


FromAgent = AgentHello | Consents | Listen | State | AccessRecords
#: What the agent's life cycle follows.
ManagerOrder = Want | Redirect | ProbeRelays
FromControl = IssuedCertificate | ManagerOrder | Watch


_FROM_AGENT: Final[Keyed[FromAgent]] = Keyed(Listen, Consents, hello=AgentHello, state=State, records=AccessRecords)
_FROM_CONTROL: Final[Keyed[FromControl]] = Keyed(Want, Redirect, ProbeRelays, IssuedCertificate, watch=Watch)


def encode(message: FromAgent | FromControl) -> bytes:
    """Encode one message."""
    value = _FROM_AGENT.dump(message) if isinstance(message, FromAgent) else _FROM_CONTROL.dump(message)
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def decode_from_agent(data: bytes) -> FromAgent:
    """Decode a message of an agent. Raises ProtocolError."""
    return decode(_bounded(data), "a message of an agent", _FROM_AGENT.load)


def decode_from_control(data: bytes) -> FromControl:
    """Decode a message of the control container. Raises ProtocolError."""
    return decode(_bounded(data), "a message of the manager", _FROM_CONTROL.load)


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_MESSAGE:
        raise ProtocolError(f"a message of {len(data):,} bytes is longer than {MAX_MESSAGE:,}")
    return data
