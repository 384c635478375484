"""What is spoken through an intercepted pod goes on as it does without a sidecar, and as it does on the laptop.

Each dialogue is held before there is a sidecar, and again with one: at the app for what nobody claimed, on the laptop
for what is matched. App, local program and client are sockets of the test in the networks of pods and laptop.
"""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cluster.manifests import App, Port
from tests.e2e import pods, workloads
from tests.e2e.conftest import CHECKOUT, Laptop
from tests.e2e.dialogues import OF_BYTES, Serving, Step, of_http, play, tls
from tests.e2e.intercepting import intercepted
from tests.e2e.networks import inside, of_laptop, of_pod
from tests.e2e.numbered import NumberedClient, NumberedServer
from tests.e2e.workloads import of
from tests.sidecar.worker.world import SECONDS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

NAMESPACE: Final = "intercept-protocols"
#: Where the test listens, in the pod and on the laptop: declared as http, and not declared.
DECLARED: Final = 7777
UNDECLARED: Final = 7778
NUMBERED: Final = 7779
IDLE: Final = 7780
GRPC: Final = 50051
APP: Final = App(
    "odd",
    ("--name=odd", "--port=8080"),
    (
        *(Port("http", DECLARED), Port("http-numbered", NUMBERED), Port("http-idle", IDLE)),
        Port("grpc", GRPC, app_protocol="grpc"),
    ),
)
CLIENTS: Final = 10
WORKER: Final = re.compile(r"meshdev\.sidecar\.worker")
#: Of a worker's memory for an idle connection, in bytes.
IDLE_BYTES: Final = 4096
Dialogue = Callable[[socket.socket, Serving], None]


def in_steps(steps: list[Step]) -> Dialogue:
    return partial(play, steps=steps)


UNCLAIMED: Final[dict[str, Dialogue]] = {**{name: in_steps(steps) for name, steps in OF_BYTES.items()}, "TLS": tls}
CLAIMED: Final[dict[str, Dialogue]] = {name: in_steps(steps) for name, steps in of_http("a: 1").items()}


