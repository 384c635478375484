"""The tunnel listener: carriers connect, authenticate by HELLO, and join their session.

Whoever reaches it was let through by the API server (RBAC on pods/portforward); still every byte is checked, and
nobody gets more than a bounded share.
"""

import logging
import socket
from concurrent.futures import Future
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from meshdev.config import OLDEST_PROTOCOL, PROTOCOL
from meshdev.errors import FirewallError, MeshdevError, PeerClosed, ProtocolError, RefusedError, TunnelError
from meshdev.manager.tunnel import address_file
from meshdev.manager.tunnel.addresses import RestingAddress, SessionAddresses
from meshdev.manager.tunnel.claims import ClaimTable
from meshdev.manager.tunnel.control_socket import ControlSocket
from meshdev.manager.tunnel.network import Network, PodNetwork
from meshdev.manager.tunnel.session import Session, digest
from meshdev.pump.loop import READABLE, Loop, Timer
from meshdev.pump.pump import Pump
from meshdev.pump.transport import SocketTransport
from meshdev.tun.device import TunDevice
from meshdev.wire.control import Close, Hello, Sessions, Welcome, decode, encode
from meshdev.wire.framing import PlainFraming
from meshdev.wire.intercepts import AgentKeys, Agents, Intercept, Local, Withdraw
from meshdev.wire.manager import Seen
from meshdev.wire.watching import WatchClaim

log = logging.getLogger(__name__)

#: Sessions at once. Each holds a TUN device and, at rest, well under 1 MiB.
MAX_SESSIONS: Final = 60
#: Carriers of all sessions at once. Each holds a batch of a third of a MiB: more do not fit the container's 128 MiB.
MAX_CARRIERS_IN_ALL: Final = 160
#: Connections that have not sent HELLO; one more ends the oldest of them.
MAX_UNAUTHENTICATED: Final = 64
#: Time to send HELLO, in seconds.
HELLO_SECONDS: Final = 5.0
#: Time to forget what the last session at an address left behind, where it cannot rest, in seconds: carriers whose
#: heartbeats are not answered for twice as long are given up.
FLUSH_SECONDS: Final = 2.0
#: Connections taken in one turn of the loop.
_ACCEPTS_PER_TURN: Final = 16


class Refusal(Exception):  # noqa: N818 -- an answer, not a fault
    """A HELLO cannot be answered with WELCOME; ``close`` is the answer instead."""

    def __init__(self, close: Close) -> None:
        super().__init__(close.reason)
        self.close = close


