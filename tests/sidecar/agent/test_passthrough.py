"""The agent and a real worker: started, told, asked, replaced."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from meshdev.errors import ClusterError
from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import canonical_json
from meshdev.sidecar.agent import child, listener_ports, passthrough, worker_channel
from meshdev.sidecar.agent.passthrough import COMMAND, Passthrough
from meshdev.wire.agent import PodPort
from meshdev.wire.passthrough import PassthroughCounts, PortClaims
from tests.sidecar.worker.process import serving
from tests.sidecar.worker.world import CLAIMED, GET, OK, SECONDS, answers, behind_header
from tests.sockets import everything, exactly
from tests.waiting import until

LOOPBACK = IPv4Address("127.0.0.1")
A1 = canonical_json(Match(headers=(HeaderMatch("a", "exact", "1"),)))


class Pod:
    """An app that says "ap" on one port, Envoy's listener that says "en", and what is tested."""

    def __init__(self, stack: ExitStack, folder: Path, command: Sequence[str]) -> None:
        self._stack = stack
        self.envoy = folder / "envoy"
        self.app = PodPort(stack.enter_context(serving(answers(b"ap"))))
        stack.enter_context(serving(behind_header(answers(b"en")), self.envoy))
        self.held = os.memfd_create("held")
        stack.callback(os.close, self.held)
        self.passthrough = Passthrough(LOOPBACK, (self.held,), command)
        stack.callback(self.passthrough.close)
        self.running = asyncio.ensure_future(self.passthrough.run())

    @property
    def claims(self) -> dict[PodPort, PortClaims]:
        return {self.app: PortClaims(matches=(A1,), envoy=str(self.envoy))}

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.passthrough.listener_ports([self.app])[self.app]

    def client(self) -> socket.socket:
        """In the listener's queue, accepted or not."""
        return self._stack.enter_context(socket.create_connection(self.address, SECONDS))

    async def ask(self, client: socket.socket, request: bytes = GET) -> bytes:
        client.sendall(request)
        answer = await asyncio.to_thread(exactly, client, len(OK) + 2)
        assert answer.startswith(OK)
        return answer[len(OK) :]

    async def until(self, condition: Callable[[PassthroughCounts], object]) -> None:
        await until(lambda: condition(self.passthrough.counts))

    async def end(self) -> None:
        self.running.cancel()
        with suppress(asyncio.CancelledError):
            await self.running


@asynccontextmanager
async def running(folder: Path, command: Sequence[str] = COMMAND) -> AsyncIterator[Pod]:
    with ExitStack() as stack:
        pod = Pod(stack, folder, command)
        try:
            yield pod
        finally:
            await pod.end()


@pytest.fixture
async def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pod]:
    monkeypatch.setattr(worker_channel, "ASK_SECONDS", 0.02)
    monkeypatch.setattr(worker_channel, "HUNG_QUESTIONS", 500)
    async with running(tmp_path) as pod:
        yield pod


def folder_of(pid: int | str | None, name: str) -> Path:
    return Path(f"/proc/{pid}/{name}")


def of_process(pid: int | str | None, name: str) -> str:
    """What /proc says of it."""
    return folder_of(pid, name).read_text()


def exists(pid: int | None) -> bool:
    """Somebody may have to take note of its end still."""
    try:
        return "State:\tZ" not in of_process(pid, "status")
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_what_is_claimed_is_handed_over_and_what_is_counted_comes_back(pod: Pod) -> None:
    client = pod.client()  # before the worker is there
    assert await pod.ask(client) == b"ap"
    pod.passthrough.set_ports(pod.claims)
    assert (await pod.passthrough.recount()).all_open == 1
    assert pod.passthrough.open == 1
    client = pod.client()
    assert [await pod.ask(client, each) for each in (GET, CLAIMED)] == [b"ap", b"en"]
    await pod.until(lambda counts: (counts.all_open, counts.accepted, counts.claimed) == (2, 2, 1))
    assert pod.passthrough.open == 2
    pod.passthrough.set_ports({})
    await until(lambda: asks(client, CLAIMED) == b"ap")


async def test_it_tells_which_claims_the_worker_has(pod: Pod) -> None:
    passthrough = pod.passthrough
    await pod.until(lambda counts: counts.answers)
    passthrough.set_ports({}, 1)
    assert passthrough.applied == 1, "nothing is new"
    passthrough.set_ports(pod.claims, 2)
    assert passthrough.applied == 1
    await asyncio.wait_for(passthrough.applied_more(), SECONDS)
    assert passthrough.applied == 2
    assert await pod.ask(pod.client(), CLAIMED) == b"en"
    passthrough.set_ports(pod.claims, 3)
    assert passthrough.applied == 3
    passthrough.set_ports(pod.claims, 0)
    assert passthrough.applied == 0, "numbers begin anew"


