"""Messages between the agent in a pod and its passthrough worker, one JSON object a line.

They travel on a pair of unix sockets, of which the worker inherits one; its end is the end of the worker::

    agent  → {"app": "10.244.0.7"}                                            first: where the app listens
    agent  → {"ports": {"8080": {"whole": false, "matches": ["{…}", "null"], "envoy": "/tmp/meshdev-x/8080",
                                 "http2": true, "probes": [{"port": 8080, "path": "/healthz", "agent": "…"}]}}}
    agent  → {"listen": "8080"}        the listener's descriptor is beside the line's first byte (SCM_RIGHTS, unix(7))
    agent  → {"ask": 7}
    worker → {"counts": {"answers": 7, "open": {"8080": 3}, "accepted": 12, "claimed": 5, "without_envoy": 0,
                         "errors": 0, "pod_address": {}, "raw": {"until-close": 1}}}
    agent  → {"watch": {"on": true, "all": true}}
    worker → {"records": {"records": [{…}], "dropped": 3}}          while it is watched (:mod:`meshdev.wire.access`)

``ports`` is the whole state each time: on a port that it does not name nothing is claimed. Both processes are of one
image, so the worker refuses what it does not know. Sockets that have their client's address have a queue of their own
(``sidecar/agent/client_addresses.py``).
"""

from collections import Counter
from ipaddress import IPv4Address
from typing import Final, Self

from meshdev.wire import jsonlines
from meshdev.wire.access import AccessRecords, Watch
from meshdev.wire.agent import MAX_INTERCEPTS, MAX_PORTS, PROBES, PodPort, Probe, tcp_port
from meshdev.wire.codecs import FLAG, Many, Pairs, Parsed, Text
from meshdev.wire.counts import BY_REASON, COUNT, CountsByReason, PassthroughTotals
from meshdev.wire.message import Keyed, decode, field, message, nested
from meshdev.wire.objects import IPV4

#: Bytes of one line. The claims of a pod come in one message of the manager (1 MiB, ``wire.agent``); here each match is
#: JSON within JSON, which at most doubles it, and probes come on top.
MAX_LINE: Final = 4 << 20
#: Bytes of a unix socket's path (unix(7): 108 with its NUL).
_MAX_PATH: Final = 107
#: More than a Spec has, with all that is around its match.
_MAX_MATCH: Final = 16 << 10


@message(strict=True)
class AppAddress:
    """The pod's address, at which the app listens."""

    address: IPv4Address = field(IPV4, key="app")


@message(strict=True)
class AddListener:
    """Accept connections for this port from the listening socket that comes with this message."""

    port: PodPort = field(Parsed(tcp_port), key="listen")


@message(strict=True)
class PortClaims:
    """What is claimed of a port.

    ``whole``: everything that comes, whatever it is. Otherwise the requests that fit one of ``matches``: texts of
    ``intercept.spec.canonical_json``, in the order in which they were claimed ("null": every request). With neither,
    new connections pass without being inspected.

    ``envoy`` is the path of Envoy's listener, and ``http2`` whether connections of HTTP/2 go there. Requests of
    ``probes`` are nobody's. ``draining``: the app is about to end, so what it closes is closed for its clients, too.
    """

    whole: bool = field(FLAG, default=False)
    matches: tuple[str, ...] = field(Many(Text(_MAX_MATCH), MAX_INTERCEPTS), default=())
    envoy: str = field(Text(_MAX_PATH), default="")
    http2: bool = field(FLAG, default=False)
    probes: tuple[Probe, ...] = field(PROBES, default=())
    draining: bool = field(FLAG, default=False)


#: Of a port that is not named.
UNCLAIMED: Final = PortClaims()


@message(strict=True)
class SetClaims:
    """What is claimed of all ports, now."""

    ports: tuple[tuple[PodPort, PortClaims], ...] = field(Pairs(tcp_port, nested(PortClaims), MAX_PORTS))


@message(strict=True)
class AskCounts:
    """Answer with :class:`PassthroughCounts` of this number."""

    number: int = field(COUNT, key="ask")


@message(strict=True)
class PassthroughCounts:
    """Connections and requests since the worker began."""

    answers: int = field(COUNT, default=0)
    """The number of the question."""
    open: tuple[tuple[PodPort, int], ...] = field(Pairs(tcp_port, COUNT), default=())
    """Connections that are not over, by port; where it drains, without those whose client has everything."""
    accepted: int = field(COUNT, default=0)
    """Connections."""
    claimed: int = field(COUNT, default=0)
    """Requests."""
    without_envoy: int = field(COUNT, default=0)
    """Claimed requests and connections that went to the app, because Envoy did not accept a connection."""
    errors: int = field(COUNT, default=0)
    """Connections that were reset by an internal error."""
    pod_address: CountsByReason = field(BY_REASON, default=())
    """Connections to the app from the pod's address instead of the client's, by reason."""
    raw: CountsByReason = field(BY_REASON, default=())
    """Connections that were followed no further, by reason."""

    @property
    def all_open(self) -> int:
        """Of all ports."""
        return sum(count for _, count in self.open)

    @property
    def totals(self) -> PassthroughTotals:
        """What the manager learns of them."""
        return PassthroughTotals(
            self.accepted, self.claimed, self.without_envoy, self.errors, self.pod_address, self.raw
        )

    def following(self, earlier: Self) -> Self:
        """These counts with those of an *earlier* worker, whose connections are over."""
        return type(self)(
            self.answers,
            self.open,
            self.accepted + earlier.accepted,
            self.claimed + earlier.claimed,
            self.without_envoy + earlier.without_envoy,
            self.errors + earlier.errors,
            _sum(self.pod_address, earlier.pod_address),
            _sum(self.raw, earlier.raw),
        )


def _sum(one: CountsByReason, other: CountsByReason) -> CountsByReason:
    both = Counter(dict(one))
    both.update(dict(other))
    return tuple(sorted(both.items()))


ToWorker = AppAddress | AddListener | SetClaims | AskCounts | Watch
FromWorker = PassthroughCounts | AccessRecords

_TO_WORKER: Final[Keyed[ToWorker]] = Keyed(AppAddress, AddListener, SetClaims, AskCounts, watch=Watch)
_FROM_WORKER: Final[Keyed[FromWorker]] = Keyed(counts=PassthroughCounts, records=AccessRecords)


def encode(message: ToWorker | FromWorker) -> bytes:
    """One line, newline included. Raises ProtocolError when it would be longer than :data:`MAX_LINE`."""
    value = _FROM_WORKER.dump(message) if isinstance(message, FromWorker) else _TO_WORKER.dump(message)
    return jsonlines.encode(value, MAX_LINE)


def decode_to_worker(line: bytes) -> ToWorker:
    """Decode a message of the agent. Raises ProtocolError."""
    return decode(line, "a message of the agent", _TO_WORKER.load)


def decode_from_worker(line: bytes) -> FromWorker:
    """Decode a message of the worker. Raises ProtocolError."""
    return decode(line, "a message of the worker", _FROM_WORKER.load)
