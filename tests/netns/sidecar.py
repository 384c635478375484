"""A pod with the real agent and a real Envoy; the test is clients, app, programs on laptops, and the manager."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from meshdev.config import CONTROL_PORT
from meshdev.errors import MeshdevError
from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import Port, Spec
from meshdev.kube.attestation import AgentAddress, Attested, Introduce, ManagerCertificates, attest
from meshdev.sidecar.envoy.claims import LiveClaim, pod_port
from meshdev.wire.agent import PodPort
from meshdev.wire.attestation import AgentAnnouncement, parse_announcement
from meshdev.wire.intercepts import Relay
from meshdev.wire.modes import MESH, PROXY
from meshdev.wire.ports import Protocol
from tests.netns.cluster import MANAGER, POD, Cluster, Namespace
from tests.netns.sidecar_manager import Manager
from tests.sidecar.agent.attesting_session import forwarding
from tests.sidecar.certificates import Certificates
from tests.sidecar.pod import FIRST, WORKLOAD, End
from tests.sidecar.real_envoy import binary
from tests.sidecar.relays import Relays
from tests.waiting import until

#: readOnlyRootFilesystem: nothing can be written but /dev, a tmpfs of the container's own. /tmp may hold the checkout.
_READ_ONLY = (
    *("unshare", "--mount", "sh", "-ec"),
    """
mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs /media
mknod -m 0666 /media/null c 1 3
mknod -m 0666 /media/urandom c 1 9
ln -s /proc/self/fd /media/fd
mount --move /media /dev
mount --bind /tmp /tmp
mount -o remount,bind,ro /tmp
mount -o remount,bind,ro /
exec "$@"
""",
    "sh",
)

MINE = Match(headers=(HeaderMatch("a", "exact", "1"),))
_ROOT = Path(__file__).parents[2]
#: As in a container with NET_ADMIN alone.
_AS_IN_A_POD = ("setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all", "--")


class SidecarPod:
    """Two networks, the agent's process, and servers in both."""

    def __init__(self) -> None:
        self._cluster = Cluster()
        self.pod = self._cluster.pod
        self.outside = self._cluster.manager
        self._folder = tempfile.TemporaryDirectory()
        self.certificates = Certificates(Path(self._folder.name))
        self.manager = Manager(self.outside, self.certificates)
        self.relays = Relays(self.certificates, str(MANAGER))
        self.relays.place = self.outside.inside
        self._ends: list[End] = []
        self._attested: set[AgentAnnouncement] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0
        self._log = tempfile.NamedTemporaryFile()  # noqa: SIM115 -- closed with the pod

    async def app(
        self,
        port: int,
        answer: Callable[..., Awaitable[None]] | None = None,
        name: str = "original",
        host: str = "0.0.0.0",
    ) -> End:
        """A server of the app, on every address of the pod or on *host* only."""
        return await self._serve(End(name, answer), port, self.pod, host)

    async def laptop(self, relay: int, answer: Callable[..., Awaitable[None]] | None = None) -> End:
        """A program of a laptop, as it is reached through a relay of the manager."""
        return await self._serve(End("laptop", answer), relay, self.outside)

    async def _serve(self, end: End, port: int, place: Namespace, host: str = "0.0.0.0") -> End:
        end.port, end.host = port, host
        end.place = place.inside
        await end.start()
        self._ends.append(end)
        return end

    def start_agent(self, probes: str = "[]", stays: str = "", port: str = "", /, **patience: float) -> None:
        """*stays* is not empty for one of a template, *port* for an ephemeral container.

        *patience* is set in place of the agent's own: UNWANTED_SECONDS, LOST_SECONDS, CUT_OFF_SECONDS.
        """
        code = "".join(f"lifecycle.{name} = {value}; " for name, value in patience.items())
        code = f"from meshdev.sidecar.agent import __main__, lifecycle; {code}raise SystemExit(__main__.main())"
        environment = {
            "PATH": os.environ["PATH"],
            "MESHDEV_ENVOY": binary(),
            "MESHDEV_MANAGER": f"{MANAGER}:{CONTROL_PORT}",
            "MESHDEV_PROBES": probes,
            "MESHDEV_STAYS": stays,
            "MESHDEV_ATTESTATION_PORT": port,
            "POD_NAME": "b-1",
            "POD_UID": "uid-b-1",
            "POD_NAMESPACE": "default",
            "POD_IP": str(POD),
            "PYTHONPATH": str(_ROOT),
        }
        self._started += 1
        self._process = subprocess.Popen(
            [*self._inside(), *_READ_ONLY, *_AS_IN_A_POD, sys.executable, "-c", code],
            env=environment,
            cwd="/",
            stdout=self._log,
            stderr=subprocess.STDOUT,  # as a container's log has both
        )

    def log(self) -> bytes:
        """Everything that agents of this pod have said."""
        return Path(self._log.name).read_bytes()

    async def announcement(self) -> AgentAnnouncement:
        """The newest agent's."""
        await until(lambda: len(self._announcements()) >= self._started)
        return self._announcements()[-1]

    def _announcements(self) -> list[AgentAnnouncement]:
        found = (parse_announcement(line) for line in self.log().splitlines())
        return list(dict.fromkeys(each for each in found if each is not None))

    async def attest_agents(self) -> None:
        """Until it is cancelled: a session, which attests each agent that announces itself."""
        while True:
            for each in self._announcements():
                if each not in self._attested:
                    with suppress(MeshdevError):  # that agent has ended
                        await self.attest(each)
                    self._attested.add(each)
            await asyncio.sleep(0.005)

    async def attest(self, announced: AgentAnnouncement, introduce: Introduce | None = None) -> Attested:
        """As a session does, to which the agent consents then; to this pod's manager where nobody else is named."""

        async def issue(request: bytes, _proof: str) -> ManagerCertificates:
            return ManagerCertificates(self.certificates.authority, self.certificates.issue(request))

        address = AgentAddress("default", "b-1", "uid-b-1", announced.port, announced.fingerprint)
        return await attest(forwarding(self.pod.inside), address, introduce or issue)

    @property
    def agent(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def envoy(self) -> int:
        """The pid of the agent's Envoy; 0 where there is none."""
        return self._child("envoy ")

    def worker(self) -> int:
        """The pid of the agent's passthrough worker; 0 where there is none."""
        return self._child("meshdev.sidecar.worker ")

    def _child(self, command: str) -> int:
        children = Path(f"/proc/{self.agent.pid}/task/{self.agent.pid}/children")
        try:
            pids = children.read_text().split()
            lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in pids}
        except OSError:
            return 0
        return next((pid for pid, line in lines.items() if command in line and "setpriv" not in line), 0)

    def _inside(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.pod.pid}/ns/net", "--"]

    def listener_ports(self) -> set[int]:
        """Where Envoy listens."""
        listening = self.pod.run("ss", "-ltnH").splitlines()
        return {int(line.split()[3].split(":")[1]) for line in listening if ":158" in line}

    def rules(self) -> str:
        return self.pod.run("nft", "list", "ruleset")

    async def connect(self, port: int, address: str = str(POD)) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client outside of the pod."""
        with self.outside.inside():  # no other task runs in here, or it would end up in this network
            sock = socket.socket()
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except BaseException:
            sock.close()
            raise
        return await asyncio.open_connection(sock=sock)

    async def get(self, port: int = 8080, path: str = "/", address: str = str(POD), **headers: str) -> str:
        """Which end answers a new connection."""
        async with asyncio.timeout(10):
            reader, writer = await self.connect(port, address)
            try:
                return await ask(reader, writer, path, **headers)
            finally:
                writer.close()

    async def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for end in self._ends:
            await end.stop()
        await self.manager.stop()
        self._cluster.close()
        if os.environ.get("AGENT_LOG"):
            sys.stderr.write(self.log().decode())
        self._log.close()
        self._folder.cleanup()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str = "/", **headers: str) -> str:
    """One request on a connection; the body of the answer, and a star where it was asked to close."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    writer.write(f"GET {path} HTTP/1.1\r\nHost: b\r\n{lines}\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 200 "):
        raise ConnectionError(head.decode())
    size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    body = (await reader.readexactly(size)).decode()
    return body + ("*" if b"connection: close" in head else "")