async def test_a_worker_that_is_stopped_has_applied_nothing_new_and_the_next_one_has_all_of_it(pod: Pod) -> None:
    passthrough = pod.passthrough
    await pod.until(lambda counts: counts.answers)
    passthrough.set_ports({}, 1)
    first = passthrough.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    passthrough.set_ports(pod.claims, 2)
    passthrough.set_ports(pod.claims, 3)
    client = pod.client()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(passthrough.applied_more(), 0.2)
    assert passthrough.applied == 1
    os.kill(first, signal.SIGKILL)
    await asyncio.wait_for(passthrough.applied_more(), SECONDS)
    assert passthrough.applied == 3
    assert await pod.ask(client, CLAIMED) == b"en"


async def test_without_a_worker_what_is_new_waits_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_channel, "ASK_SECONDS", 1000)
    async with running(tmp_path) as pod:
        pod.passthrough.set_ports(pod.claims, 1)
        assert pod.passthrough.applied == 0
        await asyncio.wait_for(pod.passthrough.applied_more(), SECONDS)
        assert pod.passthrough.applied == 1


def asks(client: socket.socket, request: bytes) -> bytes:
    client.sendall(request)
    return exactly(client, len(OK) + 2)[len(OK) :]


async def test_it_fails_while_workers_end_again_and_again(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        assert not pod.passthrough.failing
        await until(lambda: pod.passthrough.pid is not None)
        killed = pod.passthrough.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await until(partial(_is_another, pod, killed))
    assert pod.passthrough.failing
    monkeypatch.setattr(passthrough, "FAILING_SECONDS", 0.0)
    assert not pod.passthrough.failing


def _is_another(pod: Pod, killed: int) -> bool:
    return pod.passthrough.pid not in {None, killed}


async def test_a_worker_that_is_killed_loses_its_connections_and_nobody_else(
    pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    pod.passthrough.set_ports(pod.claims)
    lost = pod.client()
    assert await pod.ask(lost, CLAIMED) == b"en"
    await pod.until(lambda counts: (counts.claimed, counts.all_open) == (1, 1))
    first = pod.passthrough.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    queued = [pod.client() for _ in range(20)]
    for client in queued:
        client.sendall(CLAIMED)
    os.kill(first, signal.SIGKILL)
    for client in queued:
        assert await asyncio.to_thread(exactly, client, len(OK) + 2) == OK + b"en"
    assert pod.passthrough.pid not in (None, first)
    with suppress(ConnectionResetError):
        assert everything(lost) == b""
    await pod.until(lambda counts: (counts.accepted, counts.claimed, counts.all_open) == (21, 21, 20))
    assert "the passthrough worker ended with -9: " in caplog.text


async def test_connections_are_counted_anew_when_that_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_channel, "ASK_SECONDS", 1000)
    async with running(tmp_path) as pod:
        for number in range(1, 4):
            assert await pod.ask(pod.client()) == b"ap"
            assert (await pod.passthrough.recount()).all_open == number
        assert pod.passthrough.pid is not None
        os.kill(pod.passthrough.pid, signal.SIGSTOP)
        counting = asyncio.ensure_future(pod.passthrough.recount())
        pod.client()
        os.kill(pod.passthrough.pid, signal.SIGKILL)
        counts = await counting  # of the next one
        assert (counts.all_open, counts.accepted) == (1, 4)


async def test_listeners_and_claims_are_handed_over_again_and_later_ones_too(pod: Pod) -> None:
    pod.passthrough.set_ports(pod.claims)
    assert await pod.ask(pod.client(), CLAIMED) == b"en"
    with serving(answers(b"2.")) as number:
        port = PodPort(number)
        address = "127.0.0.1", pod.passthrough.listener_ports([port])[port]
        for _ in range(2):
            with socket.create_connection(address, SECONDS) as client:
                assert await pod.ask(client, CLAIMED) == b"2."
            assert await pod.ask(pod.client(), CLAIMED) == b"en"
            assert pod.passthrough.pid is not None
            os.kill(pod.passthrough.pid, signal.SIGKILL)
            await until(lambda: pod.passthrough.pid is None)


async def test_a_worker_that_answers_nothing_is_killed(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert await pod.ask(pod.client()) == b"ap"
    first = pod.passthrough.pid
    assert first is not None
    monkeypatch.setattr(worker_channel, "HUNG_QUESTIONS", 40)
    monkeypatch.setattr(passthrough, "_END_SECONDS", 0.1)
    os.kill(first, signal.SIGSTOP)
    client = pod.client()
    assert await pod.ask(client) == b"ap"
    assert "the passthrough worker ended with -9: it has not answered for 1 s" in caplog.text
    assert not exists(first)


async def test_its_end_is_the_worker_s_and_the_connections(pod: Pod) -> None:
    client = pod.client()
    assert await pod.ask(client) == b"ap"
    pid, address = pod.passthrough.pid, pod.address
    await pod.end()
    assert pod.passthrough.pid is None
    assert not exists(pid)
    with pytest.raises(ConnectionResetError):
        everything(client)
    waiting = pod.client()
    pod.passthrough.close()
    with pytest.raises(ConnectionResetError):
        everything(waiting)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, SECONDS)


async def test_a_worker_holds_what_it_is_given_and_nothing_else_of_the_agent(pod: Pod) -> None:
    assert await pod.ask(pod.client()) == b"ap"
    found = {link.name: str(link.readlink()) for link in folder_of(pod.passthrough.pid, "fd").iterdir()}
    assert "/memfd:held (deleted)" in found[str(pod.held)]
    assert {target for target in found.values() if target.startswith("/")} == {"/dev/null", found[str(pod.held)]}


async def test_a_worker_has_no_power_and_no_secret_and_is_not_the_first_to_die(pod: Pod) -> None:
    assert await pod.ask(pod.client()) == b"ap"
    pid = pod.passthrough.pid
    assert "CapEff:\t0000000000000000\n" in of_process(pid, "status")
    names = {entry.partition("=")[0] for entry in of_process(pid, "environ").split("\0")}
    assert names <= {"", "PATH", "PYTHONPATH", "LC_CTYPE"}
    assert of_process(pid, "oom_score_adj") == of_process("self", "oom_score_adj")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; print('one \\033[2J two', file=sys.stderr); sys.exit(3)", "worker ended with 3: it has closed"),
        ("import socket, sys; socket.socket(fileno=int(sys.argv[1])).sendall(b'hello\\n')", "worker is not JSON"),
        ("import socket, sys; socket.socket(fileno=int(sys.argv[1])).sendall(b'x' * (5 << 20))", "A line is longer"),
    ],
    ids=["ends", "words", "endless"],
)
async def test_another_is_started_later_and_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, script: str, said: str
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(passthrough, "RESTART_SECONDS", 0.01)
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        if seconds not in (0, worker_channel.ASK_SECONDS):
            pauses.append(seconds)
        await sleep(seconds)

    async with running(tmp_path, (sys.executable, "-c", script)):
        monkeypatch.setattr(asyncio, "sleep", noted)
        await until(lambda: {0.01, 0.02, 0.04} <= set(pauses))
    assert said in caplog.text
    assert "\033" not in caplog.text


