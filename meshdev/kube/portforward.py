"""Dialling a carrier: TCP or a proxy, TLS, the HTTP upgrade and the opening of the streams (docs/design/0003).

The blocking part runs in a thread and ends with its socket: when the caller is cancelled or out of time the socket is
shut down under it. RBAC: ``create`` (SPDY) and ``get`` (WebSocket; ``create`` too from 1.35 on) on pods/portforward.
"""

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from python_socks import ProxyError
from python_socks.sync import Proxy

from meshdev.errors import (
    CredentialError,
    ForbiddenError,
    MeshdevError,
    PeerClosed,
    PortForwardError,
    ProtocolError,
    UnreachableError,
)
from meshdev.kube.access import access
from meshdev.kube.client import KubeApi, pods_path
from meshdev.kube.endpoint import Endpoint
from meshdev.kube.errors import NotFoundError, from_connection, from_status, status_message
from meshdev.pump.transport import ByteTransport, SocketTransport, TlsTransport
from meshdev.wire import spdy, upgrade
from meshdev.wire.framing import CARRIER_KINDS, CarrierKind, Framing
from meshdev.wire.spdy import SpdyFraming
from meshdev.wire.upgrade import Upgrade, UpgradeAccepted, UpgradeRefused
from meshdev.wire.websocket import WebSocketFraming

#: More than a TLS record: OpenSSL must not keep decrypted bytes back, where epoll would never report them.
_READ: Final = 64 * 1024


class SwallowedError(PortForwardError):
    """The upgrade was cut off or got no answer, though the server speaks TLS: something in between may not pass it."""


@dataclass(frozen=True)
class PortForward:
    """A port-forward that stands; the caller owns the transport. The pod's port may still refuse: in ``unwrap``."""

    transport: ByteTransport
    framing: Framing
    kind: CarrierKind


@dataclass(frozen=True)
class _Handling:
    """What differs between the kinds of carriers: the method of the upgrade, which RBAC checks as a verb, the upgrade
    itself by host, target and headers, and for a port the framing with the bytes that open its streams.
    """

    method: str
    handshake: Callable[[str, str, Mapping[str, str]], Upgrade]
    open: Callable[[int], tuple[Framing, bytes]]


def _websocket_handshake(host: str, target: str, headers: Mapping[str, str]) -> Upgrade:
    return upgrade.websocket(host, target, headers, os.urandom(16))


def _open_spdy(port: int) -> tuple[Framing, bytes]:
    return SpdyFraming(), spdy.opening(port)


def _open_websocket(port: int) -> tuple[Framing, bytes]:
    framing = WebSocketFraming(SpdyFraming(), partial(os.urandom, 4))
    return framing, framing.message(spdy.opening(port))


HANDLING: Final[Mapping[CarrierKind, _Handling]] = {
    "spdy": _Handling("POST", upgrade.spdy, _open_spdy),
    "websocket": _Handling("GET", _websocket_handshake, _open_websocket),
}


async def dial(api: KubeApi, namespace: str, pod: str, port: int, carrier: CarrierKind, deadline: float) -> PortForward:
    """Forward *port* of *pod* within *deadline* seconds, not counting the time of a credential plugin.

    Raises PortForwardError where this carrier is refused (another may work) and SwallowedError where it gets no answer,
    NotFoundError without the pod, ForbiddenError, CredentialError, UntrustedError, UnreachableError (also when time is
    up before the carrier is asked for) and ProtocolError.
    """
    try:
        return await _dial(api, namespace, pod, port, carrier, deadline)
    except CredentialError:
        if not await api.renew():
            raise
        return await _dial(api, namespace, pod, port, carrier, deadline)


async def _dial(api: KubeApi, namespace: str, pod: str, port: int, carrier: CarrierKind, seconds: float) -> PortForward:
    path = pods_path(namespace, pod, "portforward")
    api.on_access(access(HANDLING[carrier].method, path, {}))
    handshake = _handshake(api.endpoint, path, carrier, await api.auth_headers())
    attempt = _Attempt(api.endpoint, await api.tls(), time.monotonic() + seconds)
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.to_thread(attempt.run, handshake, carrier, port)
    except TimeoutError:
        attempt.abort()
        if attempt.asked:
            raise _swallowed(carrier, api.endpoint, f"no answer within {seconds:.0f} seconds") from None
        raise UnreachableError(f"no port-forward from the API server {api.endpoint} in time") from None
    except asyncio.CancelledError:
        attempt.abort()
        raise


def _handshake(endpoint: Endpoint, path: str, carrier: CarrierKind, headers: Mapping[str, str]) -> Upgrade:
    host = endpoint.parts.netloc.rpartition("@")[2]
    target = endpoint.parts.path.rstrip("/") + path
    return HANDLING[carrier].handshake(host, target, headers)


