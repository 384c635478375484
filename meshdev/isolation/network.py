"""Sockets of a network that need not be this process's own: what connects and asks is told which network by an object.

A socket belongs to the network in which it was made, whoever uses it later. So a small process lives in the other
network and sends sockets here. The helper could do that, too, but it does one thing after another, and some take a
while; and this process needs no power.
"""

import asyncio
import errno
import os
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

from meshdev.errors import IsolationError
from meshdev.isolation import socket_server
from meshdev.isolation.socket_server import ANSWER, REQUEST

_DESCRIPTOR: Final = struct.Struct("=i")
_START_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 5.0
_END_SECONDS: Final = 2.0


class NetworkSockets(Protocol):
    """A network in which sockets can be made."""

    async def open_socket(self, family: int, kind: int) -> socket.socket:
        """Make a non-blocking TCP or UDP socket, neither bound nor connected; it is the caller's. Raises OSError."""


class ThisNetwork:
    """The network of this process."""

    async def open_socket(self, family: int, kind: int) -> socket.socket:
        """See :class:`NetworkSockets`."""
        made = socket.socket(family, kind)
        made.setblocking(False)
        return made


class OtherNetwork:
    """The network of another process. Made by :func:`opened_network`."""

    def __init__(self, server: socket.socket) -> None:
        """*server* is the end of a socket server's socket, non-blocking, and stays the caller's."""
        self._server = server
        self._waiting: deque[asyncio.Future[socket.socket]] = deque()
        self._closed = False
        asyncio.get_running_loop().add_reader(server, self._read)

    async def open_socket(self, family: int, kind: int) -> socket.socket:
        """See :class:`NetworkSockets`. Also raises OSError when the network is gone, or does not answer in time."""
        if self._closed:
            raise _gone()
        # A packet is sent whole or not at all; where the server is that far behind this raises BlockingIOError.
        self._server.send(REQUEST.pack(family, kind))
        answer: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await answer

    def close(self) -> None:
        """Whoever waits gets an error; sockets that were made stay."""
        if self._closed:
            return
        self._closed = True
        asyncio.get_running_loop().remove_reader(self._server)
        while self._waiting:
            _fail(self._waiting.popleft(), _gone())

    def _read(self) -> None:
        try:
            message, made = _received(self._server)
        except BlockingIOError:
            return
        except OSError:
            message, made = b"", []
        if len(message) != ANSWER.size or not self._waiting:
            _close(made)
            self.close()
            return
        self._answer(self._waiting.popleft(), ANSWER.unpack(message)[0], made)

    def _answer(self, waiting: asyncio.Future[socket.socket], number: int, made: list[socket.socket]) -> None:
        if number or not made:
            _fail(waiting, OSError(number or errno.EMFILE, os.strerror(number or errno.EMFILE)))
        elif waiting.done():  # whoever asked no longer waits
            _close(made)
        else:
            made[0].setblocking(False)
            waiting.set_result(made[0])


def _received(server: socket.socket) -> tuple[bytes, list[socket.socket]]:
    # Not socket.recv_fds: it forgets its flags (CPython 3.11 to 3.14), and programs started meanwhile would inherit.
    room = socket.CMSG_SPACE(_DESCRIPTOR.size)
    message, ancillary, _, _ = server.recvmsg(ANSWER.size, room, socket.MSG_CMSG_CLOEXEC)
    made = [
        socket.socket(fileno=descriptor)
        for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (descriptor,) in _DESCRIPTOR.iter_unpack(data)
    ]
    return message, made


@asynccontextmanager
async def opened_network(pid: int) -> AsyncIterator[OtherNetwork]:
    """Sockets of the network of *pid*, which has called ``enter_own_network``. Raises IsolationError.

    When the context is left the server has ended; while it runs the network exists, even if *pid* has exited.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            server = _start(pid, theirs)
        try:
            await _wait_until_ready(pid, ours)
            network = OtherNetwork(ours)
            try:
                yield network
            finally:
                network.close()
        finally:
            ours.close()
            await _wait_until_ended(server)


def _start(pid: int, peer: socket.socket) -> subprocess.Popen[bytes]:
    command = (sys.executable, "-I", "-m", socket_server.__name__, str(pid))
    return subprocess.Popen(command, stdin=peer.fileno(), stdout=subprocess.DEVNULL)  # stderr: the session's log


async def _wait_until_ready(pid: int, sock: socket.socket) -> None:
    sock.setblocking(False)
    try:
        async with asyncio.timeout(_START_SECONDS):
            answer = await asyncio.get_running_loop().sock_recv(sock, ANSWER.size)
    except TimeoutError as error:
        raise IsolationError("the process that makes sockets does not start") from error
    if len(answer) != ANSWER.size:
        raise IsolationError("the process that makes sockets did not start")
    if number := ANSWER.unpack(answer)[0]:
        raise IsolationError(f"the network of process {pid} cannot be entered: {os.strerror(number)}")


async def _wait_until_ended(server: subprocess.Popen[bytes]) -> None:
    """It ends by itself, as its socket is closed; one that hangs is killed."""
    try:
        await asyncio.to_thread(server.wait, _END_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        await asyncio.to_thread(server.wait)


def _gone() -> OSError:
    return OSError(errno.ENETDOWN, "the network beside this machine's is gone")


def _fail(waiting: asyncio.Future[socket.socket], error: OSError) -> None:
    if not waiting.done():
        waiting.set_exception(error)


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()
