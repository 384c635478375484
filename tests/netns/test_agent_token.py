"""The agent gives its token away on the pod's loopback, and to nobody who does not ask for it; real processes."""

import asyncio
import socket
from contextlib import ExitStack, suppress

import pytest

from meshdev.sidecar.agent.announcing import MAX_CONNECTIONS
from meshdev.wire.announcement import CHOSEN_PORTS, REQUEST
from tests.netns.cluster import POD
from tests.netns.sidecar import sidecar
from tests.waiting import until


async def test_each_process_has_a_token_of_its_own_and_announces_where() -> None:
    async with sidecar() as pod:
        assert await pod.token_port() in CHOSEN_PORTS
        first = await pod.token()
        assert first == await pod.token() == pod.manager.tokens[0]
        pod.agent.kill()
        pod.agent.wait()
        await until(lambda: not pod.manager.connected)
        pod.start_agent()
        await until(lambda: len(pod.manager.tokens) == 2)
        assert pod.manager.tokens == [first, await pod.token()]
        assert first != pod.manager.tokens[1]


async def test_the_assigned_port_is_taken_where_it_is_free() -> None:
    async with sidecar() as pod:
        for expected in ({16205}, CHOSEN_PORTS):
            before = pod.agent
            pod.start_agent("[]", "", "16205")
            try:
                assert await pod.token_port() in expected
                assert len(await pod.token()) == 64
            finally:
                before.kill()
                before.wait()


async def test_it_is_told_while_the_agent_waits_for_the_table() -> None:
    async with sidecar() as pod:
        holder = pod.agent
        try:
            pod.start_agent()
            assert await pod.token() != pod.manager.tokens[0]
            assert len(pod.manager.tokens) == 1
        finally:
            holder.kill()
            holder.wait()


@pytest.mark.parametrize(
    "request_",
    [b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", REQUEST.replace(b"/1", b"/2"), REQUEST.upper(), b"\0" * 100_000],
)
async def test_who_asks_for_something_else_is_told_nothing(request_: bytes) -> None:
    async with sidecar() as pod:
        with suppress(ConnectionError):  # what was not read is answered with a reset
            assert await pod.ask_token(request_) == b""
        assert len(await pod.token()) == 64


async def test_from_outside_of_the_pod_nobody_reaches_it() -> None:
    async with sidecar() as pod:
        port = await pod.token_port()
        with pod.outside.inside(), pytest.raises(ConnectionRefusedError):
            socket.create_connection((str(POD), port), timeout=5)


async def test_connections_that_say_nothing_keep_nobody_out() -> None:
    async with sidecar() as pod:
        port = await pod.token_port()
        with ExitStack() as stack:
            for _ in range(3 * MAX_CONNECTIONS):
                with pod.pod.inside():
                    stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            async with asyncio.timeout(5):
                assert len(await pod.token()) == 64