@contextmanager
def program(network: Path, module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program of the tests in that network, which has printed its first line."""
    command = ("nsenter", f"--net={network}", sys.executable, "-m", f"tests.e2e.{module}", *arguments)
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


@dataclass(frozen=True)
class Networks:
    """Those of the app, of its client and of the laptop, and what the test listens with."""

    pod: pods.Pod
    app: Path
    client: Path
    laptop: Path
    of_app: dict[int, socket.socket]
    of_laptop: dict[int, socket.socket]

    @property
    def address(self) -> str:
        """The pod's."""
        address: str = self.pod["status"]["podIP"]
        return address

    def connected(self, port: int) -> socket.socket:
        """A client's socket."""
        with inside(self.client):
            sock = socket.socket()
        sock.settimeout(SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect((self.address, port))
        return sock

    def hold(self, dialogue: Dialogue, port: int, *, matched: bool = False) -> None:
        """The dialogue between a client and the app, or the laptop."""
        listener = (self.of_laptop if matched else self.of_app)[port]
        forget(self.of_app[port])  # a sidecar connects to the app before it knows for whom a request is
        with ExitStack() as stack, self.connected(port) as client:
            dialogue(client, cache(lambda: stack.enter_context(accepted(listener, silent=not matched))))


def forget(listener: socket.socket) -> None:
    """Close what waits in its queue."""
    listener.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()


def accepted(listener: socket.socket, *, silent: bool) -> socket.socket:
    """The next connection. Not *silent*: one that has something to say; others only looked whether somebody listens."""
    listener.settimeout(SECONDS)
    while True:
        sock = listener.accept()[0]
        sock.settimeout(SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if silent or sock.recv(1, socket.MSG_PEEK):
            return sock
        sock.close()


def listening(stack: ExitStack, network: Path, address: str) -> dict[int, socket.socket]:
    """By port."""
    with inside(network):
        made = {port: socket.create_server((address, port)) for port in (DECLARED, UNDECLARED, NUMBERED)}
    for each in made.values():
        stack.enter_context(each)
    return made


def differences(networks: Networks, dialogues: dict[str, Dialogue], *, matched: bool = False) -> dict[str, str]:
    """Of these dialogues those that went otherwise, and how; on both ports."""
    found = {}
    for port in (DECLARED, UNDECLARED):
        for name, dialogue in dialogues.items():
            try:
                networks.hold(dialogue, port, matched=matched)
            except (AssertionError, OSError) as error:
                found[f"{name}, port {port}"] = repr(error)
    return found


def calls(networks: Networks, *metadata: str) -> dict[str, Any]:
    """All kinds of gRPC calls, by a client in its pod."""
    command = ("-m", "tests.e2e.grpc_calls", "ask", f"{networks.address}:{GRPC}", *metadata)
    done = subprocess.run(
        ["nsenter", f"--net={networks.client}", sys.executable, *command],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def networks(cluster: None) -> Iterator[Networks]:  # noqa: ARG001 -- for its effect
    laptop = Laptop(1)
    laptop.clean()
    with workloads.namespace(NAMESPACE, *of(APP, NAMESPACE)), laptop.connected(), ExitStack() as stack:
        (pod,), (client,) = pods.pods(NAMESPACE, "app=odd"), pods.pods(NAMESPACE, "!app")
        app, there = of_pod(pod), of_laptop(1)
        made = Networks(
            *(pod, app, of_pod(client), there),
            *(listening(stack, app, "0.0.0.0"), listening(stack, there, "127.0.0.1")),
        )
        for network, name, address in ((app, "app", "0.0.0.0"), (there, "laptop", "127.0.0.1")):
            stack.enter_context(program(network, "grpc_calls", "serve", name, f"{address}:{GRPC}"))
        stack.enter_context(program(app, "idle", "serve", "0.0.0.0", str(IDLE)))
        yield made
    laptop.clean()


@dataclass(frozen=True)
class Without:
    """What there was before there was a sidecar."""

    unclaimed: dict[str, str]
    claimed: dict[str, str]
    calls: dict[str, Any]


@pytest.fixture(scope="module")
def without(networks: Networks) -> Iterator[Without]:
    """And now there is one."""
    before = Without(differences(networks, UNCLAIMED), differences(networks, CLAIMED), calls(networks, "a=1"))
    flags = [word for port in (DECLARED, UNDECLARED, NUMBERED, GRPC) for word in ("--port", f"{port}:{port}")]
    idle = ("--port", f"{NUMBERED}:{IDLE}")
    with intercepted(Laptop(1), "mesh", "deployment/odd", NAMESPACE, "-H", "a=1", *flags, *idle):
        yield before


def test_what_nobody_claimed(networks: Networks, without: Without) -> None:
    assert differences(networks, UNCLAIMED) == without.unclaimed == {}


def test_what_is_matched(networks: Networks, without: Without) -> None:
    """On the laptop as at the app."""
    assert differences(networks, CLAIMED, matched=True) == without.claimed == {}


def test_grpc(networks: Networks, without: Without) -> None:
    assert calls(networks) == without.calls
    assert calls(networks, "a=1") == {**without.calls, "names": ["laptop"]}
    assert without.calls["names"] == ["app"]


@pytest.mark.usefixtures("without")
def test_logins_of_ten_clients_at_once(networks: Networks) -> None:
    """Each end sees all requests of a client on one connection, that no other client uses."""
    for name, listener in (("app", networks.of_app[NUMBERED]), ("laptop", networks.of_laptop[NUMBERED])):
        NumberedServer(name, listener)
    with ExitStack() as stack, ThreadPoolExecutor(CLIENTS) as pool:
        users = [f"user{number}" for number in range(CLIENTS)]
        clients = [NumberedClient(stack.enter_context(networks.connected(NUMBERED)), user) for user in users]
        found = list(pool.map(lambda client: client.converse("app", "laptop"), clients))
    numbers = [{number for _, number, _ in each[end]} for each in found for end in ("app", "laptop")]
    assert [len(each) for each in numbers[::2]] == [1] * CLIENTS
    for of_end in (numbers[::2], numbers[1::2]):
        assert len(set().union(*of_end)) == sum(map(len, of_end)), "a connection was shared"


def descriptors(pid: int) -> int:
    """How many a process may have."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    return int(limits.partition("Max open files")[2].split()[0])


@pytest.mark.usefixtures("without")
def test_ten_thousand_idle_connections(networks: Networks) -> None:
    """Fewer where the node's containers may not have as many descriptors: a worker counts three for each."""
    number = min(10_000, (descriptors(pods.process(networks.pod, WORKER)) - 1000) // 3)
    before = pods.memory_kib(networks.pod, WORKER)
    with program(networks.client, "idle", "open", networks.address, str(IDLE), str(number)) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        for _ in range(2):
            client.stdin.write("ask\n")
            client.stdin.flush()
            assert int(client.stdout.readline()) == number
            networks.hold(UNCLAIMED["SSE"], DECLARED)
        each = (pods.memory_kib(networks.pod, WORKER) - before) * 1024 / number
    print(f"{number} connections, {each:.0f} bytes each")
    assert each < IDLE_BYTES
