"""The worker as a process, and a test in the place of its agent."""

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

from meshdev.sidecar.agent import client_addresses
from meshdev.wire.access import AccessRecords
from meshdev.wire.agent import PodPort
from meshdev.wire.jsonlines import LineSplitter
from meshdev.wire.passthrough import (
    AddListener,
    AppAddress,
    AskCounts,
    PassthroughCounts,
    PortClaims,
    SetClaims,
    ToWorker,
    decode_from_worker,
    encode,
)
from tests.sidecar.worker.world import SECONDS, Serve


class WorkerProcess:
    """One worker. The port of an app is the port of the pod."""

    def __init__(self, limit: int | None = None, queue: socket.socket | None = None) -> None:
        """*queue*, which stays its owner's: of sockets with clients' addresses."""
        self.channel, its = socket.socketpair()
        self.channel.settimeout(SECONDS)
        nobody, no_queue = client_addresses.queue()
        nobody.close()
        numbers = (its.fileno(), (queue or no_queue).fileno())
        limited = ("prlimit", f"--nofile={limit}") if limit else ()
        self.process = subprocess.Popen(
            [*limited, sys.executable, "-m", "meshdev.sidecar.worker", *map(str, numbers)],
            pass_fds=numbers,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        its.close()
        no_queue.close()
        self._asked = 0
        self.records: list[AccessRecords] = []
        self._splitter = LineSplitter()
        self.say(AppAddress(IPv4Address("127.0.0.1")))

    def say(self, message: ToWorker, *descriptors: int) -> None:
        line = encode(message)
        if descriptors:
            socket.send_fds(self.channel, [line[:1]], list(descriptors))
            line = line[1:]
        self.channel.sendall(line)

    def claim(self, app: int, claims: PortClaims) -> None:
        """Once the worker has done so, this returns."""
        self.say(SetClaims(((PodPort(app), claims),)))
        self.counts()

    def listen(self, app: int, listener: socket.socket) -> None:
        self.say(AddListener(PodPort(app)), listener.fileno())

    def counts(self) -> PassthroughCounts:
        self._asked += 1
        self.say(AskCounts(self._asked))
        answer: PassthroughCounts | None = None
        while answer is None:
            for line in self._splitter.feed(self.channel.recv(1 << 16)):
                message = decode_from_worker(line)
                if isinstance(message, AccessRecords):
                    self.records.append(message)
                elif message.answers == self._asked:
                    answer = message
        return answer

    def ended(self) -> tuple[int, str]:
        """Exit code and what it said."""
        _, said = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, said.decode()

    def memory(self) -> int:
        """Resident bytes."""
        return resident(Path(f"/proc/{self.process.pid}/status").read_text())

    def close(self) -> None:
        self.channel.close()
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()


def resident(status: str) -> int:
    """What VmRSS says in /proc/PID/status."""
    return int(status.partition("VmRSS:")[2].split()[0]) << 10


@contextlib.contextmanager
def worker_process(limit: int | None = None, queue: socket.socket | None = None) -> Iterator[WorkerProcess]:
    process = WorkerProcess(limit, queue)
    try:
        yield process
    finally:
        process.close()


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    """As the agent makes it."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        yield listener


def connected(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname(), SECONDS)


@contextlib.contextmanager
def serving(serve: Serve, path: Path | None = None) -> Iterator[int]:
    """*serve* answers at a TCP port, which is given, or at the *path* of a unix socket."""

    def each(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):  # by a test that is over
            serve(sock)

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener was shut down: the test is over
            while True:
                threading.Thread(target=each, args=listener.accept()[:1], daemon=True).start()

    with (
        socket.create_server(("127.0.0.1", 0), backlog=512)
        if path is None
        else socket.socket(socket.AF_UNIX) as listener
    ):
        if path is not None:
            listener.bind(str(path))
            listener.listen(512)
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield listener.getsockname()[1] if path is None else 0
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(SECONDS)