def claim(
    match: Match | None = None,
    *,
    port: int = 8080,
    protocol: Protocol = "http",
    relay: int = 20001,
    up: bool = True,
    name: str = FIRST,
) -> LiveClaim:
    """A claim on a port of the pod; without a match on all of its traffic."""
    mode = PROXY if match is None else MESH
    one = Port(port, protocol, port)
    spec = Spec(name, WORKLOAD, mode, match, (one,))
    return LiveClaim(spec, "a@laptop", (Relay(port, one.transport, relay),), frozenset({pod_port(one)} if up else ()))


@asynccontextmanager
async def sidecar(*, probes: str = "[]", stays: str = "", **patience: float) -> AsyncIterator[SidecarPod]:
    """A pod whose agent has said hello, and heard of the manager."""
    made = SidecarPod()
    session = asyncio.ensure_future(made.attest_agents())
    try:
        async with made.relays.serving():
            await made.manager.start()
            made.start_agent(probes, stays, **patience)
            await until(lambda: made.manager.hello is not None)
            await until(lambda: b"the manager is there" in made.log())
            yield made
    finally:
        session.cancel()
        await made.close()


async def intercepted(pod: SidecarPod) -> None:
    """Requests that match are claimed on port 8080, and it is redirected."""
    await pod.manager.claim(claim(MINE))
    await pod.manager.until(lambda state: state.redirected == (PodPort(8080),))
