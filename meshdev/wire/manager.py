"""Messages between the containers *tunnel* and *control*, one JSON object a datagram of a SEQPACKET unix socket.

::

    tunnel  → {"pod": "10.244.0.9"}                              first, to whoever connects
    tunnel  → {"claim": {"id": …, "spec": "{…}", "holder": …, "address": "198.18.0.2", "relays": […], "up": […]}}
    tunnel  → {"agents": {"id": …, "part": 0, "agents": […], …}}  after its claim: the agents it is for
    tunnel  → {"withdrawn": id}
    tunnel  → {"watched": {"id": …, "on": true, "all": true}}     a session's WATCH
    tunnel  → {"synced": true}                                   the claims sent so far are all there are
    tunnel  → {"seen": {"event": "joined", "holder": "ann@laptop", "address": "198.18.0.2"}}
    control → {"identity": {"certificate": "…"}}                 first: the manager's certificate, for all sessions
    control → {"allow": {"relay": 20001, "addresses": ["10.244.0.7"], "keep": false}}
    control → {"report": {"id": …, "pod": …, "gone": false, "body": "{…}"}}
    control → {"issued": {"id": …, "request": …, "body": "{…}"}}     for each agent that a claim names
    control → {"records": {"id": …, "body": "{…}"}}               while a claim is watched

But for records, both send states, never changes, so a side that was slow or has restarted gets the newest and needs no
history. The body of a report is a REPORT (meshdev.wire.intercepts) that the tunnel container forwards to the session
and never reads, that of ``issued`` an ISSUED, that of ``records`` RECORDS.
"""

import json
from ipaddress import IPv4Address
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.wire.codecs import FLAG, PORT, Codec, InvalidValueError, Many, Text, itself
from meshdev.wire.control import ManagerIdentity
from meshdev.wire.intercepts import EXCLUDED, MAX_AGENTS, MAX_POD, MAX_RELAYS, MAX_SPEC, RELAY, Agents, Relay
from meshdev.wire.message import Keyed, decode, field, message, nested
from meshdev.wire.objects import DIGEST, IDENTITY, IPV4, ForPeople, Line
from meshdev.wire.ports import TRANSPORT, Transport
from meshdev.wire.watching import WatchClaim

#: Bytes of one datagram: a spec, escaped once more, and its relays. Below the kernel's 208 KiB for a socket's queue.
MAX_DATAGRAM: Final = 64 << 10
#: Pods of one claim that may use a relay of UDP.
MAX_ADDRESSES: Final = MAX_AGENTS
#: Bytes of the body of records: escaped once more they fit a datagram (meshdev.wire.access.MAX_RECORDS).
MAX_RECORDS_BODY: Final = 60 << 10
#: Bytes of one report's body. The longest text that a report may have takes 4 KiB.
MAX_BODY: Final = 8 << 10
_HOLDER: Final = Line(128)


class _Body(Codec[bytes]):
    """JSON that is not for whoever reads the message around it."""

    def __init__(self, limit: int = MAX_BODY) -> None:
        self._limit = limit
        self._text = Text(limit)

    def load(self, value: object) -> bytes:
        body = self._text.load(value).encode()  # lone surrogates: UnicodeEncodeError is a ValueError
        if len(body) > self._limit:
            raise InvalidValueError
        return body

    def dump(self, value: bytes) -> object:
        return value.decode()


@message()
class ManagerAddress:
    """The manager pod's own address: relays are there."""

    address: IPv4Address = field(IPV4, key="pod")


@message()
class ListeningPort:
    """A port whose local program listens, in a session that is not silent."""

    remote: int = field(PORT)
    protocol: Transport = field(TRANSPORT)


@message()
class Claimed:
    """A live session's intercept as it stands now. ``address`` is the session's."""

    id: str = field(IDENTITY)
    spec: str = field(Text(MAX_SPEC))
    holder: str = field(_HOLDER)
    address: IPv4Address = field(IPV4)
    relays: tuple[Relay, ...] = field(Many(nested(Relay), MAX_RELAYS))
    up: tuple[ListeningPort, ...] = field(Many(nested(ListeningPort), MAX_RELAYS))
    reset_older: bool = field(FLAG, default=False)
    excluded: tuple[str, ...] = field(EXCLUDED, default=(), optional=True)


@message()
class Withdrawn:
    """The intercept no longer exists."""

    id: str = field(IDENTITY, key="withdrawn")


@message()
class Synced:
    """All claims have been sent."""

    done: bool = field(FLAG, default=True, key="synced")


@message()
class Seen:
    """For the log: a session joined or left."""

    event: str = field(Line())
    holder: str = field(_HOLDER)
    address: IPv4Address = field(IPV4)


@message()
class Allow:
    """Who may use a relay of UDP. *keep*: those allowed before stay allowed, control has restarted."""

    relay: int = field(RELAY)
    addresses: tuple[IPv4Address, ...] = field(Many(IPV4, MAX_ADDRESSES, distinct=itself))
    keep: bool = field(FLAG)


@message()
class PodReport:
    """What one pod reports of a claim: *body* is a REPORT as the session gets it, *gone* its last one."""

    id: str = field(IDENTITY)
    pod: str = field(ForPeople(MAX_POD))
    gone: bool = field(FLAG)
    body: bytes = field(_Body())


@message()
class CertificateIssued:
    """The certificate for an agent that a claim names by the request with that sha256: *body* is an ISSUED."""

    id: str = field(IDENTITY)
    request: str = field(DIGEST)
    body: bytes = field(_Body())


@message()
class RecordsOfClaim:
    """Records of requests that a claim's session watches: *body* is a RECORDS."""

    id: str = field(IDENTITY)
    body: bytes = field(_Body(MAX_RECORDS_BODY))


ToControl = ManagerAddress | Claimed | Agents | Withdrawn | WatchClaim | Synced | Seen
ToTunnel = ManagerIdentity | Allow | PodReport | CertificateIssued | RecordsOfClaim


_TO_CONTROL: Final[Keyed[ToControl]] = Keyed(
    ManagerAddress, Withdrawn, Synced, claim=Claimed, agents=Agents, seen=Seen, watched=WatchClaim
)
_TO_TUNNEL: Final[Keyed[ToTunnel]] = Keyed(
    identity=ManagerIdentity, allow=Allow, report=PodReport, issued=CertificateIssued, records=RecordsOfClaim
)


def encode(message: ToControl | ToTunnel) -> bytes:
    """One datagram. Raises ProtocolError for one longer than MAX_DATAGRAM, of which the reader would get a part."""
    value = _TO_TUNNEL.dump(message) if isinstance(message, ToTunnel) else _TO_CONTROL.dump(message)
    datagram = json.dumps(value, separators=(",", ":")).encode()
    if len(datagram) > MAX_DATAGRAM:
        raise ProtocolError(f"a datagram of {len(datagram):,} bytes is longer than {MAX_DATAGRAM:,}")
    return datagram


def decode_to_control(datagram: bytes) -> ToControl:
    """Decode a datagram of the tunnel container. Raises ProtocolError."""
    return decode(datagram, "a datagram", _TO_CONTROL.load)


def decode_to_tunnel(datagram: bytes) -> ToTunnel:
    """Decode a datagram of the control container. Raises ProtocolError."""
    return decode(datagram, "a datagram", _TO_TUNNEL.load)
