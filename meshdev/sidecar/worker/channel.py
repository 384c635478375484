"""The worker's side of the conversation with its agent (:mod:`meshdev.wire.passthrough`)."""

import os
import socket
from collections import deque
from contextlib import suppress
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.pump.loop import READABLE, WRITABLE, Loop
from meshdev.sidecar.worker.port import ClaimedPort
from meshdev.sidecar.worker.worker import PassthroughWorker
from meshdev.wire.access import AccessRecords, Watch
from meshdev.wire.agent import PodPort
from meshdev.wire.jsonlines import LineSplitter
from meshdev.wire.passthrough import (
    MAX_LINE,
    UNCLAIMED,
    AddListener,
    AppAddress,
    AskCounts,
    PassthroughCounts,
    SetClaims,
    ToWorker,
    decode_to_worker,
    encode,
)

_READ_BYTES: Final = 64 << 10
#: Listeners that come with one read: the kernel ends a read behind the first bytes that have descriptors beside them.
_AT_ONCE: Final = 8


class AgentChannel:
    """Does what the agent says, answers what it asks, and stops the loop when it is gone.

    What an agent does not say raises ProtocolError through the loop: the process ends, and is started anew.
    """

    def __init__(self, sock: socket.socket, loop: Loop, worker: PassthroughWorker) -> None:
        """Owns *sock*."""
        sock.setblocking(False)
        self._sock = sock
        self._loop = loop
        self._worker = worker
        self._splitter = LineSplitter(MAX_LINE)
        self._descriptors: deque[int] = deque()  # of listeners whose line is not complete
        self._app = ""
        self._ports: dict[PodPort, ClaimedPort] = {}
        self._listeners: list[socket.socket] = []
        self._out = b""
        self._answer_waiting = b""  # behind what is not taken yet
        worker.recorder.send = self._send_records
        loop.register(sock.fileno(), READABLE, self._on_ready)

    def close(self) -> None:
        """Close the channel and the listeners, of which the agent has its own descriptors."""
        self._loop.unregister(self._sock.fileno())
        self._sock.close()
        for listener in self._listeners:
            self._worker.ignore(listener)
            listener.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _on_ready(self, events: int) -> None:
        if events & WRITABLE and self._out:
            self._send(self._out)
        if events & ~WRITABLE:
            self._receive()

    def _receive(self) -> None:
        data = b""
        try:
            data, descriptors, flags, _ = socket.recv_fds(self._sock, _READ_BYTES, _AT_ONCE, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except ConnectionResetError:  # it did not read all that was sent to it
            self._loop.stop()
            return
        self._descriptors += descriptors
        if flags & socket.MSG_CTRUNC:
            raise ProtocolError("A listener was lost: this process has no descriptor left")
        if not data:
            self._loop.stop()
        for line in self._splitter.feed(data):
            self._do(decode_to_worker(line))

    def _do(self, message: ToWorker) -> None:
        match message:
            case AppAddress():
                self._app = str(message.address)
            case SetClaims():
                self._set(message)
            case AddListener():
                self._listen(message.port)
            case AskCounts():
                self._answer(message.number)
            case Watch():
                self._worker.recorder.watch(message)

    def _set(self, message: SetClaims) -> None:
        claims = dict(message.ports)
        for port in claims:
            self._port(port)
        for port, served in self._ports.items():
            served.set(claims.get(port, UNCLAIMED))
            if served.draining:
                self._worker.drain(served)

    def _port(self, port: PodPort) -> ClaimedPort:
        if not self._app:
            raise ProtocolError("A message of the agent comes before the app's address")
        if port not in self._ports:
            served = self._ports[port] = ClaimedPort((self._app, port.number))
            self._worker.recorder.add(served)
        return self._ports[port]

    def _listen(self, port: PodPort) -> None:
        if not self._descriptors:
            raise ProtocolError("A message of the agent has no listener")
        listener = socket.socket(fileno=self._descriptors.popleft())
        listener.setblocking(False)
        self._listeners.append(listener)
        self._worker.listen(listener, self._port(port))

    def _answer(self, number: int) -> None:
        worker = self._worker
        worker.accept_waiting()  # before the question they came, so they count
        counts = PassthroughCounts(
            answers=number,
            open=tuple((port, worker.open_on(served)) for port, served in self._ports.items()),
            accepted=worker.accepted,
            claimed=sum(served.claimed for served in self._ports.values()),
            without_envoy=worker.unserved,
            errors=worker.errors,
            pod_address=tuple(worker.dialler.reasons.items()),
            raw=tuple(worker.reasons.items()),
        )
        if self._out:
            self._answer_waiting = encode(counts)  # in place of the one before, which was not taken either
        else:
            self._send(encode(counts))

    def _send_records(self, records: AccessRecords) -> bool:
        if self._out:
            return False
        self._send(encode(records))
        return True

    def _send(self, data: bytes) -> None:
        with suppress(BlockingIOError, BrokenPipeError):  # that it is gone is read
            data = data[self._sock.send(data) :]
            if not data and self._answer_waiting:
                data, self._answer_waiting = self._answer_waiting, b""
                data = data[self._sock.send(data) :]
        self._out = data
        self._loop.modify(self._sock.fileno(), READABLE | WRITABLE if data else READABLE)
