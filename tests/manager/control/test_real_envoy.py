"""A real Envoy at the real control container: how soon what a session says counts, and that no request is lost."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import Port, Spec, canonical_json
from meshdev.sidecar.agent.secret_discovery import Secrets, SecretServer
from meshdev.sidecar.envoy import names
from meshdev.sidecar.envoy.bootstrap import Start, bootstrap, command
from meshdev.sidecar.envoy.protos import CLUSTERS
from meshdev.wire import proxy_protocol
from meshdev.wire.agent import Listen, PodPort, State
from meshdev.wire.modes import MESH
from tests.manager.claims import WORKLOAD
from tests.manager.control.claimant import Claimant
from tests.manager.control.identities import identity
from tests.manager.control.sidecars import Agent, Control, agent_of, beside
from tests.manager.standin import POD, Manager, running
from tests.sidecar.certificates import Certificates
from tests.sidecar.pod import End, length
from tests.sidecar.real_envoy import binary
from tests.sidecar.relays import Relays
from tests.waiting import until

#: The manager is on loopback here, and so is the session: the first relay's port is where the laptop's program
#: listens; at an address of this process's own (all of 127.0.0.0/8 is the machine's), where no other program and no
#: other run has that port.
FIRST_RELAY = 20000
MANAGER = IPv4Address("127.64.0.0") + os.getpid() % (1 << 22)


pytestmark = pytest.mark.usefixtures("relays")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with running(tmp_path, pod=replace(POD, address=MANAGER)) as manager:
        yield manager


@asynccontextmanager
async def ends() -> AsyncIterator[tuple[End, End]]:
    """The app and the laptop's program."""
    app, laptop = End("original"), End("laptop")
    laptop.host, laptop.port = str(MANAGER), FIRST_RELAY
    for end in (app, laptop):
        await end.start()
    try:
        yield app, laptop
    finally:
        for end in (app, laptop):
            await end.stop()


@asynccontextmanager
async def real_envoy(mesh: Control, one: Agent) -> AsyncIterator[Path]:
    """As the agent starts it, with the certificate that control issues."""
    secrets = SecretServer()

    async def request() -> None:
        pair = identity().pair
        await until(lambda: one.issued is not None)
        assert one.issued is not None
        secrets.set(Secrets(pair.private_pem, one.issued.certificate, one.issued.authority))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = Start("uid-b-1", "127.0.0.1", mesh.port, str(folder / "admin"), str(folder / "secrets"))
        (folder / "config.json").write_text(json.dumps(bootstrap(start)))
        async with secrets.serving(folder / "secrets"), beside(request()):
            process = _start(folder / "config.json")
            try:
                yield folder
            finally:
                process.kill()
                process.wait()


@pytest.fixture
async def relays(mesh: Control, tmp_path: Path) -> AsyncIterator[Relays]:
    """What the container *relay* does, of the same authority."""
    assert mesh.authority.certificate == Certificates(tmp_path).authority
    async with Relays(Certificates(tmp_path), str(MANAGER), str(MANAGER)).serving() as made:
        yield made


def _start(config: Path) -> subprocess.Popen[bytes]:
    arguments = command(binary(), str(config), 1)
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def spec_of(app: End, value: str) -> Spec:
    match = Match((HeaderMatch("a", "exact", value),))
    return Spec("b" * 32, WORKLOAD, MESH, match, (Port(app.port, "http", 3000),))


