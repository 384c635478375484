"""A pod with a real Envoy, the relay's real process in the manager's network, and a laptop behind it.

The test is control and the passthrough proxy, and makes the laptop fail: nothing listens, packets are dropped.
"""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from meshdev.identity.keys import key_id
from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import Port, Spec
from meshdev.sidecar.envoy import names
from meshdev.sidecar.envoy.claims import LiveClaim, PodView, Served, wanted
from meshdev.sidecar.envoy.resources import resources
from meshdev.sidecar.envoy.tls import RELAY_NAME
from meshdev.wire import proxy_protocol
from meshdev.wire.agent import PodPort
from meshdev.wire.intercepts import Relay
from meshdev.wire.modes import MESH, PROXY
from meshdev.wire.relay import RelayEndpoint, RelayIdentity, RelaysSynced, ToRelay, decode_from_relay, encode
from tests.netns.cluster import MANAGER, MTU, Namespace
from tests.sidecar.certificates import Certificates
from tests.sidecar.pod import FIRST, LOOPBACK, WORKLOAD, End, length
from tests.sidecar.real_envoy import RealEnvoy, running

RELAY = 20001
PORT = PodPort(8080)
SESSION = IPv4Address("198.18.0.2")
GATEWAY = IPv4Address("198.18.0.1")
MINE = Match(headers=(HeaderMatch("a", "exact", "1"),))
_ROOT = Path(__file__).parents[2]

