"""Many users of one cluster: each with an address of its own, none in another's way, none in another's name."""

import os
import re
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from meshdev.errors import ManagerBusyError
from tests.cluster import addresses as plan
from tests.e2e.accounts import uninstall
from tests.e2e.conftest import CHECKOUT, Laptop, control, kubectl, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

NAMESPACE: Final = "team-1"
#: What is on its way has come by then.
QUIET_SECONDS: Final = 0.5
CONNECT: Final = ("connect", "-n", "default", "--manager-namespace", NAMESPACE)

#: UDP from any address one likes to: one packet, made by hand, into the device.
_SEND: Final = """
import socket, struct, sys
source, target, port, text = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].encode()
udp = struct.pack("!HHHH", 40000, port, 8 + len(text), 0) + text
head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                   socket.inet_aton(source), socket.inet_aton(target))
total = sum(struct.unpack("!10H", head))
total = (total & 0xFFFF) + (total >> 16)
head = head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]
with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as sock:
    sock.sendto(head + udp, ("meshdev0", 0x0800))
"""


def reaches(laptop: Laptop) -> None:
    laptop.ok("curl", "-sS", "--fail", "-o", "/dev/null", "--max-time", "5", "http://a/")


def address(laptop: Laptop) -> str:
    return str(laptop.status()["address"])


@contextmanager
def capture(command: list[str]) -> Iterator[list[str]]:
    """The lines of a tcpdump while the block runs, and after it until nothing has come for QUIET_SECONDS."""
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as dump:
        assert dump.stdout is not None
        assert dump.stderr is not None
        try:
            until("tcpdump listens", lambda: b"listening on" in (dump.stderr.readline() if dump.stderr else b""))
            lines: list[str] = []
            yield lines
            said = b""
            while select.select([dump.stdout], [], [], QUIET_SECONDS)[0]:
                said += os.read(dump.stdout.fileno(), 1 << 16)
                assert dump.poll() is None, "tcpdump ended by itself"
            lines += said.decode(errors="replace").splitlines()
        finally:
            dump.terminate()


def test_two_laptops_on_one_manager(laptop: Laptop, laptop2: Laptop) -> None:
    with laptop.connected(*CONNECT[1:]), laptop2.connected(*CONNECT[1:]):
        assert address(laptop) != address(laptop2)
        for _ in range(5):
            for user in (laptop, laptop2):
                reaches(user)


def test_two_users_on_one_laptop_in_two_namespaces(laptop: Laptop) -> None:
    dev = Laptop(1, "dev")
    before = laptop.snapshot()
    for namespace in ("team-1", "team-2"):
        uninstall(namespace)
    try:
        laptop.meshdev("connect", "-n", "team-1")
        dev.meshdev("connect", "-n", "team-2")
        assert address(laptop) != address(dev)
        for user, namespace in ((laptop, "team-1"), (dev, "team-2")):
            status = user.status()
            assert (status["state"], status["namespace"]) == ("connected", namespace)
            assert status["manager"]["namespace"] == namespace
            user.ok("curl", "-sS", "--fail", "-o", "/dev/null", "--max-time", "5", "http://a.default/")
        assert laptop.status()["state"] == "connected"
        laptop.meshdev("disconnect")
        dev.ok("curl", "-sS", "--fail", "-o", "/dev/null", "--max-time", "5", "http://a.default/")
        dev.meshdev("disconnect")
        assert laptop.snapshot() == before
    finally:
        laptop.run("meshdev", "disconnect")
        dev.run("meshdev", "disconnect")
        for namespace in ("team-1", "team-2"):
            uninstall(namespace)


def test_nobody_sends_in_another_name(laptop: Laptop, laptop2: Laptop) -> None:
    pod = kubectl("get", "pods", "-l", "app=udp-echo", "-o", "jsonpath={.items[0].status.podIP}")
    with laptop.connected(*CONNECT[1:]), laptop2.connected(*CONNECT[1:]):
        mine, theirs = address(laptop), address(laptop2)
        sources = {
            "as-another": theirs,
            "as-the-pod": kubectl("get", "pods", "-l", "app=b", "-o", "jsonpath={.items[0].status.podIP}"),
            "as-the-lan": str(plan.laptop(1).lan.ip),
            "as-manager": "198.18.0.1",
            "as-loopback": "127.0.0.1",
            "as-nobody": "0.0.0.0",
            "as-myself": mine,
        }
        entered = _sent(laptop)
        command = ["tcpdump", "-i", "any", "-n", "-l", "-A", "udp", "port", "9090"]
        with capture(_on_node(*command)) as lines:
            for text, source in sources.items():
                for _ in range(3):
                    laptop.ok(".venv/bin/python", "-c", _SEND, source, pod, "9090", text)
        assert _sent(laptop) - entered >= 3 * len(sources)
        arrived = set(re.findall(r"as-[a-z-]+", "\n".join(lines)))
        assert arrived == {"as-myself"}


def test_nobody_reaches_another_session(laptop: Laptop, laptop2: Laptop) -> None:
    with laptop.connected(*CONNECT[1:]), laptop2.connected(*CONNECT[1:]):
        mine, theirs = address(laptop), address(laptop2)
        entered = _sent(laptop)
        watching = laptop2.command("tcpdump", "-i", "meshdev0", "-n", "-l", "host", mine)
        with capture(watching) as lines:
            for _ in range(3):
                laptop.ok(".venv/bin/python", "-c", _SEND, mine, theirs, "9090", "hello")
            assert laptop.run("ping", "-c", "2", "-W", "1", "-I", "meshdev0", theirs).returncode != 0
        assert _sent(laptop) - entered >= 5
        assert not any(lines)


def _sent(laptop: Laptop) -> int:
    """Packets that went into the device."""
    return int(laptop.ok("cat", "/sys/class/net/meshdev0/statistics/tx_packets"))


def _on_node(*argv: str) -> list[str]:
    return [*Laptop(1).command("x")[:3], "node", "--", *argv]


def test_uninstall_refuses_while_others_are_on_it(laptop: Laptop, laptop2: Laptop) -> None:
    where = ("--manager-namespace", NAMESPACE)
    with laptop2.connected(*CONNECT[1:]):
        laptop.meshdev(*CONNECT)
        done = laptop.run("meshdev", "uninstall", *where)
        assert done.returncode == ManagerBusyError.exit_code
        assert f"root@laptop2 ({address(laptop2)})" in done.stderr
        assert "root@laptop1" not in done.stderr
        assert "--force" in done.stderr
        reaches(laptop2)
        assert "Removed deployment/meshdev-traffic-manager" in laptop.meshdev("uninstall", *where, "--force")
        until("the other one notices", lambda: laptop2.status()["state"] == "reconnecting", 10)
    assert "Nothing to uninstall" in laptop.meshdev("uninstall", *where)


def test_who_has_disconnected_is_in_nobodys_way(laptop: Laptop, laptop2: Laptop) -> None:
    where = ("--manager-namespace", NAMESPACE)
    for carrier in ("spdy", "websocket"):
        with laptop2.connected(*CONNECT[1:], "--carrier", carrier):
            reaches(laptop2)
        assert "Removed" in laptop.meshdev("uninstall", *where)
    left = control("kubectl", "-n", NAMESPACE, "get", "deployments,pods,services,configmaps,leases", "-o", "name")
    assert "meshdev" not in left