class Pod:
    """An agent, and whoever comes to its passthrough proxy."""

    def __init__(self, app: End, one: Agent, folder: str) -> None:
        self._app, self._number = app, app.port
        self._folder = folder
        self._agent = one

    def spec(self, value: str) -> Spec:
        return spec_of(self._app, value)

    async def join(self) -> None:
        port = PodPort(self._number)
        await self._agent.say(State())
        await until(lambda: self._agent.wants() == [str(port)])
        await self._agent.say(Listen({port: 15800}, self._folder))
        await until(lambda: self._agent.redirects() == [str(port)])
        await self._agent.say(State((port,)))

    def decides(self, value: str) -> bool:
        """Whether the passthrough proxy may decide by a claim on that header."""
        claims = self._agent.redirect.claims if self._agent.redirect else ()
        return canonical_json(self.spec(value).match) in {claim.match for claim in claims}

    async def ask(self, value: str) -> str:
        """Who answers a request with that header; "status 503" and the like where nobody does."""
        if self.decides(value):
            path = names.socket(self._folder, PodPort(self._number))
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(proxy_protocol.header(("10.244.1.7", 43210), ("127.0.0.1", self._number)))
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._number)
        writer.write(f"GET / HTTP/1.1\r\nHost: b\r\na: {value}\r\nConnection: close\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(length(head))
        writer.close()
        status = head.split()[1].decode()
        return body.decode() if status == "200" else f"status {status}"

    async def seconds_until(self, value: str, who: str) -> float:
        """Until a request with that header is answered by *who*."""
        began = time.perf_counter()
        while await self.ask(value) != who:
            assert time.perf_counter() - began < 5
        return time.perf_counter() - began


@asynccontextmanager
async def joined(mesh: Control, app: End, claimant: Claimant, value: str) -> AsyncIterator[Pod]:
    """A pod with a claim on that value: without one it could not come."""
    claimant.claim(spec_of(app, value))
    async with agent_of(mesh) as one, real_envoy(mesh, one) as folder:
        pod = Pod(app, one, str(folder))
        joining = asyncio.create_task(pod.join())
        yield pod
        await joining


async def test_what_a_session_says_counts_at_once(mesh: Control, claimant: Claimant) -> None:
    times: dict[str, list[float]] = {"match": [], "down": [], "up": []}
    async with ends() as (app, _), joined(mesh, app, claimant, "first") as pod:
        await claimant.reported("acked", pod.spec("first"))
        assert (await pod.ask("first"), await pod.ask("other")) == ("laptop", "original")
        for number in range(15):
            value = f"v{number}"
            one = pod.spec(value)
            claimant.claim(one)
            times["match"].append(await pod.seconds_until(value, "laptop"))
            claimant.local(one, False, one.ports[0])
            times["down"].append(await pod.seconds_until(value, "original"))
            claimant.local(one, True, one.ports[0])
            times["up"].append(await pod.seconds_until(value, "laptop"))
    medians = {name: sorted(some)[len(some) // 2] for name, some in times.items()}
    print({name: f"p50 {medians[name] * 1e3:.1f} ms, max {max(some) * 1e3:.1f} ms" for name, some in times.items()})
    assert max(medians.values()) < 0.1, "when it happens, not when somebody looks again"


async def test_an_intercept_that_comes_and_goes_fails_no_request(mesh: Control, claimant: Claimant) -> None:
    answers: dict[str, int] = {}
    stop = asyncio.Event()

    async def ask(pod: Pod, value: str) -> None:
        while not stop.is_set():
            who = await pod.ask(value)
            answers[who] = answers.get(who, 0) + 1

    async with ends() as (app, _), joined(mesh, app, claimant, "1") as pod:
        one = pod.spec("1")
        await claimant.reported("acked", one)
        asking = [asyncio.create_task(ask(pod, value)) for value in ("1", "2")]
        for _ in range(60):
            claimant.withdraw(one)
            await pod.seconds_until("1", "original")
            claimant.claim(one)
            await pod.seconds_until("1", "laptop")
        stop.set()
        await asyncio.gather(*asking)
    print(f"answers while an intercept came and went: {answers}")
    assert answers.keys() == {"laptop", "original"}
    assert sum(answers.values()) > 200


async def test_the_envoy_of_another_agent_is_there_before_its_agent_reports(
    mesh: Control, claimant: Claimant, caplog: pytest.LogCaptureFixture
) -> None:
    """The former agent's stream has not ended yet, its Envoy and that one's folder are gone."""
    async with ends() as (app, _), AsyncExitStack() as undo:
        claimant.claim(spec_of(app, "1"))
        former = await undo.enter_async_context(agent_of(mesh))
        async with real_envoy(mesh, former) as folder:
            pod = Pod(app, former, str(folder))
            await pod.join()
            await claimant.reported("acked", pod.spec("1"))
        async with agent_of(mesh) as other, real_envoy(mesh, other) as folder:
            (known,) = mesh.core.pods()
            await until(lambda: known._envoy is not None and CLUSTERS in known._envoy.stream._watches)
            assert known._envoy is not None
            assert not known._envoy.stream._watches[CLUSTERS].pending, "it is sent nothing"
            pod = Pod(app, other, str(folder))
            await pod.join()
            await pod.seconds_until("1", "laptop")
        assert "refuses" not in caplog.text


async def test_a_port_that_turns_out_to_be_another_protocol_is_served_at_once(
    mesh: Control, claimant: Claimant
) -> None:
    """Bytes need a cluster with endpoints of their own, which Envoy asks for before it takes the cluster."""
    async with ends() as (app, _), joined(mesh, app, claimant, "1") as pod:
        one = pod.spec("1")
        other = replace(pod.spec("2"), ports=(Port(app.port, "tcp", 3000),))  # the same id: the same relay
        for each, value in ((one, "1"), (other, "2"), (one, "1")):
            claimant.claim(each)
            await claimant.reported("acked", each)
            await pod.seconds_until(value, "laptop")
            claimant.withdraw(each)
            await pod.seconds_until(value, "original")


async def test_a_request_that_is_on_its_way_when_its_intercept_ends_goes_to_the_original(
    mesh: Control, claimant: Claimant
) -> None:
    """Its laptop has gone, and nobody answers the SYN."""
    app = End("original")
    await app.start()
    with socket.create_server((str(MANAGER), FIRST_RELAY), backlog=0), contextlib.ExitStack() as others:
        for _ in range(3):  # the kernel drops SYNs when the queue is full
            others.enter_context(_caller())
        unanswered = len(_unanswered())
        assert unanswered
        async with joined(mesh, app, claimant, "1") as pod:
            one = pod.spec("1")
            await claimant.reported("acked", one)
            asking = asyncio.create_task(pod.ask("1"))
            await until(lambda: len(_unanswered()) > unanswered)
            claimant.withdraw(one)
            await pod.seconds_until("1", "original")
            assert await asking == "original"
    await app.stop()


def _caller() -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex((str(MANAGER), FIRST_RELAY))
    return sock


def _unanswered() -> list[str]:
    """Connections to the relay in SYN_SENT, as the kernel lists them (proc(5): /proc/net/tcp)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    relay = f"{int.from_bytes(MANAGER.packed, sys.byteorder):08X}:{FIRST_RELAY:04X}"
    return [row[1] for row in rows if (row[2], row[3]) == (relay, "02")]
