"""The stream to the manager's control container: kept up, and states announced on it whenever they changed.

It is one of mutual TLS: the manager by its certificate, the agent by the one that the manager issued. The first comes
by the session that attests the agent, the next ones on the stream.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any, Final

import grpc

from meshdev.errors import ProtocolError
from meshdev.identity.tls import pem
from meshdev.sidecar.agent.records import RecordQueue
from meshdev.sidecar.agent.settings import Settings
from meshdev.sidecar.agent.trust import AgentIdentity
from meshdev.sidecar.envoy.tls import CONTROL_NAME
from meshdev.wire import agent
from meshdev.wire.access import AccessRecords, Watch
from meshdev.wire.agent import AgentHello, Consents, FromAgent, IssuedCertificate, ManagerOrder, Want

log = logging.getLogger(__name__)

#: A manager that is silent is asked after this time and given up after the other, in milliseconds. gRPC's C core takes
#: any (github.com/grpc/grpc/issues/32912); the manager takes a ping a second (meshdev.manager.control.service). Of both
#: timeouts the ping's counts where the kernel still answers (github.com/grpc/grpc/pull/34647), and is 60 s otherwise.
_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 3_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # gRPC calls the time so that a connection may take to be made
    ("grpc.use_local_subchannel_pool", 1),  # else the next channel waits as long as the one before would
    ("grpc.max_receive_message_length", agent.MAX_MESSAGE),
    ("grpc.enable_http_proxy", 0),  # what the pod reaches the internet by
    ("grpc.ssl_target_name_override", CONTROL_NAME),
)
#: Between two attempts, in seconds: twice as long each time. Each has a new channel (2 ms with its handshake): its
#: certificate may be a new one, and gRPC by itself waits for 100 ms at least.
FIRST_RETRY_SECONDS: Final = 0.01
LONGEST_RETRY_SECONDS: Final = 1.0


class Control:
    """One stream after the other, for ever, once a manager is known.

    *on_message* is called with each order of the manager, *on_watch* when it says what is watched, *on_lost* when a
    stream that carried something has ended; *states* gives all that the manager has to know now, in order.
    """

    def __init__(
        self,
        settings: Settings,
        identity: AgentIdentity,
        *,
        on_message: Callable[[ManagerOrder], None],
        on_lost: Callable[[], None],
        states: Callable[[], list[FromAgent]],
        on_watch: Callable[[Watch], None] | None = None,
    ) -> None:
        """Without *on_watch* the manager is not told that this pod can be watched."""
        self._settings = settings
        self._identity = identity
        self._on_message = on_message
        self._on_lost = on_lost
        self._states = states
        self._on_watch = on_watch
        self._records = RecordQueue()
        self._watched = False
        """Whether this stream's manager knows what records are."""
        self._news = asyncio.Event()
        self._trouble = ""

    def announce(self) -> None:
        """Something that the manager has to know has changed."""
        self._news.set()

    def record(self, records: AccessRecords) -> None:
        """Send what was seen, as soon as the manager takes it; nothing where it has not asked on this stream."""
        if self._watched:
            self._records.put(records)
            self._news.set()

    async def run(self) -> None:
        """Until it is cancelled. Nothing is dialled before a session has attested this agent and named the manager."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_consents())
            while True:
                manager = await self._identity.attested()
                dialling = tasks.create_task(self._dial(manager))
                await self._identity.trust.certificate.changed(manager)
                dialling.cancel()
                await asyncio.wait([dialling])

    async def _watch_consents(self) -> None:
        proofs = self._identity.capabilities.proofs
        while True:
            await proofs.changed(proofs.value)
            self.announce()

    async def _dial(self, manager: bytes) -> None:
        pause, task = FIRST_RETRY_SECONDS, asyncio.current_task()
        # gRPC catches a cancellation while it begins a call (_prepare_rpc), and the call may end with another error.
        while task is not None and not task.cancelling():
            began = time.monotonic()
            await self._attempt(manager)
            if time.monotonic() - began > LONGEST_RETRY_SECONDS:
                pause = FIRST_RETRY_SECONDS
            await asyncio.sleep(pause * random.uniform(0.7, 1))  # noqa: S311 -- so that not all agents come at once
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)

    async def _attempt(self, manager: bytes) -> None:
        """One stream until its end."""
        issued = self._identity.issued.secrets.value
        if issued is None:  # there is one as soon as there is a manager
            return
        own = pem(issued.certificate).encode()
        credentials = grpc.ssl_channel_credentials(pem(manager).encode(), issued.private_key, own)
        target = f"{self._settings.manager}:{self._settings.port}"
        try:
            async with grpc.aio.secure_channel(target, credentials, options=_OPTIONS) as channel:
                await self._stream(channel.stream_stream(agent.METHOD))
            self._log_once(logging.INFO, "")
        except grpc.aio.AioRpcError as error:
            self._log_once(logging.INFO, f"no stream to the manager: {error.code().name} {error.details()}")
        except ProtocolError as error:
            self._log_once(logging.WARNING, f"the manager broke the protocol: {error.message}")

    def _log_once(self, level: int, trouble: str) -> None:
        """Where it is not what it was the last time."""
        if trouble and trouble != self._trouble:
            log.log(level, "%s", trouble)
        self._trouble = trouble

    async def _stream(self, method: Any) -> None:  # noqa: ANN401 -- grpc has no types
        trust = self._identity.trust
        self._watched = False
        self._records.clear()
        call = method()
        writing = asyncio.ensure_future(self._write(call))
        try:
            async for data in call:
                message = agent.decode_from_control(data)
                if trust.lost:
                    log.info("the manager is there")
                trust.lost = False
                if isinstance(message, IssuedCertificate):
                    self._take(message)
                elif isinstance(message, Watch):
                    self._be_watched(message)
                else:
                    self._on_message(message)
        finally:
            writing.cancel()
            call.cancel()
            if not trust.lost:
                trust.lost = True
                self._on_lost()

    def _be_watched(self, watch: Watch) -> None:
        if self._on_watch is not None:
            self._watched = True
            self._on_watch(watch)

    def _take(self, issued: IssuedCertificate) -> None:
        if issued.authority != self._identity.trust.certificate.value:
            raise ProtocolError("the manager issued a certificate of another authority than its own")
        self._identity.issued.take(issued)

    async def _write(self, call: Any) -> None:  # noqa: ANN401 -- grpc has no types
        """What was sent on this stream is sent again only when it has changed."""
        sent: dict[type[FromAgent], FromAgent] = {}
        try:
            await call.write(agent.encode(self._hello()))
            while True:
                self._news.clear()
                for state in (self._consents(), *self._states()):
                    if sent.get(type(state)) != state:
                        sent[type(state)] = state
                        await call.write(agent.encode(state))
                if (records := self._records.take()) is not None:
                    await call.write(agent.encode(records))  # states that changed meanwhile go before the next
                else:
                    await self._news.wait()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the reading side reports why

    def _consents(self) -> Consents:
        return Consents(self._identity.capabilities.proofs.value)

    def _hello(self) -> AgentHello:
        it = self._settings
        return AgentHello(it.pod, it.uid, it.namespace, it.address, it.probes, records=self._on_watch is not None)


async def wanted_again(settings: Settings, identity: AgentIdentity, ended: asyncio.Event) -> None:
    """Return when the manager wants a port of this pod, or *ended* is set.

    For a sidecar that nobody needs and that cannot leave: it waits without Envoy and without rules.
    """
    wanted = asyncio.Event()

    def on_message(message: ManagerOrder) -> None:
        if isinstance(message, Want) and message.ports:
            wanted.set()

    log.info("waiting for the next intercept")
    control = Control(settings, identity, on_message=on_message, on_lost=lambda: None, states=list)
    waiting = [asyncio.ensure_future(each) for each in (control.run(), wanted.wait(), ended.wait())]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
