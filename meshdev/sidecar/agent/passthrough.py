"""The passthrough worker's process: started, sent the claims, restarted; and its listeners, which stay."""

import asyncio
import logging
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Final

from meshdev.sidecar.agent import child, client_addresses
from meshdev.sidecar.agent.client_addresses import ClientAddresses
from meshdev.sidecar.agent.listener_ports import listener
from meshdev.sidecar.agent.worker_channel import WorkerChannel
from meshdev.wire.access import WATCH_SECONDS, AccessRecords, Watch
from meshdev.wire.agent import PodPort
from meshdev.wire.passthrough import AddListener, AppAddress, PassthroughCounts, PortClaims, SetClaims

log = logging.getLogger(__name__)

#: Its descriptor of the channel follows, and that of the queue of sockets with clients' addresses where there is one.
COMMAND: Final = (sys.executable, "-m", "meshdev.sidecar.worker")
RESTART_SECONDS: Final = 0.1
_LONGEST_RESTART_SECONDS: Final = 5.0
#: After two ends within this time nothing should be redirected to it.
FAILING_SECONDS: Final = 3 * _LONGEST_RESTART_SECONDS
#: One that has closed its socket ends within this time, or is killed.
_END_SECONDS: Final = 1.0


class Passthrough:
    """One worker at a time. Clients that come while there is none wait in the listeners' queues.

    A worker's connections end with it. A new one gets the whole configuration again.
    """

    def __init__(
        self,
        address: IPv4Address,
        hold: tuple[int, ...] = (),
        command: Sequence[str] = COMMAND,
        clients: ClientAddresses | None = None,
    ) -> None:
        """*address* is the pod's, where the app listens. *hold*: descriptors that workers inherit, only to keep them
        open as long as they run (``firewall.PodFirewall.hold``). Without *clients*, which stay their owner's, the app
        sees the pod's address instead of its clients'."""
        self._app = AppAddress(address)
        self._clients = clients
        self._hold = hold
        self._command = command
        self._claims = SetClaims(())
        self._number = self._applied = 0
        #: Whose answer says that the worker has the claims; None while there is no worker.
        self._question: int | None = 0
        self._listeners: dict[PodPort, socket.socket] = {}
        self._channel: WorkerChannel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._counts = self._earlier = PassthroughCounts()
        self._ends: deque[float] = deque(maxlen=2)  # when the last workers ended
        self._news = asyncio.Event()  # set for a moment: the worker answered, has begun, or has ended
        self._applied_more = asyncio.Event()  # set for a moment
        self._watch, self._watched_until = Watch(), 0.0
        self.on_records: Callable[[AccessRecords], None] = lambda _: None
        """Called with what a worker saw while it is watched."""

    @property
    def pid(self) -> int | None:
        """Of the worker, while there is one."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def failing(self) -> bool:
        """Whether workers end again and again: clients that wait for the next one would wait in vain."""
        return len(self._ends) == self._ends.maxlen and time.monotonic() - self._ends[0] < FAILING_SECONDS

    @property
    def counts(self) -> PassthroughCounts:
        """Of all workers so far, as they were up to a second ago; those that one did not report any more are lost."""
        return self._counts.following(self._earlier)

    @property
    def open(self) -> int:
        """Connections that are not over, as far as the worker has reported; 0 while there is none.

        Not to be relied on before everything is ended: see :meth:`recount`.
        """
        return self._counts.all_open

    @property
    def applied(self) -> int:
        """The newest number of :meth:`set_ports` whose claims a worker decides by; 0 before any.

        A worker that takes the place of another one has them before it accepts anybody.
        """
        return self._applied

    async def applied_more(self) -> None:
        """Until :attr:`applied` has grown by a worker's answer."""
        await self._applied_more.wait()

    async def recount(self) -> PassthroughCounts:
        """The counts as they are after this call, clients in the listeners' queues included (64 of each).

        Where there is no worker this waits for the next one.
        """
        while True:
            channel = self._channel
            number = channel.ask() if channel is not None else 0
            while channel is self._channel and (channel is None or self._counts.answers < number):
                await self._news.wait()
            if channel is not None and channel is self._channel:
                return self.counts

    def listener_ports(self, ports: Iterable[PodPort]) -> Mapping[PodPort, int]:
        """Where connections to these ports are accepted, and to all earlier ones; those of UDP are left out.

        Raises ClusterError when no port is free.
        """
        for port in ports:
            if port.transport == "tcp" and port not in self._listeners:
                self._listeners[port] = listener()
                self._hand_over(port)
        return {port: sock.getsockname()[1] for port, sock in self._listeners.items()}

    def set_ports(self, claims: Mapping[PodPort, PortClaims], number: int = 0) -> None:
        """From now on this is claimed, and nothing on other ports. Raises ProtocolError where it is too much.

        *number* is what :attr:`applied` becomes then; one that is lower than before begins to count anew.
        """
        wanted = SetClaims(tuple(sorted(claims.items(), key=lambda item: item[0])))
        self._applied = min(self._applied, number)
        if wanted != self._claims:
            if self._channel is not None:
                self._channel.send(wanted)
                self._question = self._channel.ask()
            else:
                self._question = None
            self._claims = wanted
        self._number = number
        self._note_applied()

    def watch(self, watch: Watch) -> None:
        """For WATCH_SECONDS this is watched, by a worker that takes the place of this one, too."""
        self._watch, self._watched_until = watch, time.monotonic() + WATCH_SECONDS
        if self._channel is not None:
            self._channel.send(watch)

    def _go_on_watching(self) -> None:
        """By a new worker, for as long as the one before would have."""
        left = self._watched_until - time.monotonic()
        if self._watch.on and left > 0 and self._channel is not None:
            self._channel.send(self._watch)
            asyncio.get_running_loop().call_later(left, self._end_watch)

    def _end_watch(self) -> None:
        """Unless it was renewed."""
        if time.monotonic() >= self._watched_until:
            self.watch(Watch())

    def drain(self) -> None:
        """Nothing is claimed any more, and the app is about to end."""
        self.set_ports({port: PortClaims(draining=True) for port in self._listeners}, self._number)

    async def run(self) -> None:
        """Keep a worker until this is cancelled; it has ended then, and its connections are reset."""
        pause = RESTART_SECONDS
        while True:
            started = time.monotonic()
            try:
                await self._run_worker()
            except OSError as error:
                log.error("the passthrough worker cannot be started: %s", error)  # noqa: TRY400 -- the sentence says it
            self._ends.append(time.monotonic())
            if time.monotonic() - started > 2 * _LONGEST_RESTART_SECONDS:
                pause = RESTART_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_RESTART_SECONDS)

    def close(self) -> None:
        """Close the listeners: clients that wait are reset. To be called once :meth:`run` has ended."""
        while self._listeners:
            self._listeners.popitem()[1].close()

    async def _run_worker(self) -> None:
        (ours, its), (queue, its_queue) = socket.socketpair(), client_addresses.queue()
        with ours, queue:
            with its, its_queue:
                process = await self._start(its.fileno(), its_queue.fileno())
            logging_all = asyncio.ensure_future(child.log_lines("passthrough worker", process.stderr))
            supplying = asyncio.ensure_future(self._supply(queue))
            try:
                reason = await self._converse(ours)
            finally:
                supplying.cancel()
                await asyncio.wait([supplying])
                ours.close()  # it ends by itself, and resets its connections; the kernel would say that they ended well
                await child.ended(process, _END_SECONDS)
                await logging_all
                self._earlier, self._counts = self.counts, PassthroughCounts()
                self._notify()
        log.error("the passthrough worker ended with %s: %s", process.returncode, reason)

    async def _start(self, *channels: int) -> asyncio.subprocess.Process:
        self._process = await child.start(
            (*self._command, *map(str, channels)),
            env=child.environment("PYTHONPATH"),
            pass_fds=(*self._hold, *channels),
        )
        return self._process

    async def _supply(self, queue: socket.socket) -> None:
        if self._clients is not None:
            await self._clients.supply(queue)
        queue.close()  # there are none to come

    async def _converse(self, ours: socket.socket) -> str:
        self._channel = WorkerChannel(ours, self._on_counts, self._on_records)
        try:
            self._channel.send(self._app)
            self._channel.send(self._claims)
            self._question = self._channel.ask()
            self._go_on_watching()
            for port in self._listeners:
                self._hand_over(port)
            self._notify()
            return await self._channel.converse()
        finally:
            self._channel = None

    def _hand_over(self, port: PodPort) -> None:
        if self._channel is not None:
            self._channel.send(AddListener(port), self._listeners[port].fileno())

    def _on_counts(self, counts: PassthroughCounts) -> None:
        self._counts = counts
        self._note_applied()
        self._notify()

    def _on_records(self, records: AccessRecords) -> None:
        self.on_records(records)

    def _note_applied(self) -> None:
        """The worker does one thing after the other: whatever was sent before a question is done when it answers."""
        answered = self._question is not None and self._counts.answers >= self._question
        if answered and self._applied != self._number:
            self._applied = self._number
            self._applied_more.set()
            self._applied_more.clear()

    def _notify(self) -> None:
        self._news.set()
        self._news.clear()
