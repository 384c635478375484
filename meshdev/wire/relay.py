"""Messages between the containers *control* and *relay*, one JSON object a datagram of a SEQPACKET unix socket.

::

    relay   → {"request": {"csr": "<base64>"}}                     first, to whoever connects: it made a key of its own
    control → {"identity": {"certificate": "<base64>", "authority": "<base64>"}}      DER, issued on that request
    control → {"endpoint": {"relay": 20001, "address": "198.18.0.2", "keys": "<base64>"}}
    control → {"removed": 20001}
    control → {"synced": true}                            the endpoints sent on this connection so far are all there are

States, never changes: an endpoint is the whole of its relay, with all its keys, and one that is sent again replaces the
former. So nothing of a session is left where its relay becomes another one's. While nobody is connected the last state
stays; after a new connection's "synced" only what that connection sent.

The keys are binary, 32 bytes each, because then all of them fit one datagram: 1,056 take 45 KB.
"""

import base64
import json
import re
from ipaddress import IPv4Address
from typing import Final

from meshdev.wire.codecs import FLAG, Codec, InvalidValueError
from meshdev.wire.intercepts import MAX_AGENTS, RELAY
from meshdev.wire.message import Keyed, decode, field, message
from meshdev.wire.objects import CERTIFICATE, IPV4, Der

#: Bytes of one datagram; below the kernel's 208 KiB for a socket's queue.
MAX_DATAGRAM: Final = 64 << 10
MAX_KEYS: Final = MAX_AGENTS
_KEY_BYTES: Final = 32
_NAME: Final = re.compile(rb"([1-9][0-9]{4})\.relay\.meshdev")


_KEYS: Final = Der(MAX_KEYS * _KEY_BYTES)


class KeyIds(Codec[frozenset[str]]):
    """Key ids (meshdev.identity.keys), 64 hexadecimal digits each."""

    def load(self, value: object) -> frozenset[str]:
        digits = _KEYS.load(value).hex() if value != "" else ""
        size = 2 * _KEY_BYTES
        if len(digits) % size:
            raise InvalidValueError
        return frozenset([digits[at : at + size] for at in range(0, len(digits), size)])

    def dump(self, value: frozenset[str]) -> object:
        return base64.b64encode(bytes.fromhex("".join(sorted(value)))).decode()


@message()
class RelaySigningRequest:
    """The relay asks for a certificate of its key (PKCS#10, DER)."""

    csr: bytes = field(CERTIFICATE)


@message()
class RelayIdentity:
    """The relay's certificate, and the one of the authority that issues those of workloads; both DER."""

    certificate: bytes = field(CERTIFICATE)
    authority: bytes = field(CERTIFICATE)


@message()
class RelayEndpoint:
    """Where a relay leads, and whose certificates are let through: those with one of these keys."""

    relay: int = field(RELAY)
    address: IPv4Address = field(IPV4)
    keys: frozenset[str] = field(KeyIds())


@message()
class RelayRemoved:
    """The relay no longer exists."""

    relay: int = field(RELAY, key="removed")


@message()
class RelaysSynced:
    """All endpoints have been sent."""

    done: bool = field(FLAG, default=True, key="synced")


FromRelay = RelaySigningRequest
ToRelay = RelayIdentity | RelayEndpoint | RelayRemoved | RelaysSynced

_FROM_RELAY: Final[Keyed[FromRelay]] = Keyed(request=RelaySigningRequest)
_TO_RELAY: Final[Keyed[ToRelay]] = Keyed(RelayRemoved, RelaysSynced, identity=RelayIdentity, endpoint=RelayEndpoint)


def server_name(relay: int) -> str:
    """What a client names in its ClientHello to be connected with that relay."""
    return f"{relay}.relay.meshdev"


def relay_of(name: bytes | None) -> int | None:
    """The relay of a :func:`server_name`; None for every other name. Case is ignored (RFC 6066, 3)."""
    found = _NAME.fullmatch(name.lower()) if name else None
    if found is None or not RELAY.low <= (relay := int(found[1])) <= RELAY.high:
        return None
    return relay


def encode(message: ToRelay | FromRelay) -> bytes:
    """One datagram."""
    value = _FROM_RELAY.dump(message) if isinstance(message, FromRelay) else _TO_RELAY.dump(message)
    return json.dumps(value, separators=(",", ":")).encode()


def decode_from_relay(datagram: bytes) -> FromRelay:
    """Decode a datagram of the relay. Raises ProtocolError."""
    return decode(datagram, "a datagram of the relay", _FROM_RELAY.load)


def decode_to_relay(datagram: bytes) -> ToRelay:
    """Decode a datagram of control. Raises ProtocolError."""
    return decode(datagram, "a datagram of control", _TO_RELAY.load)
