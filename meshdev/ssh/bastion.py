"""The SSH connection over all hops: made, watched, made again when it is lost.

A transport of paramiko is a thread; the next hop's runs over a channel of the one before.
"""

import logging
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Final

import paramiko
from paramiko.ssh_exception import ChannelException, SSHException

from meshdev.errors import MeshdevError, SshError, UnreachableError
from meshdev.ssh.host_keys import HostKeys
from meshdev.ssh.known_hosts import HostKey
from meshdev.ssh.login import Login
from meshdev.ssh.settings import SshHop

log = logging.getLogger(__name__)

#: What a channel may receive before it is taken: enough for 80 MB/s over 50 ms.
_WINDOW: Final = 4 << 20
#: RFC 4253, 6.1: what every implementation must take; OpenSSH's own limit for a channel's data.
_PACKET: Final = 32 << 10
#: AES-GCM first: without a MAC of its own it is the fastest (docs/design/0030). No CBC.
_CIPHERS: Final = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
#: The bastion's own connection to a host; longer than callers wait, who have limits of their own.
_OPEN_SECONDS: Final = 15.0
#: For questions on the terminal.
_LOGIN_SECONDS: Final = 300.0
#: After a failure whoever comes meanwhile gets the same error; a server counts logins that fail.
_PAUSE_SECONDS: Final = 1.0
_PAUSE_AFTER_REFUSAL_SECONDS: Final = 30.0


class BastionLostError(UnreachableError):
    """The SSH connection broke off: another one may be made."""


class Bastion:
    """The last of *hops*, reached over the others. Usable from any thread."""

    def __init__(self, hops: Sequence[SshHop]) -> None:
        self._hops = tuple(hops)
        loaded: dict[str, paramiko.PKey] = {}
        self._logins = {hop: Login(hop, loaded) for hop in hops}
        self._lock = threading.Lock()
        self._transports: list[paramiko.Transport] = []
        self._peer: str | None = None
        self._failure: tuple[float, MeshdevError] | None = None
        self._alive = 0.0

    def alive(self) -> None:
        """Bytes have passed: the connection is not dead, though an answer may be late behind them."""
        self._alive = time.monotonic()

    def connect(self) -> paramiko.Transport:
        """The connection, made again where it was lost. Raises SshError, UnreachableError."""
        with self._lock:
            if self._transports and all(each.is_active() for each in self._transports):
                return self._transports[-1]
            if self._failure is not None and time.monotonic() < self._failure[0]:
                raise self._failure[1]
            self._close()
            try:
                self._dial()
            except MeshdevError as error:
                self._close()
                pause = _PAUSE_AFTER_REFUSAL_SECONDS if isinstance(error, SshError) else _PAUSE_SECONDS
                self._failure = (time.monotonic() + pause, error)
                log.warning("%s", error.message)
                raise
            self._failure = None
            last = self._transports[-1]
            self.alive()
            for watch in (self._ask_now_and_then, self._drop_when_silent):
                threading.Thread(target=watch, args=(last,), daemon=True).start()
            return last

    def open(self, host: str, port: int) -> paramiko.Channel:
        """A connection of the bastion to *port* of *host*. Raises SshError, UnreachableError."""
        transport = self.connect()
        try:
            return _channel(transport, self._hops[-1], host, port, _OPEN_SECONDS)
        except BastionLostError:
            self._drop(transport)
            return _channel(self.connect(), self._hops[-1], host, port, _OPEN_SECONDS)

    @property
    def host(self) -> str:
        """The name or address that the first connection goes to."""
        return self._hops[0].host

    def addresses(self) -> frozenset[IPv4Address]:
        """Where the first hop is: what it is connected to, and what its name resolves to now."""
        found = {self._peer} if self._peer else set()
        with suppress(OSError):
            infos = socket.getaddrinfo(self.host, None, socket.AF_INET, socket.SOCK_STREAM)
            found |= {str(info[4][0]) for info in infos}
        return frozenset(IPv4Address(each) for each in found)

    def _dial(self) -> None:
        sock: socket.socket | paramiko.Channel
        for number, hop in enumerate(self._hops):
            if number == 0:
                sock = _first_socket(hop)
                self._peer = _peer(sock)
            else:
                before = self._transports[-1]
                sock = _channel(before, self._hops[number - 1], hop.host, hop.port, hop.connect_seconds)
            self._transports.append(self._handshake(hop, sock))

    def _handshake(self, hop: SshHop, sock: "socket.socket | paramiko.Channel") -> paramiko.Transport:
        """A transport that is logged in; nothing is sent of the user's before the host key is accepted."""
        try:
            transport = paramiko.Transport(sock, default_window_size=_WINDOW, default_max_packet_size=_PACKET)
        except (SSHException, OSError) as error:
            sock.close()
            raise _broken(hop, error) from error
        try:
            transport.banner_timeout = hop.connect_seconds
            transport.auth_timeout = _LOGIN_SECONDS
            keys = HostKeys(hop)
            options = transport.get_security_options()
            options.ciphers = tuple(each for each in _CIPHERS if each in options.ciphers)
            options.key_types = keys.preferred(options.key_types)
            transport.start_client(timeout=hop.connect_seconds)
            key = transport.get_remote_server_key()
            keys.check(HostKey(key.get_name(), key.asbytes()))
            self._logins[hop].run(transport)
        except (SSHException, OSError, EOFError) as error:
            transport.close()
            raise _broken(hop, error) from error
        except BaseException:
            transport.close()
            raise
        return transport

    def _ask_now_and_then(self, last: paramiko.Transport) -> None:
        """The last hop, whose answer passes all others."""
        pause = threading.Event()
        while last.is_active():
            with suppress(SSHException, OSError, EOFError):  # it is noticed by is_active
                last.global_request("keepalive@openssh.com", wait=True)
                self.alive()
            pause.wait(self._hops[-1].alive_seconds)
        log.warning("the SSH connection to %s has ended", self._hops[-1])

    def _drop_when_silent(self, last: paramiko.Transport) -> None:
        hop, pause = self._hops[-1], threading.Event()
        limit = hop.alive_seconds * (1 + hop.alive_count)
        while last.is_active():
            silent = time.monotonic() - self._alive
            if silent >= limit:
                log.warning("no answer from %s for %.0f s", hop, silent)
                self._drop(last)
                return
            pause.wait(limit - silent)

    def _drop(self, last: paramiko.Transport) -> None:
        """Close the connection that ends in *last*, unless there is another one by now."""
        with self._lock:
            if self._transports and self._transports[-1] is last:
                self._close()

    def _close(self) -> None:
        """The first one's socket first: the others only wait for it."""
        for transport in self._transports:
            transport.close()
        self._transports = []
        self._peer = None


