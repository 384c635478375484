"""The stream to the manager's control container: kept up, and states announced on it whenever they changed."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import grpc

from meshdev.errors import ProtocolError
from meshdev.sidecar.agent.settings import Settings
from meshdev.wire import agent
from meshdev.wire.agent import AgentHello, FromAgent, FromControl, Want

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
        *,
        on_message: Callable[[FromControl], None],
        on_lost: Callable[[], None],
        states: Callable[[], list[FromAgent]],
    ) -> None:
        self._settings = settings
        self._on_message = on_message
        self._on_lost = on_lost
        self._states = states
        self._news = asyncio.Event()

    def announce(self) -> None:
        """Something that the manager has to know has changed."""
        self._news.set()

    async def run(self) -> None:
        """Until it is cancelled."""
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
        call = method(metadata=((agent.METADATA_KEY, self._settings.token),), wait_for_ready=True)
        writing = asyncio.ensure_future(self._write(call))
        received = False
        try:
            async for data in call:
                message = agent.decode_from_control(data)
                if not received:
                    log.info("the manager is there")
                received = True
                self._on_message(message)
        finally:
            writing.cancel()
            call.cancel()
            if received:
                self._on_lost()

    async def _write(self, call: Any) -> None:  # noqa: ANN401 -- grpc has no types
        """What was sent on this stream is sent again only when it has changed."""
        sent: dict[type[FromAgent], FromAgent] = {}
        try:
            await call.write(agent.encode(self._hello()))
            while True:
                self._news.clear()
                for state in self._states():
                    if sent.get(type(state)) != state:
                        sent[type(state)] = state
                        await call.write(agent.encode(state))
                await self._news.wait()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the reading side reports why

    def _hello(self) -> AgentHello:
        it = self._settings
        return AgentHello(it.pod, it.uid, it.namespace, it.address, it.probes)


async def wanted_again(settings: Settings, ended: asyncio.Event) -> None:
    """Return when the manager wants a port of this pod, or *ended* is set.

    For a sidecar that nobody needs and that cannot leave: it waits without Envoy and without rules.
    """
    wanted = asyncio.Event()

    def on_message(message: FromControl) -> None:
        if isinstance(message, Want) and message.ports:
            wanted.set()

    log.info("waiting for the next intercept")
    control = Control(settings, on_message=on_message, on_lost=lambda: None, states=list)
    waiting = [asyncio.ensure_future(each) for each in (control.run(), wanted.wait(), ended.wait())]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
