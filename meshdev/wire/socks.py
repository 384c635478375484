"""What clients of a proxy ask: SOCKS5, HTTP CONNECT and plain HTTP requests, told apart by their first byte.

Sources: RFC 1928 (SOCKS5; no authentication, CONNECT only), RFC 9110 9.3.6 (CONNECT), RFC 9112 3.2.2 (a request for a
proxy has an absolute URI; that is what ``http_proxy`` makes of ``http://`` URLs). One request a connection.

::

    handshake = Handshake()
    while handshake.request is None:
        send(handshake.receive(received))     # raises ProxyRequestError: send its answer, close
    request = handshake.request               # connect to request.host, request.port
    send(request.granted())                   # or request.refused(cause, text), and close
    send_upstream(request.first)              # then everything is passed on, both ways
"""

import re
import struct
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal, assert_never

import h11

#: Of an HTTP head; also of everything before a request is complete.
MAX_HEAD: Final = 1 << 16
_MAX_NAME: Final = 253  # RFC 1035 2.3.4, as text
#: Labels of what programs look up: letters, digits, hyphens, and the underscores of SRV names.
_NAME: Final = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_AUTHORITY: Final = re.compile(r"(\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@]+))(:(?P<port>[0-9]{1,5})?)?")
_UNTIL_PATH: Final = re.compile(r"[^/?#]*")

_VERSION_4: Final = 4
_VERSION_5: Final = 5
_NO_AUTHENTICATION: Final = 0x00
_NO_METHOD: Final = b"\x05\xff"
_METHOD: Final = b"\x05\x00"
_CONNECT: Final = 1
#: SOCKS4's "request rejected or failed": such a client reads no other answer.
_REJECTED_4: Final = b"\x00\x5b" + bytes(6)
#: Address and port of a reply: programs do not read them, and here they would be those of another network.
_NOWHERE: Final = struct.pack("!B4sH", 1, bytes(4), 0)

#: What concerns one connection, not the message (RFC 9110 7.6.1); ``connection`` may name more.
_OF_ONE_HOP: Final = frozenset(
    {
        *(b"connection", b"proxy-connection", b"keep-alive", b"te", b"upgrade"),
        *(b"proxy-authorization", b"proxy-authenticate"),
    }
)
#: Never left out, whatever ``connection`` names: the body would end elsewhere for the server.
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})

_PHRASES: Final = {
    400: "Bad Request",
    403: "Forbidden",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}

ProxyProtocol = Literal["socks5", "connect", "forward"]


class ConnectFailure(Enum):
    """Why there is no connection: reply of SOCKS (RFC 1928, 6), status of HTTP, reason for programs."""

    FAILED = (1, 502, "failed")
    NOT_ALLOWED = (2, 403, "not-allowed")
    UNREACHABLE = (4, 502, "unreachable")
    UNKNOWN_NAME = (4, 502, "unknown-name")
    REFUSED = (5, 502, "refused")
    TIMEOUT = (6, 504, "timeout")  # "TTL expired" is what SOCKS has for it; Tor and OpenSSH use it so, too
    BUSY = (1, 503, "busy")

    def __init__(self, reply: int, status: int, reason: str) -> None:
        self.reply = reply
        self.status = status
        self.reason = reason


