"""The HTTP/1.1 upgrade before a carrier: request bytes out, the server's answer in (parsed by h11)."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import h11

from meshdev.errors import PeerClosed, ProtocolError

#: Subprotocol of a port-forward's stream pairs (client-go: portforward.PortForwardProtocolV1Name).
PORT_FORWARD_PROTOCOL: Final = "portforward.k8s.io"
SPDY_PROTOCOL: Final = "SPDY/3.1"
#: The same inside a WebSocket (KEP-4006; client-go: portforward.WebsocketsSPDYTunnelingPortForwardV1).
WEBSOCKET_SUBPROTOCOL: Final = f"{SPDY_PROTOCOL}+{PORT_FORWARD_PROTOCOL}"

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_BODY_LIMIT: Final = 64 * 1024


@dataclass(frozen=True)
class UpgradeAccepted:
    """The connection has switched to the new protocol; *rest* are its first bytes."""

    rest: bytes


@dataclass(frozen=True)
class UpgradeRefused:
    """An ordinary HTTP answer instead; *body* may be truncated to 64 KiB."""

    status: int
    body: bytes


class Upgrade:
    """One upgrade: send :attr:`request`, then feed what arrives until it is decided. Made by :func:`spdy` and so on."""

    def __init__(self, method: str, target: str, headers: Mapping[str, str], expected: Mapping[str, str]) -> None:
        self.target: Final = target
        self._connection = h11.Connection(h11.CLIENT)
        self._expected = expected
        self._status: int | None = None  # of a refusal, once its head is there
        self._body = bytearray()
        try:
            head = self._connection.send(h11.Request(method=method, target=target, headers=list(headers.items())))
            end = self._connection.send(h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            raise ProtocolError(f"a header of the port-forward cannot be sent: {error}") from error
        self.request: Final = (head or b"") + (end or b"")

    def feed(self, data: bytes) -> UpgradeAccepted | UpgradeRefused | None:
        """The decision, or None while more bytes are needed; empty *data* is the end of the connection."""
        if not data and self._status is None:
            raise PeerClosed("the server closed the connection instead of answering the port-forward")
        try:
            self._connection.receive_data(data)
            return self._advance()
        except h11.RemoteProtocolError as error:
            raise ProtocolError(f"the server's answer to the port-forward is not HTTP: {error}") from error

    def _advance(self) -> UpgradeAccepted | UpgradeRefused | None:
        while True:
            event = self._connection.next_event()
            if event is h11.NEED_DATA:
                return None
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                self._check(event)
                return UpgradeAccepted(self._connection.trailing_data[0])
            if isinstance(event, h11.Response):
                self._status = event.status_code
            elif isinstance(event, h11.Data):
                self._body += event.data
            if isinstance(event, h11.EndOfMessage | h11.ConnectionClosed) or len(self._body) > _BODY_LIMIT:
                return UpgradeRefused(self._status or 0, bytes(self._body[:_BODY_LIMIT]))

    def _check(self, answer: h11.InformationalResponse) -> None:
        """Check a 101: one without the requested protocol is a failure (RFC 6455, 4.1), with SPDY, too."""
        given = {name.decode("ascii").lower(): value.decode("latin-1") for name, value in answer.headers}
        for name, wanted in self._expected.items():
            value = given.get(name, "")
            if value != wanted and not (name == "upgrade" and value.lower() == wanted.lower()):
                raise ProtocolError(f"the server switched protocols with {name}: {value!r}, expected {wanted!r}")


def spdy(host: str, target: str, headers: Mapping[str, str]) -> Upgrade:
    """Native SPDY/3.1: a POST without a body."""
    fixed = {
        "Host": host,
        "Connection": "Upgrade",
        "Upgrade": SPDY_PROTOCOL,
        "X-Stream-Protocol-Version": PORT_FORWARD_PROTOCOL,
        "Content-Length": "0",
    }
    return Upgrade("POST", target, {**fixed, **headers}, {"upgrade": SPDY_PROTOCOL})


def websocket(host: str, target: str, headers: Mapping[str, str], nonce: bytes) -> Upgrade:
    """SPDY inside a WebSocket. *nonce* are 16 random bytes (RFC 6455, 4.1)."""
    key = base64.b64encode(nonce)
    fixed = {
        "Host": host,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key.decode("ascii"),
        "Sec-WebSocket-Protocol": WEBSOCKET_SUBPROTOCOL,
    }
    expected = {
        "upgrade": "websocket",
        "sec-websocket-accept": accept_key(key),
        "sec-websocket-protocol": WEBSOCKET_SUBPROTOCOL,
    }
    return Upgrade("GET", target, {**fixed, **headers}, expected)


def accept_key(key: bytes) -> str:
    """``Sec-WebSocket-Accept`` for a key (RFC 6455, 4.2.2); SHA-1 is the protocol's choice and protects nothing."""
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")