async def test_a_worker_that_cannot_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(child, "TIED", (str(tmp_path / "nothing"),))
    async with running(tmp_path) as pod:
        await until(lambda: "the passthrough worker cannot be started" in caplog.text)
        monkeypatch.undo()
        assert await pod.ask(pod.client()) == b"ap"


_AGENT = """
import asyncio, sys
from ipaddress import IPv4Address
from meshdev.sidecar.agent.passthrough import Passthrough

async def main():
    passthrough = Passthrough(IPv4Address("127.0.0.1"))
    running = asyncio.ensure_future(passthrough.run())
    while not passthrough.pid:
        await asyncio.sleep(0.01)
    print(passthrough.pid, flush=True)
    await running

asyncio.run(main())
"""


async def test_the_worker_of_an_agent_that_is_killed_ends() -> None:
    agent = await asyncio.create_subprocess_exec(sys.executable, "-c", _AGENT, stdout=subprocess.PIPE)
    assert agent.stdout is not None
    worker = int(await agent.stdout.readline())
    assert exists(worker)
    agent.kill()
    await agent.wait()
    await until(lambda: not exists(worker), 1.0)


async def test_ports_of_udp_are_left_out_and_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = Passthrough(LOOPBACK)
    assert ports.listener_ports([PodPort(9090, "udp")]) == {}
    found = ports.listener_ports([PodPort(1), PodPort(2), PodPort(1)])
    assert len(set(found.values()) & set(listener_ports.RANGE)) == 2
    monkeypatch.setattr(listener_ports, "RANGE", range(next(iter(found.values())), next(iter(found.values())) + 1))
    with pytest.raises(ClusterError, match="is free in this pod"):
        ports.listener_ports([PodPort(3)])
    ports.close()


async def test_much_is_handed_over_while_the_worker_s_buffer_is_full(pod: Pod) -> None:
    """Lines of 1 MB, and listeners between them."""
    await pod.ask(pod.client())
    match = canonical_json(Match(headers=tuple(HeaderMatch(f"h{number}", "exact", "x" * 900) for number in range(9))))
    for number in range(3):
        claims = {**pod.claims, PodPort(1): PortClaims(matches=(match,) * (100 + number))}
        pod.passthrough.set_ports(claims)
        pod.passthrough.listener_ports([PodPort(2 + number)])
    pod.passthrough.set_ports(pod.claims)
    await until(lambda: asks(pod.client(), CLAIMED) == b"en")
