"""The stream to the manager's control container: kept up, and states announced on it whenever they changed."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import grpc

from meshdev.errors import ProtocolError
from meshdev.sidecar.agent.settings import Settings
from meshdev.sidecar.agent.trust import AgentIdentity
from meshdev.wire import agent
from meshdev.wire.agent import AgentHello, Consents, FromAgent, FromControl, Want

log = logging.getLogger(__name__)

#: A manager that is silent is asked after this time and given up after the other, in milliseconds.
_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", agent.MAX_MESSAGE),
    ("grpc.enable_http_proxy", 0),  # what the pod reaches the internet by
)
_RETRY_SECONDS: Final = 0.3


class Control:
    """One stream after the other, for ever.

    *on_message* is called with each message of the manager, *on_lost* when a stream that carried some has ended;
    *states* gives all that the manager has to know now, in order.
    """

    def __init__(
        self,
        settings: Settings,
        identity: AgentIdentity,
        *,
        on_message: Callable[[FromControl], None],
        on_lost: Callable[[], None],
        states: Callable[[], list[FromAgent]],
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._on_message = on_message
        self._on_lost = on_lost
        self._states = states
        self._news = asyncio.Event()

    def announce(self) -> None:
        """Something that the manager has to know has changed."""
        self._news.set()

    async def run(self) -> None:
        """Until it is cancelled. Nothing is dialled before a session has attested this agent and named the manager."""
        manager = await self._identity.attested()
        while True:
            serving = asyncio.ensure_future(self._serve(manager))
            replaced = asyncio.ensure_future(self._identity.trust.certificate.changed(manager))
            try:
                done, _ = await asyncio.wait((serving, replaced), return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # what serves ends only by an error
            finally:
                for task in (serving, replaced):
                    task.cancel()
                await asyncio.wait((serving, replaced))
            manager = await self._identity.attested()

    async def _serve(self, _manager: bytes) -> None:
        target = f"{self._settings.manager}:{self._settings.port}"
        async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
            method = channel.stream_stream(agent.METHOD)
            while True:
                try:
                    await self._stream(method)
                except grpc.aio.AioRpcError as error:
                    log.info("no stream to the manager: %s %s", error.code().name, error.details())
                except ProtocolError as error:
                    log.warning("the manager broke the protocol: %s", error.message)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _stream(self, method: Any) -> None:  # noqa: ANN401 -- grpc has no types
        call = method(wait_for_ready=True)
        writing = asyncio.ensure_future(self._write(call))
        consenting = asyncio.ensure_future(self._follow_consents())
        received = False
        try:
            async for data in call:
                message = agent.decode_from_control(data)
                if not received:
                    log.info("the manager is there")
                received, self._identity.trust.lost = True, False
                self._on_message(message)
        finally:
            writing.cancel()
            consenting.cancel()
            call.cancel()
            self._identity.trust.lost = True
            if received:
                self._on_lost()

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
                await self._news.wait()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the reading side reports why

    def _consents(self) -> Consents:
        return Consents(self._identity.capabilities.proofs.value)

    async def _follow_consents(self) -> None:
        proofs = self._identity.capabilities.proofs
        while True:
            await proofs.changed(self._consents().proofs)
            self.announce()

    def _hello(self) -> AgentHello:
        it = self._settings
        return AgentHello(it.pod, it.uid, it.namespace, it.address, it.probes)


async def wanted_again(settings: Settings, identity: AgentIdentity, ended: asyncio.Event) -> None:
    """Return when the manager wants a port of this pod, or *ended* is set.

    For a sidecar that nobody needs and that cannot leave: it waits without Envoy, without rules and, before a session
    attests it, without a stream to the manager.
    """
    wanted = asyncio.Event()

    def on_message(message: FromControl) -> None:
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