class TunnelServer:
    """Owns the listener and all sessions; belongs to the loop's thread."""

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        network: Network,
        pod: PodNetwork,
        *,
        name: str,
        namespace: str,
        control: ControlSocket,
        addresses: Path = address_file.PATH,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._network = network
        self._pod = pod
        self._name = name
        self._namespace = namespace
        self._control = control
        self._sessions: dict[str, Session] = {}
        self._claims = ClaimTable(loop, network, control, pod.address, self._sessions.values)
        self._unauthenticated: dict[int, _Connection] = {}
        self._addresses = addresses
        self._session_addresses = SessionAddresses(loop.clock, address_file.read(addresses))
        self._resting: Timer | None = None
        self._writing: Timer | None = None
        self._await_rest()
        listener.setblocking(False)
        loop.register(listener.fileno(), READABLE, self._on_accept)

    def drain(self) -> None:
        """Take no more carriers and announce the end of this manager; a second call does nothing."""
        if self._listener.fileno() < 0:
            return
        self._loop.unregister(self._listener.fileno())
        self._listener.close()
        close = encode(Close("draining", "the manager pod is being stopped"))
        for session in self._sessions.values():
            session.send(close)

    def close(self) -> None:
        """End everything at once, the listener too."""
        self.drain()
        for connection in list(self._unauthenticated.values()):
            connection.pump.end(PeerClosed("the manager stops"))
        for session in list(self._sessions.values()):
            self.dismiss(session)

    def observe(self) -> Sessions:
        """Everybody who is on the manager."""
        return Sessions(tuple(session.info() for session in self._sessions.values()))

    def welcome(self, hello: Hello) -> tuple[Session, Welcome]:
        """The session *hello* belongs to, made where it is new. Raises Refusal."""
        version = min(hello.newest, PROTOCOL)
        if version < max(hello.oldest, OLDEST_PROTOCOL):
            ours, theirs = f"{OLDEST_PROTOCOL} to {PROTOCOL}", f"{hello.oldest} to {hello.newest}"
            reason = f"the manager speaks protocol {ours}, you speak {theirs}"
            raise Refusal(Close("version", reason, len(self._sessions)))
        session = self._sessions.get(hello.session)
        if sum(other.carriers for other in self._sessions.values()) >= MAX_CARRIERS_IN_ALL:
            reason = f"{MAX_CARRIERS_IN_ALL} carriers reach the manager already"
            raise Refusal(Close("full", reason, len(self._sessions)))
        if session is None:
            session = self._new_session(hello)
        elif not session.proves(hello.secret):
            raise Refusal(Close("secret", "this session belongs to somebody else"))
        return session, Welcome(
            version=version,
            address=session.address,
            mtu=self._pod.mtu,
            offload=session.offload,
            nameservers=self._pod.nameservers,
            search=self._pod.search,
            pod=self._name,
            namespace=self._namespace,
            pod_address=self._pod.address,
        )

    def dismiss(self, session: Session) -> None:
        """End it without grace."""
        session.end(PeerClosed("the session is over"))
        self._gone(session)

    def on_goodbye(self, session: Session) -> None:
        """The laptop disconnects and does not come back: its connections end now, not after the rest."""
        self.dismiss(session)
        self._network.flush(session.address)

    def claim(self, session: Session, message: Intercept | Agents | AgentKeys | Withdraw | Local) -> None:
        """A session's message about its intercepts."""
        self._claims.take(session, message)

    def watch(self, session: Session, message: WatchClaim) -> None:
        """A session's message about what it watches."""
        self._claims.watch(session, message)

    def hello_received(self, connection: "_Connection") -> None:
        """The connection has sent HELLO, or has ended."""
        self._unauthenticated.pop(id(connection), None)

    def _new_session(self, hello: Hello) -> Session:
        if len(self._sessions) >= MAX_SESSIONS:
            raise Refusal(Close("full", f"{MAX_SESSIONS} sessions use the manager already", MAX_SESSIONS))
        try:
            address, device, offload = self._open_device(hello)
        except MeshdevError as error:
            raise Refusal(Close("address", error.message, len(self._sessions))) from error
        session = Session(self._loop, hello, address, device, offload, self._gone, self._claims.resend)
        self._sessions[session.id] = session
        address_file.write(self._addresses, self._session_addresses.known())
        log.info("session of %s has %s on %s", session.holder, address, device.name)
        self._control.seen(Seen("joined", session.holder, address))
        return session

    def _open_device(self, hello: Hello) -> tuple[IPv4Address, TunDevice, int]:
        lease = self._session_addresses.take(hello.pools, hello.wanted, digest(hello.secret))
        try:
            if lease.stale:
                self._flush_now(lease.address)
            device, offload = self._network.open_device(lease.address, lease.pool, hello.carriers, hello.offload)
        except BaseException:
            self._session_addresses.cancel(lease)
            raise
        return lease.address, device, offload

    def _flush_now(self, address: IPv4Address) -> None:
        """Nothing else is done meanwhile, so not for long. Raises FirewallError."""
        try:
            self._network.flush(address).result(FLUSH_SECONDS)
        except TimeoutError:
            raise FirewallError(f"connections of the last session at {address} are still being forgotten") from None

    def _gone(self, session: Session) -> None:
        session.forget()
        del self._sessions[session.id]
        self._claims.forget(session)
        self._network.close_device(session.device, session.address)
        self._session_addresses.release(session.address)
        self._flush_rested()
        address_file.write(self._addresses, self._session_addresses.known())
        log.info("session of %s is gone, %s rests", session.holder, session.address)
        self._control.seen(Seen("left", session.holder, session.address))

    def _flush_rested(self) -> None:
        """Forget what the sessions of addresses that have rested enough left behind."""
        for rest in self._session_addresses.due():
            flushed = self._network.flush(rest.address)
            flushed.add_done_callback(partial(self._on_flushed, rest))
        self._await_rest()

    def _await_rest(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if (seconds := self._session_addresses.next_due()) is not None:
            self._resting = self._loop.call_later(seconds, self._flush_rested)

    def _on_flushed(self, rest: RestingAddress, done: Future[None]) -> None:
        """In the thread that flushed."""
        self._loop.post(lambda: self._flushed(rest, done))

    def _flushed(self, rest: RestingAddress, done: Future[None]) -> None:
        if (error := done.exception()) is None:
            self._session_addresses.free(rest)
            if self._writing is None:  # thousands may be flushed at once: the file is written when all of them are
                self._writing = self._loop.call_later(0, self._write_addresses)
            return
        log.warning("%s rests on: %s", rest.address, error)
        self._session_addresses.rest_again(rest)
        self._await_rest()

    def _write_addresses(self) -> None:
        self._writing = None
        address_file.write(self._addresses, self._session_addresses.known())

    def _on_accept(self, _events: int) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, _peer = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("a carrier could not be accepted: %s", error)
                return
            if len(self._unauthenticated) >= MAX_UNAUTHENTICATED:
                oldest = next(iter(self._unauthenticated.values()))
                oldest.pump.end(TunnelError("too many connections wait without HELLO"))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(self, self._loop, sock)
            self._unauthenticated[id(connection)] = connection
            connection.pump.start(ping=False)


class _Connection:
    """A carrier from its first byte: unauthenticated until HELLO, then part of a session."""

    def __init__(self, server: TunnelServer, loop: Loop, sock: socket.socket) -> None:
        self._server = server
        self._session: Session | None = None
        self._index = 0
        self.pump = Pump(loop, SocketTransport(sock), PlainFraming(), on_frame=self._on_frame, on_end=self._on_end)
        self._deadline = loop.call_later(HELLO_SECONDS, self._too_late)

    def _too_late(self) -> None:
        self.pump.end(TunnelError(f"no HELLO within {HELLO_SECONDS:.0f} seconds"))

    def _on_frame(self, kind: int, body: bytes) -> None:
        message = decode(kind, body)
        match message:
            case Hello() if self._session is None:
                self._on_hello(message)
            case Close():
                if self._session is not None and message.code == "bye":
                    self._server.on_goodbye(self._session)
                raise PeerClosed(message.reason)
            case Intercept() | Agents() | AgentKeys() | Withdraw() | Local() if self._session is not None:
                self._server.claim(self._session, message)
            case WatchClaim() if self._session is not None:
                self._server.watch(self._session, message)
            case None:
                pass
            case _:
                raise ProtocolError(f"a tunnel frame of kind {kind} came out of turn")

    def _on_hello(self, hello: Hello) -> None:
        self._deadline.cancel()
        self._server.hello_received(self)
        if hello.observer:
            self.pump.send(encode(self._server.observe()))
            self.pump.end(PeerClosed("observed"))
            return
        try:
            session, welcome = self._server.welcome(hello)
            # WELCOME first: attaching the queue lets packets flow behind it.
            self.pump.send(encode(welcome))
            self._session, self._index = session, hello.carrier
            session.join(hello.carrier, self.pump)
        except Refusal as refusal:
            log.info("%s was refused: %s", hello.holder, refusal)
            self.pump.send(encode(refusal.close))
            self.pump.end(RefusedError(str(refusal)))

    def _on_end(self, error: MeshdevError) -> None:
        self._deadline.cancel()
        self._server.hello_received(self)
        if self._session is not None:
            self._session.leave(self._index, self.pump, error)
        else:
            log.debug("a connection ended before HELLO: %s", error.message)
