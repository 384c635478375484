"""Starting the real helper on a laptop in namespaces, as the CLI does it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from meshdev.session.helper_client import ForwarderSockets, HelperClient
from meshdev.tun.device import TunDevice
from meshdev.wire.helper.lines import Greeting
from tests.netns.laptop import Laptop

ADDRESS = IPv4Address("198.18.0.7")
ROUTES = (IPv4Network("10.96.0.0/16"), IPv4Network("10.244.0.0/24"))


@dataclass
class Connection:
    """A session's view: its client, what the helper said and gave."""

    client: HelperClient
    greeting: Greeting
    device: TunDevice | None = None
    sockets: ForwarderSockets | None = None
    keeper: int = field(init=False)

    def __post_init__(self) -> None:
        fields = Path(f"/proc/{self.greeting.pid}/stat").read_text().rpartition(")")[2].split()
        self.keeper = int(fields[1])

    async def set_up(self, *, dns: bool = True, unguarded: bool = False) -> None:
        """Everything that connect asks for."""
        self.device = await self.client.open_tun(2, unguarded=unguarded)
        await self.client.set_address(ADDRESS, 1450)
        await self.client.set_routes(ROUTES)
        if dns:
            self.sockets = await self.client.dns_sockets(self.greeting.nameservers)
            await self.client.set_dns(["default.svc.cluster.local"], ["."])

    def kill_helper(self, number: int = signal.SIGKILL) -> None:
        """Send the helper a signal."""
        os.kill(self.greeting.pid, number)

    def kill_both(self) -> None:
        """Kill the helper and its keeper, so that neither undoes anything."""
        os.kill(self.keeper, signal.SIGSTOP)
        os.kill(self.greeting.pid, signal.SIGKILL)
        os.kill(self.keeper, signal.SIGKILL)

    async def helper_ended(self) -> None:
        """Wait until the helper's process is gone, and its keeper's."""
        for pid in (self.greeting.pid, self.keeper):
            await _ended(pid)

    def drop(self) -> None:
        """What the kernel does with a session that dies: its descriptors are closed."""
        if self.device is not None:
            self.device.close()
        if self.sockets is not None:
            self.sockets.close()
        self.client.abandon()


async def _ended(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(process, ended.set)
    async with asyncio.timeout(5):
        await ended.wait()
    asyncio.get_running_loop().remove_reader(process)
    os.close(process)


def launch(laptop: Laptop, *, uid: int = 0, python: str = sys.executable) -> socket.socket:
    """The session's end of a socket to a helper of that user; sudo's part has ended with 0."""
    os.seteuid(uid)  # the kernel notes who made a socketpair
    try:
        ours, theirs = socket.socketpair()
    finally:
        os.seteuid(0)
    with theirs:
        command = laptop.command(python, "-I", "-m", "meshdev.helper")
        done = subprocess.run(command, stdin=theirs.fileno(), capture_output=True, timeout=10, check=False)
    assert done.returncode == 0, done.stderr
    return ours


@asynccontextmanager
async def helper(laptop: Laptop, *, uid: int = 0, python: str = sys.executable) -> AsyncIterator[Connection]:
    """A helper that has greeted; whatever is left of it is ended afterwards."""
    client = HelperClient(launch(laptop, uid=uid, python=python))
    connection = Connection(client, await client.greeting(5))
    try:
        yield connection
    finally:
        connection.drop()
        await connection.helper_ended()


def restore(laptop: Laptop, uid: int = 0) -> subprocess.CompletedProcess[str]:
    """``meshdev.helper --restore``."""
    command = laptop.command(sys.executable, "-I", "-m", "meshdev.helper", "--restore", str(uid))
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)


def leftovers(laptop: Laptop, uid: int = 0) -> list[str]:
    """What ``status`` would say, asked without any right."""
    code = f"from meshdev.helper.restore import leftovers; print(*leftovers({uid}), sep='\\n', end='')"
    return laptop.run("setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-I", "-c", code).splitlines()
