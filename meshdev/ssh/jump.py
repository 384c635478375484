"""Dialling through a bastion: the SSH client is started here, and reached by one descriptor (meshdev/wire/ssh.py).

A descriptor and no port: on the same machine nobody else can dial through the user's SSH connection, and it leads out
of a network namespace, too. The SSH client runs until the last copy of the descriptor is closed.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from array import array
from contextlib import suppress
from ipaddress import IPv4Address
from typing import IO, Final, Self

from meshdev.errors import MeshdevError, SshError, UnreachableError
from meshdev.wire.session_api import Failed
from meshdev.wire.ssh import (
    MAX_RECORD,
    AddressesRequest,
    BastionAddresses,
    BastionReady,
    DialRequest,
    SshClientRequest,
    encode_dial,
    parse_dialled,
    parse_report,
)

#: How long a cancelled SSH client may take to end: it restores the terminal.
_END_SECONDS: Final = 2.0
#: It may have to resolve a name; a carrier is dialled without it then.
_ADDRESSES_SECONDS: Final = 3.0

_logging_in: Final = threading.Lock()
_opened: Final[dict[str, "list[Jump]"]] = {}
"""By target, those of :func:`opened`."""


class Jump:
    """The way through one bastion. Usable from any thread; *name* is for sentences."""

    def __init__(self, control: socket.socket, name: str) -> None:
        self._control = control
        self.name = name
        self.host = ""
        """The name of the first hop, once :meth:`addresses` has been called."""
        self.fileno = control.fileno
        self._closing = threading.Lock()

    @classmethod
    def adopt(cls, descriptor: int, name: str) -> Self:
        """The way that another process has opened; the descriptor is ours from now on."""
        os.set_inheritable(descriptor, False)
        return cls(socket.socket(fileno=descriptor), name)

    def close(self) -> None:
        """Close this copy; connections that have been dialled end with the last one."""
        with self._closing:
            self._control.close()

    def copy(self) -> "Jump | None":
        """Another one through the same SSH client, for somebody else to close; None where this one is closed."""
        with self._closing:
            return Jump(self._control.dup(), self.name) if self._control.fileno() >= 0 else None

    def dial(self, host: str, port: int, seconds: float) -> socket.socket:
        """A stream to *port* of *host* as the bastion resolves it. Blocks.

        Raises SshError, UnreachableError, OSError; TimeoutError is its kind.
        """
        sock = self._ask(DialRequest(host, port))
        try:
            sock.settimeout(seconds)
            sock.recv(1, socket.MSG_PEEK)  # a signal or the time limit: nothing is read yet
            _take_answer(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    async def connect(self, host: str, port: int) -> socket.socket:
        """As :meth:`dial`, without blocking; the caller limits the time. The socket is non-blocking."""
        sock = self._ask(DialRequest(host, port))
        try:
            await _answer(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    async def addresses(self) -> frozenset[IPv4Address]:
        """The addresses that the SSH connection goes to, which must stay reachable without the tunnel.

        None where the SSH client is gone: whoever dials then gets the error.
        """
        try:
            with self._ask(AddressesRequest()) as sock:
                async with asyncio.timeout(_ADDRESSES_SECONDS):
                    answer = await _answer(sock)
        except (OSError, MeshdevError):  # TimeoutError is an OSError
            return frozenset()
        self.host = answer.host
        return frozenset(answer.addresses)

    def _ask(self, request: SshClientRequest) -> socket.socket:
        """Our end of a stream on which the answer will come."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                ours.setblocking(False)
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [theirs.fileno()]))]
                self._control.sendmsg([encode_dial(request)], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except OSError as error:
                ours.close()
                raise _gone() from error
        return ours


class BastionProcess:
    """The process of one SSH client, until its bastion is reached. It may ask on the terminal."""

    def __init__(self, target: str, log: IO[bytes] | None = None) -> None:
        """Start it. *log* gets what it has to say later, to nobody in particular."""
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._target = target
        flags = ["--log"] if log else []
        with other:
            self._process = subprocess.Popen(
                # -P: the current folder chooses no code.
                [sys.executable, "-P", "-m", "meshdev.ssh", "--control", str(other.fileno()), *flags, "--", target],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=(other.fileno(),),
            )
        self.fileno = self._control.fileno
        """Readable when :meth:`result` does not block."""

    def result(self) -> tuple[Jump, float]:
        """The way, and the seconds that the login took. Blocks. Raises SshError, UnreachableError, ConfigError."""
        try:
            record = self._control.recv(MAX_RECORD)
        except OSError:
            record = b""
        report = parse_report(record) if record else None
        if isinstance(report, BastionReady):
            return Jump(self._control, self._target), report.seconds
        if isinstance(report, Failed):
            self._control.close()
            self._process.wait()  # it ends by itself
            raise report.as_error()
        self.cancel()
        raise SshError(f"the SSH connection to {self._target} was given up")

    def cancel(self) -> None:
        """End it; the terminal is as it was before."""
        self._control.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
                return
            self._process.kill()
        self._process.wait()


def opened(target: str) -> Jump:
    """The way through *target*, with an SSH client of this process's own, for whose questions it waits.

    One login at a time, and none where a Jump from here is still open: parts of a command that begin at the same time
    would all ask on one terminal, and one of them would show what is typed for another.
    """
    with _logging_in:
        others = [each for each in _opened.get(target, ()) if each.fileno() >= 0]
        jump = next((made for each in others if (made := each.copy())), None) or _log_in(target)
        _opened[target] = [*others, jump]
        return jump


def _log_in(target: str) -> Jump:
    client = BastionProcess(target)
    try:
        return client.result()[0]
    except BaseException as error:
        if not isinstance(error, MeshdevError):
            client.cancel()
        raise


def _take_answer(sock: socket.socket) -> BastionAddresses:
    """Read the answer that has arrived, and nothing behind it. It was sent in one piece, so it is there as a whole."""
    line = sock.recv(MAX_RECORD, socket.MSG_PEEK)
    end = line.find(b"\n") + 1
    if not end:
        raise _gone()
    return parse_dialled(sock.recv(end))


def _gone() -> UnreachableError:
    return UnreachableError("the SSH client has ended", hint="`meshdev disconnect`, then connect again")


async def _answer(sock: socket.socket) -> BastionAddresses:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sock)
    return _take_answer(sock)
