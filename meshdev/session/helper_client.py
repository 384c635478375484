"""The session's side of the helper: one awaited call a request, descriptors and all."""

import asyncio
import contextlib
import itertools
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, TypeVar

from meshdev.errors import LaptopError, MeshdevError, ProtocolError
from meshdev.tun.device import TunDevice
from meshdev.tun.linux import wrap_queues
from meshdev.wire.helper.answers import (
    Acknowledged,
    AddressSet,
    Beat,
    DnsOpened,
    DnsSet,
    ListenerAddress,
    Result,
    RoutesSet,
    Translations,
    TunOpened,
)
from meshdev.wire.helper.limits import LINE_LIMIT, MAX_FDS
from meshdev.wire.helper.lines import Greeting, HelperFailure, encode_request, parse_answer, parse_greeting
from meshdev.wire.helper.requests import (
    AddRoutes,
    DnsSockets,
    FindTranslations,
    Heartbeat,
    OpenNetwork,
    OpenTun,
    RelayTarget,
    Request,
    SetAddress,
    SetDns,
    SetRelays,
    SetRoutes,
    Shutdown,
    UpstreamTcp,
)
from meshdev.wire.jsonlines import LineSplitter
from meshdev.wire.values import IPAddress

#: The slowest request makes five calls to systemd-resolved, each within 3 s.
_CALL_SECONDS: Final = 20.0
#: From the answer to the last request until the process has exited: milliseconds.
_EXIT_SECONDS: Final = 1.0
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(4 * MAX_FDS)

R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class DnsListener:
    """A UDP and a TCP listener at one address and port, non-blocking. The holder closes them."""

    at: ListenerAddress
    udp: socket.socket
    tcp: socket.socket


@dataclass(frozen=True)
class ForwarderSockets:
    """The forwarder's sockets: listeners, and for each former resolver marked UDP sockets connected to it (maybe none).

    All non-blocking. The holder closes them. ``containers``: why containers of this machine do not reach the
    cluster; None where they do or there are none.
    """

    listeners: tuple[DnsListener, ...]
    upstreams: dict[IPAddress, tuple[socket.socket, ...]]
    containers: str | None = None

    def close(self) -> None:
        """Close every socket."""
        for listener in self.listeners:
            listener.udp.close()
            listener.tcp.close()
        for some in self.upstreams.values():
            for sock in some:
                sock.close()


@dataclass(frozen=True)
class _Call:
    kind: type[Result]
    answer: asyncio.Future[tuple[Result, list[int]]]