_NETWORK = f"""
nsenter --net=$M ip link set lo up
nsenter --net=$P ip link set lo up
nsenter --net=$L ip link set lo up
nsenter --net=$M ip link add eth0 mtu {MTU} type veth peer name eth0 mtu {MTU} netns $PID_P
nsenter --net=$M ip link add tun0 mtu {MTU} type veth peer name tun0 mtu {MTU} netns $PID_L
nsenter --net=$M ip addr add {MANAGER}/24 dev eth0
nsenter --net=$M ip addr add {GATEWAY}/16 dev tun0
nsenter --net=$P ip addr add 10.244.0.1/24 dev eth0
nsenter --net=$L ip addr add {SESSION}/16 dev tun0
for each in "$M eth0" "$M tun0" "$P eth0" "$L tun0"; do
  set -- $each
  nsenter --net=$1 ip link set $2 up
done
"""
_DROP = "add table inet t; add chain inet t in { type filter hook input priority 0; policy drop; }"
#: A volume that only control and the relay mount, and no right at all.
_AS_IN_A_POD = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/meshdev
mount --bind "$1" /run/meshdev
shift
exec setpriv --reuid=65533 --regid=65533 --clear-groups --bounding-set=-all --inh-caps=-all -- "$@"
"""


class RelayProcess:
    """The container *relay*, and control's end of its socket."""

    def __init__(self, place: Namespace, folder: Path, certificates: Certificates) -> None:
        self._folder = folder
        self._certificates = certificates
        folder.chmod(0o777)
        inside = ["nsenter", f"--net=/proc/{place.pid}/ns/net", "unshare", "--mount", "sh", "-c", _AS_IN_A_POD, "sh"]
        self.process = subprocess.Popen(
            [*inside, str(folder), sys.executable, "-m", "meshdev.manager.relay"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.output: list[str] = []
        self._until("served at port")
        self.control = self.connect()

    def connect(self) -> socket.socket:
        """As control does, with a certificate."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(10)
        sock.connect(str(self._folder / "relay.sock"))
        request = decode_from_relay(sock.recv(1 << 16))
        issued = self._certificates.issue_server(request.csr, RELAY_NAME)
        sock.send(encode(RelayIdentity(issued, self._certificates.authority)))
        return sock

    def send(self, *messages: ToRelay) -> None:
        """What is sent is in force once the log has it."""
        for message in messages:
            self.control.send(encode(message))
        self.control.send(encode(RelaysSynced()))
        self._until("control has sent everything")

    def alive(self) -> bool:
        return (self._folder / "relay.alive").exists()

    def _until(self, words: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if words in line:
                return
        raise AssertionError("the relay ended:\n" + "".join(self.output))

    def stop(self) -> int:
        """SIGTERM; the exit code. It may have been stopped already."""
        self.control.close()
        self.process.terminate()
        code = self.process.wait(10)
        assert self.process.stdout is not None
        if not self.process.stdout.closed:
            self.output += self.process.stdout.readlines()
            self.process.stdout.close()
        return code


class RelayedPod:
    """What a test holds."""

    def __init__(self, envoy: RealEnvoy, relay: RelayProcess, certificates: Certificates, laptop: Namespace) -> None:
        self.envoy = envoy
        self.relay = relay
        self.certificates = certificates
        self._laptop = laptop
        self.original = End("original")
        self.program = End("laptop")
        self.program.host, self.program.port = str(SESSION), RELAY
        self.program.place = laptop.inside
        self.socket = names.socket(str(Path(envoy.admin_path).parent), PORT)

    def permit(self, *keys: str) -> None:
        """Whose certificates the relay takes; by itself those of this pod's Envoy."""
        envoys = (key_id(each.certificate) for each in self.certificates.given)
        self.relay.send(RelayEndpoint(RELAY, SESSION, frozenset(keys or envoys)))

    async def serve(self, *, flow: bool = False) -> None:
        """Everything of header A: 1 is claimed; or, of a *flow*, all bytes."""
        port = Port(PORT.number, "tcp" if flow else "http", 8080)
        mode, match = (PROXY, None) if flow else (MESH, MINE)
        claim = LiveClaim(
            Spec(FIRST, WORKLOAD, mode, match, (port,), True),
            "ann@laptop",
            (Relay(PORT.number, "tcp", RELAY),),
            frozenset({PORT}),
        )
        served = tuple(Served(each, self.socket) for each in wanted((claim,), ()))
        view = PodView(LOOPBACK, served, ())
        found = resources(view, MANAGER, (claim,))
        await self.envoy.ads.serve(replace(found, clusters=tuple(map(self._cluster, found.clusters))))

    def _cluster(self, cluster: dict[str, Any]) -> dict[str, Any]:
        """The original on the port that it has here."""
        ends = cluster.get("load_assignment", {}).get("endpoints", [])
        if not ends or cluster["name"] == names.laptop(PORT, FIRST):
            return cluster
        address = {"socket_address": {"address": str(LOOPBACK), "port_value": self.original.port}}
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        return {**cluster, "load_assignment": {**cluster["load_assignment"], "endpoints": endpoints}}

    @contextmanager
    def silent(self) -> Iterator[None]:
        """The laptop's packets are dropped."""
        self.fall_silent()
        try:
            yield
        finally:
            self._laptop.run("nft", "delete", "table", "inet", "t")

    def fall_silent(self) -> None:
        self._laptop.run("nft", _DROP)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As the passthrough proxy brings a client."""
        reader, writer = await asyncio.open_unix_connection(self.socket, limit=1 << 24)
        writer.write(proxy_protocol.header((str(LOOPBACK), 1), (str(LOOPBACK), PORT.number)))
        return reader, writer

    async def ask(self, request: bytes) -> str:
        """On a connection of its own: which end it was, or the head of another answer than 200."""
        reader, writer = await self.connect()
        try:
            return await ask(reader, writer, request)
        finally:
            writer.close()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> str:
    async with asyncio.timeout(20):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        body = (await reader.readexactly(length(head))).decode()
    return body if head.startswith(b"HTTP/1.1 200 ") else head.decode()


def _network() -> tuple[Namespace, Namespace, Namespace]:
    """The manager's, the pod's and the laptop's."""
    found = Namespace(), Namespace(), Namespace()
    pids = zip("MPL", (each.pid for each in found), strict=True)
    script = "".join(f"{name}=/proc/{pid}/ns/net\nPID_{name}={pid}\n" for name, pid in pids)
    subprocess.run(["sh", "-ec", script + _NETWORK], check=True)
    return found


@asynccontextmanager
async def relayed_pod() -> AsyncIterator[RelayedPod]:
    """The original listens, on the laptop nothing does, and nobody is permitted."""
    places = manager, pod, laptop = _network()
    relay: RelayProcess | None = None
    try:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as shared:
            certificates = Certificates(Path(folder))
            relay = RelayProcess(manager, Path(shared), certificates)
            async with running(certificates=certificates, place=pod.inside) as envoy:
                made = RelayedPod(envoy, relay, certificates, laptop)
                made.original.place = pod.inside
                await made.original.start()
                await made.serve()
                try:
                    yield made
                finally:
                    await made.original.stop()
                    await made.program.stop()
    finally:
        if relay is not None:
            relay.stop()
        for each in places:
            each.close()
