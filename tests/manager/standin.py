"""The real tunnel server in a thread, on a network of memory devices, and a client made of plain sockets."""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Self, TypeVar

from meshdev.config import ADDRESS_POOLS, OLDEST_PROTOCOL, PROTOCOL
from meshdev.errors import MeshdevError
from meshdev.manager.tunnel.control_socket import ControlSocket
from meshdev.manager.tunnel.firewall import RelayPort
from meshdev.manager.tunnel.network import PodNetwork
from meshdev.manager.tunnel.server import TunnelServer
from meshdev.pump.loop import Loop
from meshdev.tun.device import TunDevice
from meshdev.tun.memory import MemoryQueue, memory_pair
from meshdev.wire import frames
from meshdev.wire.control import Close, Hello, Message, Welcome, decode, encode
from tests.loops import DEADLINE_SECONDS, Clock

T = TypeVar("T")

POD = PodNetwork(IPv4Address("10.244.0.9"), 1450, (IPv4Address("10.96.0.10"),), ("default.svc.cluster.local",))

HELLO = Hello(
    oldest=OLDEST_PROTOCOL,
    newest=PROTOCOL,
    session="a" * 32,
    secret="b" * 32,
    holder="ann@laptop",
    offload=7,
    pools=ADDRESS_POOLS,
)


def hello(name: str, **changes: Any) -> Hello:
    """A HELLO of the session *name* (one hexadecimal digit or more)."""
    digits = name.encode().hex().ljust(32, "0")[:32]
    return replace(HELLO, session=digits, holder=name, **changes)


class FakeNetwork:
    """Devices in memory; the far queues are the cluster's side of a session's device."""

    def __init__(self) -> None:
        self.devices: dict[IPv4Address, tuple[TunDevice, TunDevice]] = {}
        self.refusal: MeshdevError | None = None
        self.relays: dict[RelayPort, tuple[IPv4Address, set[IPv4Address]]] = {}
        self.silent: set[IPv4Address] = set()
        self.cuts: list[IPv4Address] = []
        self.flushed: list[IPv4Address] = []

    def open_device(self, address: IPv4Address, pool: IPv4Network, queues: int, offload: int) -> tuple[TunDevice, int]:
        assert address in pool
        if self.refusal is not None:
            raise self.refusal
        device, far = memory_pair(queues)
        for queue in device.queues:
            queue.detach()
        assert address not in self.devices
        self.devices[address] = device, far
        return device, device.offload & offload

    def close_device(self, device: TunDevice, address: IPv4Address) -> None:
        mine, far = self.devices.pop(address)
        assert mine is device
        device.close()
        far.close()

    def open_relays(self, relays: Sequence[RelayPort], address: IPv4Address) -> None:
        if self.refusal is not None:
            raise self.refusal
        for relay in relays:
            assert relay not in self.relays
            self.relays[relay] = address, set()

    def close_relays(self, relays: Sequence[RelayPort], address: IPv4Address) -> None:
        for relay in relays:
            assert self.relays.pop(relay)[0] == address

    def allow(self, relay: RelayPort, sources: Iterable[IPv4Address], *, keep: bool) -> None:
        allowed = self.relays[relay][1]
        if not keep:
            allowed.clear()
        allowed |= set(sources)

    def silence(self, address: IPv4Address, silent: bool) -> None:
        assert (address in self.silent) != silent
        self.silent ^= {address}

    def cut(self, address: IPv4Address) -> None:
        self.cuts.append(address)

    def flush(self, address: IPv4Address) -> Future[None]:
        self.flushed.append(address)
        done: Future[None] = Future()
        if self.refusal is None:
            done.set_result(None)
        else:
            done.set_exception(self.refusal)
        return done

    def cluster_side(self, address: IPv4Address, queue: int = 0) -> int:
        return self.devices[address][1].queues[queue].fileno()

    def attached(self, address: IPv4Address) -> list[bool]:
        queues = self.devices[address][0].queues
        return [isinstance(queue, MemoryQueue) and queue.attached for queue in queues]