class ProxyRequestError(Exception):
    """The client's bytes are no request that can be served; ``answer`` is what to send before closing."""

    def __init__(self, message: str, answer: bytes) -> None:
        super().__init__(message)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """Where a client wants to be connected to."""

    protocol: ProxyProtocol
    host: str
    """A name in lower case without a dot at its end, or an address."""
    port: int
    first: bytes = b""
    """What to send there first."""

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The host, where it is an address; None where it is a name."""
        return _address(self.host)

    def granted(self) -> bytes:
        """The answer once it is connected."""
        match self.protocol:
            case "socks5":
                return bytes((_VERSION_5, 0, 0)) + _NOWHERE
            case "connect":
                return b"HTTP/1.1 200 Connection established\r\n\r\n"
            case "forward":
                return b""
            case never:
                assert_never(never)

    def refused(self, cause: ConnectFailure, text: str) -> bytes:
        """The answer instead; SOCKS has no room for *text*."""
        if self.protocol == "socks5":
            return bytes((_VERSION_5, cause.reply, 0)) + _NOWHERE
        return http_answer(cause.status, cause.reason, text)


class Handshake:
    """Reads what a client sends until it has asked for something."""

    def __init__(self) -> None:
        self.request: ProxyRequest | None = None
        self._buffer = b""
        self._http: h11.Connection | None = None
        self._greeted = False

    def receive(self, data: bytes) -> bytes:
        """Take some bytes; empty ones mean that the client has sent all. What to send back, often nothing.

        Raises ProxyRequestError. Must not be called once there is a request.
        """
        if not data:
            raise ProxyRequestError("the client closed before it asked for anything", b"")
        if self._http is None and not self._buffer and not self._greeted and data[0] not in {_VERSION_4, _VERSION_5}:
            self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        if self._http is not None:
            self._receive_http(self._http, data)
            return b""
        self._buffer += data
        return self._receive_socks()

    # -- SOCKS5 ----------------------------------------------------------------------------------------------------

    def _receive_socks(self) -> bytes:
        answer = b""
        if self._buffer[:1] == bytes((_VERSION_4,)) and not self._greeted:
            raise ProxyRequestError("SOCKS4 is not served: use SOCKS5", _REJECTED_4)
        if not self._greeted:
            if len(self._buffer) < 2 or len(self._buffer) < 2 + self._buffer[1]:
                return b""
            methods, self._buffer = self._buffer[2 : 2 + self._buffer[1]], self._buffer[2 + self._buffer[1] :]
            if _NO_AUTHENTICATION not in methods:
                raise ProxyRequestError("the client insists on authentication, and there is none", _NO_METHOD)
            self._greeted = True
            answer = _METHOD
        self._read_socks_request()
        return answer

    def _read_socks_request(self) -> None:
        buffer = self._buffer
        if buffer and buffer[0] != _VERSION_5:
            raise _no_socks(1, f"not a request of SOCKS5: version {buffer[0]}")
        if len(buffer) < 5:
            return
        if buffer[1] != _CONNECT:
            raise _no_socks(7, f"SOCKS command {buffer[1]} is not served, only CONNECT")
        length = {1: 4, 3: 1 + buffer[4], 4: 16}.get(buffer[3])
        if length is None:
            raise _no_socks(8, f"unknown kind of address {buffer[3]}")
        if len(buffer) < 4 + length + 2:
            return
        raw, port = buffer[4 : 4 + length], int.from_bytes(buffer[4 + length : 6 + length], "big")
        host = _host(raw[1:].decode("ascii", "replace") if buffer[3] == 3 else str(ip_address(raw)))
        if host is None:
            raise _no_socks(1, "the name has characters that names do not have")
        self.request = ProxyRequest("socks5", host, port, buffer[6 + length :])
        self._buffer = b""

    # -- HTTP ------------------------------------------------------------------------------------------------------

    def _receive_http(self, http: h11.Connection, data: bytes) -> None:
        http.receive_data(data)
        try:
            event = http.next_event()
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint if error.error_status_hint in _PHRASES else 400
            raise _no_http(status, f"no request of HTTP: {error}") from error
        if isinstance(event, h11.Request):
            rest, _ = http.trailing_data
            self.request = _tunnel(event, rest) if event.method == b"CONNECT" else _forward(event, rest)


def http_answer(status: int, reason: str, text: str) -> bytes:
    """An answer of the proxy itself: its body begins with ``meshdev:``, and its header names the reason."""
    body = f"meshdev: {text}\n".encode()
    head = (
        f"HTTP/1.1 {status} {_PHRASES[status]}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        f"Connection: close\r\nmeshdev-answer: {reason}\r\n\r\n"
    )
    return head.encode() + body


def _tunnel(request: h11.Request, rest: bytes) -> ProxyRequest:
    """``CONNECT host:port``: the port is not optional (RFC 9110 9.3.6)."""
    host, port = _authority(request.target.decode())
    if port is None:
        raise _no_http(400, "CONNECT needs HOST:PORT")
    return ProxyRequest("connect", host, port, rest)


def _forward(request: h11.Request, rest: bytes) -> ProxyRequest:
    """``GET http://host/path``: sent to that host as ``GET /path``, for one answer."""
    if request.http_version not in {b"1.0", b"1.1"}:
        raise _no_http(505, "only HTTP/1 is forwarded")
    scheme, separator, after = request.target.decode().partition("://")
    if not separator:
        raise _no_http(400, "this is a proxy: it takes CONNECT, absolute http:// URLs, and SOCKS5")
    if scheme.lower() != "http":
        raise _no_http(501, "only http:// URLs are forwarded: use CONNECT")
    authority = _UNTIL_PATH.match(after)[0]  # type: ignore[index]  # it matches everything
    host, port = _authority(authority)
    path = after[len(authority) :].partition("#")[0]
    if not path:
        path = "*" if request.method == b"OPTIONS" else "/"  # RFC 9112 3.2.4
    elif not path.startswith("/"):
        path = f"/{path}"
    return ProxyRequest("forward", host, 80 if port is None else port, _head(request, authority, path) + rest)


def _head(request: h11.Request, authority: str, path: str) -> bytes:
    """The head for the server: the headers as they came, without those of this hop, and the end after one answer."""
    dropped = _OF_ONE_HOP | {b"host"} | (_named_by_connection(request) - _FRAMING)
    version = request.http_version
    return b"\r\n".join(
        (
            request.method + b" " + path.encode() + b" HTTP/" + version,
            b"Host: " + authority.encode(),
            *(name + b": " + value for name, value in request.headers.raw_items() if name.lower() not in dropped),
            b"Via: " + version + b" meshdev",  # RFC 9110 7.6.3
            b"Connection: close",
            b"",
            b"",
        )
    )


def _named_by_connection(request: h11.Request) -> set[bytes]:
    values = (value for name, value in request.headers if name == b"connection")
    return {name.strip().lower() for value in values for name in value.split(b",")}


def _authority(text: str) -> tuple[str, int | None]:
    """Host and port of ``host[:port]``. Raises ProxyRequestError; also for a name and password in it."""
    found = _AUTHORITY.fullmatch(text)
    host = _host(found["six"] or found["name"]) if found else None
    if found is None or host is None:
        raise _no_http(400, "no valid HOST:PORT")
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 0 < port < 1 << 16:
        raise _no_http(400, f"there is no port {port}")
    return host, port


def _host(text: str) -> str | None:
    """An address in its usual form, or a name in lower case; None where it is neither."""
    if (address := _address(text)) is not None:
        return str(address)
    name = text.lower().removesuffix(".")
    return name if len(name) <= _MAX_NAME and _NAME.fullmatch(name) else None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return None if address.scope_id else address.ipv4_mapped or address
    return address


def _no_http(status: int, text: str) -> ProxyRequestError:
    reason = _PHRASES[status].lower().replace(" ", "-")
    return ProxyRequestError(text, http_answer(status, reason, text))


def _no_socks(reply: int, text: str) -> ProxyRequestError:
    return ProxyRequestError(text, bytes((_VERSION_5, reply, 0)) + _NOWHERE)