def _first_socket(hop: SshHop) -> socket.socket:
    if hop.command:
        return _run_proxy(hop.command)
    try:
        sock = socket.create_connection((hop.host, hop.port), hop.connect_seconds)
    except OSError as error:
        raise _broken(hop, error) from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _run_proxy(command: str) -> socket.socket:
    """Standard input and output of a ProxyCommand. It ends with its input."""
    ours, theirs = socket.socketpair()
    with theirs:
        # By a shell, as OpenSSH does: the user's own configuration is meant to be one.
        subprocess.Popen(["/bin/sh", "-c", f"exec {command}"], stdin=theirs.fileno(), stdout=theirs.fileno())
    return ours


def _peer(sock: "socket.socket | paramiko.Channel") -> str | None:
    name = sock.getpeername()
    return str(name[0]) if isinstance(sock, socket.socket) and sock.family == socket.AF_INET else None


def _channel(transport: paramiko.Transport, hop: SshHop, host: str, port: int, seconds: float) -> paramiko.Channel:
    began = time.monotonic()
    try:
        return transport.open_channel("direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=seconds)
    except ChannelException as error:
        if error.code == 1:  # RFC 4254, 5.1: SSH_OPEN_ADMINISTRATIVELY_PROHIBITED
            raise SshError(
                f"{hop} does not allow connections to {host}:{port}",
                hint="AllowTcpForwarding and PermitOpen in its sshd_config decide that",
            ) from error
        raise UnreachableError(f"{hop} has no connection to {host}:{port}: {error.text}") from error
    except (SSHException, OSError, EOFError) as error:
        if time.monotonic() - began >= seconds:
            raise UnreachableError(f"{hop} has no connection to {host}:{port}: no answer in time") from error
        raise BastionLostError(f"no connection to {host}:{port} through {hop}: {_reason(error)}") from error


def _broken(hop: SshHop, error: Exception) -> UnreachableError:
    return UnreachableError(
        f"no SSH connection to {hop}: {_reason(error)}", hint=f"`ssh {hop.as_command}` asks the same server"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or error) or "it was cut off"
