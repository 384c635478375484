"""A relay in a thread, with real sockets and certificates; the test is control, client and laptop."""

import contextlib
import functools
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from meshdev.identity.authority import Authority
from meshdev.identity.keys import KeyPair
from meshdev.identity.tls import load_identity, pem
from meshdev.manager.relay.admission import Admission
from meshdev.manager.relay.server import RelayServer
from meshdev.pump.loop import Loop
from meshdev.sidecar.envoy.tls import RELAY_NAME
from meshdev.wire.relay import RelayEndpoint, RelayIdentity, ToRelay, server_name
from tests.sockets import wait_for

SECONDS = 10.0
#: Not 127.0.0.1: other tests at the same moment connect to ports that they have just closed there.
LAPTOP = "127.0.77.2"


@dataclass(frozen=True)
class Workload:
    """An Envoy's key and certificate."""

    key: KeyPair
    certificate: bytes
    authority: bytes

    def context(self, *, certificate: bool = True) -> ssl.SSLContext:
        """As Envoy has it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False  # of 20001.relay.meshdev; that the certificate is the relay's is looked at here
        context.load_verify_locations(cadata=pem(self.authority))
        if certificate:
            load_identity(context, self.key.private_pem, [self.certificate])
        return context


class TlsClient:
    """A TLS client whose directions end one by one, as those of Envoy and not as those of ``ssl.SSLSocket``."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, name: str, session: ssl.SSLSession | None) -> None:
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name, session=session)
        while not self._shaken():
            self._receive()

    def _shaken(self) -> bool:
        try:
            self.ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self.sock.sendall(self._outgoing.read())
        return True

    def _receive(self) -> None:
        piece = self.sock.recv(1 << 16)
        if not piece:
            raise EOFError("no close_notify")
        self._incoming.write(piece)

    def records(self, data: bytes) -> bytes:
        """As they are to be sent."""
        while data:
            data = data[self.ssl.write(data) :]
        return self._outgoing.read()

    def sendall(self, data: bytes) -> None:
        self.sock.sendall(self.records(data))

    def recv(self, size: int) -> bytes:
        """Nothing after a close_notify. Raises EOFError at an end without one."""
        while True:
            try:
                return self.ssl.read(size)
            except ssl.SSLWantReadError:
                self._receive()
            except ssl.SSLZeroReturnError:
                return b""

    def ending(self) -> bytes:
        """A close_notify, as it is to be sent; one may go on reading."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.ssl.unwrap()
        return self._outgoing.read()

    def finish(self) -> None:
        """Send a close_notify, and go on reading."""
        self.sock.sendall(self.ending())


class RelayWorld:
    """Nobody is permitted yet, and the laptop does not listen."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        folder: Path,
        *,
        descriptors: int = 4096,
        admission: Admission[Any] | None = None,
    ) -> None:
        self.stack = stack
        self.now = datetime.now(UTC)
        self.authority = Authority.open(folder / "authority", "manager-uid", self.now)
        self.loop = Loop()
        self.listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        self.listener.setblocking(False)
        self.server = RelayServer(
            self.loop, self.listener, KeyPair.generate(), descriptors=descriptors, admission=admission
        )
        self.workload = self.issue()
        self.laptop_listener = stack.enter_context(self._laptop())
        self.relay: int = self.laptop_listener.getsockname()[1]
        self._pool = stack.enter_context(ThreadPoolExecutor())
        self._running = self._pool.submit(self.loop.run)

    def issue(self, lifetime: timedelta = timedelta(hours=1), authority: Authority | None = None) -> Workload:
        """A certificate of the workload's."""
        key = KeyPair.generate()
        issued = (authority or self.authority).issue_workload(
            key.request(), "ns/default/deployment/b/pod/uid-b-1", now=self.now, lifetime=lifetime
        )
        return Workload(key, issued, self.authority.certificate)

    def _laptop(self) -> socket.socket:
        for port in range(20000, 30000):
            sock = socket.socket()
            sock.settimeout(SECONDS)
            try:
                sock.bind((LAPTOP, port))
            except OSError:
                sock.close()
                continue
            return sock
        raise AssertionError("no port is free")

    # Control

    def do(self, step: Callable[[], object]) -> None:
        """In the loop's thread; returns when it is done."""
        done = threading.Event()

        def stepped() -> None:
            step()
            done.set()

        self.loop.post(stepped)
        assert done.wait(SECONDS)

    def take(self, *messages: ToRelay) -> None:
        for message in messages:
            self.do(functools.partial(self.server.take, message))

    def certify(self) -> None:
        request = self.server.request()
        issued = self.authority.issue_server(request.csr, RELAY_NAME, now=self.now)
        self.take(RelayIdentity(issued, self.authority.certificate))

    def permit(self, *keys: str) -> None:
        self.take(RelayEndpoint(self.relay, IPv4Address(LAPTOP), frozenset(keys or (self.workload.key.key_id,))))

    # The two sides

    def client(self, receive_buffer: int = 0) -> socket.socket:
        """Connected, and nothing more."""
        sock = self.stack.enter_context(socket.socket())
        sock.settimeout(SECONDS)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect(self.listener.getsockname())
        return sock

    def tls(
        self,
        context: ssl.SSLContext | None = None,
        name: str = "",
        session: ssl.SSLSession | None = None,
        receive_buffer: int = 0,
    ) -> "TlsClient":
        """A client that has completed its handshake."""
        context = context or self.workload.context()
        return TlsClient(self.client(receive_buffer), context, name or server_name(self.relay), session)

    def listen(self) -> None:
        self.laptop_listener.listen(512)

    def accept(self, receive_buffer: int = 0) -> socket.socket:
        """The next connection that reaches the laptop."""
        if receive_buffer:
            self.laptop_listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock, _ = self.laptop_listener.accept()
        sock.settimeout(SECONDS)
        return self.stack.enter_context(sock)

    def both(self) -> "tuple[TlsClient, socket.socket]":
        """A client that is connected with the laptop."""
        client = self.tls()
        return client, self.accept()

    until = staticmethod(wait_for)

    def close(self) -> None:
        self.loop.post(self.server.close)
        self.loop.post(self.loop.stop)
        self._running.result(SECONDS)
        self.loop.close()