class _Attempt:
    """One try, run in a thread; :meth:`abort` from another makes it fail at its next step."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext | None, end: float) -> None:
        self._endpoint = endpoint
        self._context = context
        self._end = end
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._aborted = False
        self.asked = False
        """The connection stands, and the carrier is being asked for: what fails now may be the carrier's kind."""

    def abort(self) -> None:
        """Shut the socket down, now or as soon as there is one. The thread closes it."""
        with self._lock:
            self._aborted = True
            if self._socket is not None:
                with suppress(OSError):
                    # The plain socket's: SSLSocket.shutdown forgets its TLS state under the thread that uses it.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def run(self, handshake: Upgrade, carrier: CarrierKind, port: int) -> PortForward:
        """Connect, upgrade, open. On failure nothing is left open."""
        try:
            sock = self._connect()
            try:
                answer = self._upgrade(sock, handshake)
            except ProtocolError as error:
                raise PortForwardError(error.message, hint=_other(carrier)) from error
            except PeerClosed as error:
                raise SwallowedError(error.message, hint=_other(carrier)) from error
            if isinstance(answer, UpgradeRefused):
                raise _refusal(answer, carrier, handshake.target)
            dialled = self._open(sock, carrier, port, answer.rest)
            with self._lock:
                if self._aborted:
                    raise TimeoutError
                self._socket = None
        except (OSError, ProxyError) as error:
            failure = from_connection(error, self._endpoint)
            # TLS 1.3 refuses a client's certificate only now: the error is the same for each carrier.
            if self.asked and not isinstance(failure, CredentialError):
                raise _swallowed(carrier, self._endpoint, failure.message) from error
            raise failure from error
        else:
            return dialled
        finally:
            if self._socket is not None:
                self._socket.close()

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0 or self._aborted:
            raise TimeoutError
        return left

    def _keep(self, sock: socket.socket) -> None:
        with self._lock:
            self._socket = sock
        sock.settimeout(self._left())

    def _connect(self) -> socket.socket:
        endpoint = self._endpoint
        sock: socket.socket
        if endpoint.jump:
            sock = endpoint.jump.dial(endpoint.host, endpoint.port, self._left())
        elif endpoint.proxy:
            proxy = Proxy.from_url(endpoint.proxy.replace("socks5h:", "socks5:"), rdns=True)
            sock = proxy.connect(endpoint.host, endpoint.port, timeout=self._left())
        else:
            sock = self._connect_any(endpoint.host, endpoint.port)
        self._keep(sock)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is None:
            return sock
        # Takes over the descriptor; the handshake is a step of its own so that abort() sees the new object.
        secure = self._context.wrap_socket(
            sock, server_hostname=endpoint.server_name or endpoint.host, do_handshake_on_connect=False
        )
        self._keep(secure)
        secure.do_handshake()
        return secure

    def _connect_any(self, host: str, port: int) -> socket.socket:
        """The first address that answers; each gets its share of the time that is left."""
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        failure: OSError | None = None
        for tried, (family, kind, protocol, _, address) in enumerate(infos):
            sock = socket.socket(family, kind, protocol)
            self._keep(sock)
            sock.settimeout(self._left() / (len(infos) - tried))
            try:
                sock.connect(address)
            except OSError as error:
                failure = error
                sock.close()
            else:
                return sock
        raise failure or OSError(f"{host} has no address")

    def _upgrade(self, sock: socket.socket, handshake: Upgrade) -> UpgradeAccepted | UpgradeRefused:
        sock.settimeout(self._left())
        self.asked = True
        sock.sendall(handshake.request)
        while True:
            sock.settimeout(self._left())
            answer = handshake.feed(sock.recv(_READ))
            if answer is not None:
                return answer

    def _open(self, sock: socket.socket, carrier: CarrierKind, port: int, rest: bytes) -> PortForward:
        framing, opening = HANDLING[carrier].open(port)
        sock.settimeout(self._left())
        sock.sendall(opening)
        if any(framing.unwrap(memoryview(rest))):
            raise ProtocolError("the server sent data before the port-forward was opened")
        transport = TlsTransport(sock) if isinstance(sock, ssl.SSLSocket) else SocketTransport(sock)
        return PortForward(transport, framing, carrier)


def _refusal(answer: UpgradeRefused, carrier: CarrierKind, target: str) -> MeshdevError:
    """An ordinary HTTP answer to the upgrade: the API's own refusal, or that of something in between."""
    asked = access(HANDLING[carrier].method, target[target.index("/api/") :], {})
    error = from_status(asked, answer.status, answer.body)
    if isinstance(error, ForbiddenError | CredentialError | NotFoundError):
        return error
    reason = status_message(answer.body) or "no reason given"
    return PortForwardError(
        f"the port-forward over {carrier} was refused with HTTP status {answer.status}: {reason}", hint=_other(carrier)
    )


def _swallowed(carrier: CarrierKind, endpoint: Endpoint, why: str) -> SwallowedError:
    return SwallowedError(
        f"the port-forward over {carrier} was cut off on the way to the API server {endpoint}: {why}",
        hint=_other(carrier),
    )


def _other(carrier: CarrierKind) -> str:
    others = " or ".join(kind for kind in CARRIER_KINDS if kind != carrier)
    return f"a proxy or load balancer on the way may not pass {carrier} on; try --carrier {others}"