class HelperClient:
    """A connection to the helper. Belongs to one event loop.

    Every call raises the helper's own error (LaptopError's kinds), or LaptopError when the helper is gone or does not
    answer in time. When :attr:`gone` is set the helper has undone everything, or is dead.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Owns *sock* from now on."""
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._lines = LineSplitter(LINE_LIMIT)
        self._numbers = itertools.count(1)
        self._calls: dict[int, _Call] = {}
        self._fds: deque[int] = deque()
        self._greeting: asyncio.Future[Greeting] = self._loop.create_future()
        self._out = bytearray()
        self._failure: MeshdevError | None = None
        self.gone = asyncio.Event()
        self._loop.add_reader(sock, self._readable)

    async def greeting(self, seconds: float) -> Greeting:
        """The helper's greeting, within *seconds*: sudo may be asking for a password meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(self._greeting)
        except TimeoutError:
            raise LaptopError(f"the helper did not start within {seconds:g} s") from None

    async def open_tun(self, queues: int, *, unguarded: bool = False) -> TunDevice:
        """The device, down and without an address; the caller owns its queues.

        Raises FirewallError where no packet filter can guard it, unless it may be *unguarded*.
        """
        opened, fds = await self._call(OpenTun(queues, unguarded), TunOpened)
        return TunDevice(opened.device, wrap_queues(fds), opened.offload)

    async def set_address(self, address: IPv4Address, mtu: int) -> AddressSet:
        """Device up at that address."""
        return (await self._call(SetAddress(address, mtu), AddressSet))[0]

    async def set_routes(self, routes: Iterable[IPv4Network]) -> RoutesSet:
        """Make these the device's routes; what the kernel has in the end."""
        return (await self._call(SetRoutes(tuple(routes)), RoutesSet))[0]

    async def add_routes(self, routes: Iterable[IPv4Network]) -> RoutesSet:
        """Add these to the device's routes; which of them are in force now."""
        return (await self._call(AddRoutes(tuple(routes)), RoutesSet))[0]

    async def dns_sockets(self, upstreams: Iterable[IPAddress]) -> ForwarderSockets:
        """Sockets for the forwarder."""
        opened, fds = await self._call(DnsSockets(tuple(upstreams)), DnsOpened)
        sockets = iter([socket.socket(fileno=fd) for fd in fds])
        return ForwarderSockets(
            tuple(DnsListener(at, next(sockets), next(sockets)) for at in opened.listeners),
            {found.address: tuple(itertools.islice(sockets, found.sockets)) for found in opened.upstreams},
            opened.containers,
        )

    async def upstream_tcp(self, server: IPAddress) -> socket.socket:
        """A marked, non-blocking TCP socket for a former resolver, not connected; the caller owns it."""
        _, fds = await self._call(UpstreamTcp(server), Acknowledged)
        return socket.socket(fileno=fds[0])

    async def set_dns(self, search: Iterable[str], domains: Iterable[str]) -> DnsSet:
        """Send the laptop's DNS to the forwarder. Send :meth:`heartbeat` each BEAT_SECONDS from then on."""
        return (await self._call(SetDns(tuple(search), tuple(domains)), DnsSet))[0]

    async def set_relays(self, relays: Iterable[RelayTarget]) -> None:
        """Forward these relays to local programs, and no others. Raises FirewallError where nftables cannot."""
        await self._call(SetRelays(tuple(relays)), Acknowledged)

    async def find_translations(self) -> tuple[str, ...]:
        """A sentence for each place of other programs that translates what our routes bring into the tunnel."""
        return (await self._call(FindTranslations(), Translations))[0].found

    async def open_network(self) -> socket.socket:
        """Where sockets of the helper's own network are had; the caller owns it."""
        _, fds = await self._call(OpenNetwork(), Acknowledged)
        return socket.socket(fileno=fds[0])

    async def heartbeat(self) -> Beat:
        """One sign of life."""
        return (await self._call(Heartbeat(), Beat))[0]

    async def close(self) -> None:
        """Undo everything and end the helper. Raises the first error of undoing; the connection is closed anyway.

        When this returns its process has exited, too, unless that takes more than a second.
        """
        try:
            await self._call(Shutdown(), Acknowledged)
            ended = asyncio.ensure_future(self.gone.wait())
            # Not asyncio.timeout: in a task that was cancelled, Python before 3.11.3 raises no TimeoutError.
            await asyncio.wait([ended], timeout=_EXIT_SECONDS)
            ended.cancel()
        finally:
            self._end(LaptopError("the helper is closed"))

    def abandon(self) -> None:
        """Close the connection without waiting: the helper undoes everything on its own."""
        self._end(LaptopError("the helper was abandoned"))

    async def _call(self, request: Request, kind: type[R]) -> tuple[R, list[int]]:
        number = next(self._numbers)
        answer: asyncio.Future[tuple[Result, list[int]]] = self._loop.create_future()
        self._calls[number] = _Call(request.answer, answer)
        try:
            # Not asyncio.wait_for: before Python 3.12 it forgets a cancellation that comes with the answer.
            async with asyncio.timeout(_CALL_SECONDS):
                self._send(encode_request(number, request))
                result, fds = await answer
        except BaseException as error:
            _give_up(answer)
            if isinstance(error, TimeoutError):
                raise LaptopError(f"the helper did not answer {request.op} within {_CALL_SECONDS:g} s") from None
            raise
        if not isinstance(result, kind):
            raise ProtocolError(f"the helper answered {request.op} with something else")
        return result, fds

    def _send(self, line: bytes) -> None:
        """Whole lines only, also when the caller is cancelled meanwhile."""
        if self._failure is not None:
            raise self._failure
        self._out += line
        self._flush()

    def _flush(self) -> None:
        try:
            del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(LaptopError(f"the helper is gone: {error.strerror}"))
            return
        if self._out:
            self._loop.add_writer(self._sock, self._flush)
        else:
            self._loop.remove_writer(self._sock)

    def _readable(self) -> None:
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(1 << 16, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(LaptopError(f"the helper is gone: {error.strerror}"))
            return
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._fds.extend(struct.unpack(f"{len(content) // 4}i", content))
        if not data or flags & socket.MSG_CTRUNC:
            self._end(LaptopError("the helper is gone", hint="meshdev restore removes what it may have left"))
            return
        try:
            for line in self._lines.feed(data):
                self._take(line)
        except ProtocolError as error:
            self._end(error)

    def _take(self, line: bytes) -> None:
        if not self._greeting.done():
            greeting = parse_greeting(line)
            if isinstance(greeting, HelperFailure):
                self._end(greeting.as_error())
            else:
                self._greeting.set_result(greeting)
            return
        answer = parse_answer(line, lambda number: self._calls[number].kind if number in self._calls else None)
        if answer.fds > len(self._fds):
            raise ProtocolError(f"the helper sent {len(self._fds)} descriptors instead of {answer.fds}")
        fds = [self._fds.popleft() for _ in range(answer.fds)]
        waiting = self._calls.pop(answer.id).answer
        if waiting.done() or isinstance(answer.result, HelperFailure):
            _close(fds)
        if waiting.done():
            return
        if isinstance(answer.result, HelperFailure):
            waiting.set_exception(answer.result.as_error())
        else:
            waiting.set_result((answer.result, fds))

    def _end(self, failure: MeshdevError) -> None:
        """Close the connection; whoever waits gets *failure*."""
        if self._failure is not None:
            return
        self._failure = failure
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        _close(self._fds)
        futures: list[asyncio.Future[Any]] = [self._greeting, *(call.answer for call in self._calls.values())]
        for future in futures:
            if not future.done():
                future.set_exception(failure)
                future.exception()  # nobody may be waiting: that is no fault
        self._calls.clear()
        self.gone.set()


def _give_up(answer: asyncio.Future[tuple[Result, list[int]]]) -> None:
    """Nobody takes this answer any more: close its descriptors, now or when they come."""
    if not answer.cancel() and not answer.cancelled() and answer.exception() is None:
        _close(answer.result()[1])


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
