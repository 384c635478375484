"""A machine with thousands of listeners, and neighbours who ask the forwarder: what only a real connect shows."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from tests.cluster import addresses
from tests.e2e.conftest import Laptop

pytestmark = pytest.mark.cluster

#: Opens listeners on ports that the kernel chooses, says so, and keeps them until its stdin ends.
_LISTEN: Final = """
import resource, socket, sys
count = int(sys.argv[1])
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, count + 64),) * 2)
open_ones = []
for _ in range(count):
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(1)
    open_ones.append(sock)
print("open", flush=True)
sys.stdin.read()
"""
#: Asks the address given for a name, over UDP and TCP; prints what came.
_ASK: Final = """
import sys
import dns.exception, dns.message, dns.query
query = dns.message.make_query("kubernetes.default.svc.cluster.local", "A")
for ask in (dns.query.udp, dns.query.tcp):
    try:
        print(len(ask(query, sys.argv[1], timeout=1).answer))
    except (OSError, dns.exception.Timeout) as error:
        print("nobody")
"""


@contextmanager
def many_listeners(laptop: Laptop, count: int) -> Iterator[None]:
    """A program of that laptop has so many listeners on 127.0.0.1."""
    command = laptop.command(".venv/bin/python", "-c", _LISTEN, str(count))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "open\n"
            yield
        finally:
            process.stdin.close()


def test_connect_beside_14000_listeners(laptop: Laptop) -> None:
    with many_listeners(laptop, 14_000):
        for _ in range(3):
            with laptop.connected():
                assert laptop.status()["state"] == "connected"


def test_the_forwarder_answers_this_machine_only(laptop: Laptop, laptop2: Laptop) -> None:
    """systemd-resolved's way: the listener is port 53 of the session's address."""
    with laptop2.connected():
        address = laptop2.status()["address"]
        assert laptop2.ok(".venv/bin/python", "-c", _ASK, address).split() == ["1", "1"]
        route = ("ip", "route", "replace", f"{address}/32", "via", str(addresses.laptop(2).lan.ip))
        laptop.ok(*route)
        try:
            assert laptop.ok(".venv/bin/python", "-c", _ASK, address).split() == ["nobody", "nobody"]
        finally:
            laptop.ok("ip", "route", "del", f"{address}/32")