class Manager:
    """Owns a listener, a loop and its thread. A bug that ends the thread is raised by :meth:`close`."""

    def __init__(self, folder: Path, clock: Clock | None = None, pod: PodNetwork = POD) -> None:
        self.network = FakeNetwork()
        self.clock = clock
        self.loop = Loop(clock) if clock else Loop()
        self.control = ControlSocket(self.loop, folder / "tunnel.sock")
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address: tuple[str, int] = listener.getsockname()
        self.server = TunnelServer(
            self.loop,
            listener,
            self.network,
            pod,
            name="manager-1",
            namespace="default",
            control=self.control,
            addresses=folder / "addresses.json",
        )
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.loop.run()
        except BaseException as error:  # noqa: BLE001 -- told by close()
            self._failure = error

    def ask(self, question: Callable[[], T]) -> T:
        """The answer of the loop's own thread."""
        answers: list[T] = []
        done = threading.Event()

        def answer() -> None:
            try:
                answers.append(question())
            finally:
                done.set()

        self.loop.post(answer)
        assert done.wait(DEADLINE_SECONDS), f"the manager's loop is gone: {self._failure!r}"
        return answers[0]

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until *condition* holds in the loop's thread."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self.ask(condition):
            assert time.monotonic() < deadline, "it never came true"

    def pass_time(self, seconds: float) -> None:
        """Let the manager's clock run ahead; its timers have run afterwards."""
        assert self.clock is not None
        for _ in range(round(seconds * 2)):
            self.clock.now += 0.5
            self.ask(lambda: None)
            self.ask(lambda: None)

    def dismiss_all(self) -> None:
        """End every session, those in their grace too."""

        def dismiss() -> None:
            for session in list(self.server._sessions.values()):
                self.server.dismiss(session)

        self.ask(dismiss)

    def holders(self) -> list[str]:
        return [info.holder for info in self.ask(self.server.observe).sessions]

    def close(self) -> None:
        if self._thread.is_alive():
            self.ask(self.server.close)
            self.ask(self.control.close)
        self.loop.stop()
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive()
        self.loop.close()
        if self._failure is not None:
            raise self._failure


@contextmanager
def running(folder: Path, clock: Clock | None = None, pod: PodNetwork = POD) -> Iterator[Manager]:
    manager = Manager(folder, clock, pod)
    try:
        yield manager
    finally:
        manager.close()


class Visitor:
    """A peer of the tunnel port that says what the test makes it say."""

    def __init__(self, manager: Manager) -> None:
        self.sock = socket.create_connection(manager.address, timeout=DEADLINE_SECONDS)
        self._decoder = frames.FrameDecoder()
        self._waiting: list[tuple[int, bytes]] = []

    def say(self, *messages: Message | bytes) -> Self:
        data = b"".join(one if isinstance(one, bytes) else encode(one) for one in messages)
        self.sock.sendall(data)
        return self

    def frame(self) -> tuple[int, bytes]:
        """The next frame. Raises EOFError at the end of the stream."""
        while not self._waiting:
            try:
                data = self.sock.recv(1 << 18)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            self._waiting += [(kind, bytes(body)) for kind, body in self._decoder.feed(memoryview(data))]
        return self._waiting.pop(0)

    def message(self) -> Message:
        kind, body = self.frame()
        message = decode(kind, body)
        assert message is not None
        return message

    def welcome(self) -> Welcome:
        message = self.message()
        assert isinstance(message, Welcome), message
        return message

    def refusal(self) -> Close:
        message = self.message()
        assert isinstance(message, Close), message
        return message

    def packet(self) -> bytes:
        kind, body = self.frame()
        assert kind == frames.PACKET
        return body

    def gone(self) -> bool:
        """Whether the manager ended the connection without another frame; waits for it."""
        try:
            self.frame()
        except EOFError:
            return True
        return False

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
