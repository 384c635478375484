"""Hostile peers on the manager's tunnel port, from inside its own pod: nobody else notices."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from meshdev.config import MANAGER_NAME, TUNNEL_PORT
from tests.e2e.conftest import CHECKOUT, Laptop, kubectl, until
from tests.e2e.loops import echo, requests

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

_MIB: Final = 1 << 20
#: Runs in the tunnel container: the port-forward's own way in, without a limit on how fast.
_PREFIX: Final = f"""
import contextlib, os, random, socket, struct, time
dice = random.Random(3)
def connect():
    sock = socket.create_connection(("127.0.0.1", {TUNNEL_PORT}), 10)
    sock.settimeout(2)
    return sock
def end(sock):
    with contextlib.suppress(OSError):
        while sock.recv(65536):
            pass
    sock.close()
"""
_ATTACKS: Final = {
    "random bytes": """
for _ in range(1500):
    sock = connect()
    with contextlib.suppress(OSError):
        sock.sendall(dice.randbytes(dice.randint(1, 4000)))
    sock.close()
""",
    "oversized lengths": """
for kind in list(range(256)) * 3:
    sock = connect()
    with contextlib.suppress(OSError):
        sock.sendall(struct.pack("!I", kind << 24 | 0xFFFFFF) + bytes(100_000))
    sock.close()
""",
    "half frames": """
held = []
for size in range(60):
    sock = connect()
    sock.sendall(struct.pack("!I", 2 << 24 | 60_000) + bytes(1000 * size))
    held.append(sock)
for sock in held:
    end(sock)
""",
    "a thousand idle connections": """
held = []
for _ in range(1000):
    held.append(connect())
time.sleep(6)
for sock in held:
    end(sock)
""",
    "hellos that are none": """
words = [b"{}", b"[]", b"null", b"[" * 60_000, b'{"a":' * 10_000, bytes(65_536), b'"' + b"x" * 60_000 + b'"']
for body in words * 20:
    sock = connect()
    with contextlib.suppress(OSError):
        sock.sendall(struct.pack("!I", 2 << 24 | len(body)) + body)
    end(sock)
""",
}
#: Every kind of frame there could be.
_KINDS: Final = range(256)
_OVERSIZED_UNTIL_REFUSED: Final = """
sent = {first}
while sent < 256:
    try:
        sock = connect()
    except (ConnectionRefusedError, ConnectionResetError):  # it ended, maybe with this one in its queue
        break
    with contextlib.suppress(OSError):
        sock.sendall(struct.pack("!I", sent << 24 | 0xFFFFFF) + bytes(100_000))
    sock.close()
    sent += 1
print(sent)
"""


@pytest.fixture(scope="module")
def busy() -> Iterator[Laptop]:
    """A laptop that is connected during all attacks."""
    laptop = Laptop(1)
    laptop.clean()
    with laptop.connected():
        yield laptop


@contextmanager
def undisturbed(laptop: Laptop) -> Iterator[None]:
    """Requests, a connection and a download go on while the block runs, without a single failure."""
    before, sizes = _manager(), []
    over = threading.Event()

    def download() -> None:
        while not over.is_set():
            done = laptop.run(".venv/bin/python", "-m", "tests.e2e.traffic", "down", "bulk", str(20 * _MIB))
            sizes.append(json.loads(done.stdout)["equal"] if done.returncode == 0 else done.stderr)

    downloads = threading.Thread(target=download)
    with requests(laptop) as curl, echo(laptop) as conversation:
        downloads.start()
        try:
            yield
        finally:
            over.set()
            downloads.join(30)
        curl.well(5)
        conversation.well(5)
        assert curl.bad == []
        assert conversation.bad == []
    assert sizes
    assert set(sizes) == {True}
    assert _manager() == before
    assert laptop.status()["state"] == "connected"


def _manager() -> list[tuple[str, int]]:
    """Pod and restart counts."""
    listed = kubectl("get", "pods", "-l", f"app.kubernetes.io/name={MANAGER_NAME}", "-o", "json")
    return [
        (pod["metadata"]["name"], status["restartCount"])
        for pod in json.loads(listed)["items"]
        for status in pod["status"]["containerStatuses"]
    ]


def attack(script: str) -> None:
    argv = ["kubectl", "exec", "-i", f"deployment/{MANAGER_NAME}", "-c", "tunnel", "--", "python3", "-"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster", *argv],
        cwd=CHECKOUT,
        input=_PREFIX + script,
        text=True,
        capture_output=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", _ATTACKS)
def test_from_inside_the_pod(busy: Laptop, name: str) -> None:
    with undisturbed(busy):
        attack(_ATTACKS[name])


def test_through_a_port_forward(busy: Laptop) -> None:
    """Noise through kubectl's own port-forward, which ends itself where a pod resets a connection: then a new one."""
    sent = 0
    with undisturbed(busy):
        while sent < len(_KINDS):
            with _port_forward() as port:
                now_sent = _through(port, sent)
            assert now_sent > sent, "a fresh port-forward carried nothing"
            sent = now_sent


@contextmanager
def _port_forward() -> Iterator[int]:
    """kubectl's port-forward to the manager, up; its port on the node."""
    argv = ["kubectl", "port-forward", f"deployment/{MANAGER_NAME}", f":{TUNNEL_PORT}"]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", *argv],
        cwd=CHECKOUT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it complains of each broken connection
    ) as forward:
        try:
            assert forward.stdout is not None
            told = re.fullmatch(r"Forwarding from 127\.0\.0\.1:(\d+) -> .*\n", forward.stdout.readline())
            assert told is not None
            yield int(told[1])
        finally:
            forward.terminate()


def _through(port: int, first: int) -> int:
    """Send the oversized frames from number `first` on; how many have been sent when that forward was gone."""
    script = _PREFIX.replace(str(TUNNEL_PORT), str(port)) + _OVERSIZED_UNTIL_REFUSED.format(first=first)
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster", "node", "--", sys.executable, "-c", script],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_memory_is_given_back(busy: Laptop) -> None:
    attack(_ATTACKS["a thousand idle connections"])

    def small() -> dict[str, Any] | None:
        status = kubectl("exec", f"deployment/{MANAGER_NAME}", "-c", "tunnel", "--", "cat", "/proc/1/status")
        files = kubectl("exec", f"deployment/{MANAGER_NAME}", "-c", "tunnel", "--", "ls", "/proc/1/fd").split()
        (resident,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        return {"kib": resident, "files": len(files)} if resident < 60 * 1024 and len(files) < 40 else None

    print("\nmanager after a thousand connections:", until("memory and descriptors are back", small, 15))
    assert busy.status()["state"] == "connected"
