"""A pod network with one pod, and the manager's real process in a network of its own, with a pod's few rights."""

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from meshdev.config import RELAY_UID, TUNNEL_PORT

_CLONE_NEWNET = 0x40000000
_ROOT = Path(__file__).parents[2]

POD = IPv4Address("10.244.0.1")
SECOND_POD = IPv4Address("10.244.0.3")
MANAGER = IPv4Address("10.244.0.2")
METADATA = IPv4Address("169.254.169.254")
MTU = 1450

_NETWORK = f"""
ip -n $M link add eth0 mtu {MTU} type veth peer name eth0 mtu {MTU} netns $P
ip -n $M link set lo up
ip -n $P link set lo up
ip -n $M addr add {MANAGER}/24 dev eth0
ip -n $P addr add {POD}/24 dev eth0
ip -n $P addr add {SECOND_POD}/24 dev eth0
ip -n $P addr add {METADATA}/32 dev lo
ip -n $M link set eth0 up
ip -n $P link set eth0 up
ip -n $M route add default via {POD}
ip -n $P route add 198.18.0.0/16 via {MANAGER}
"""

#: What the kubelet gives the container *tunnel*: a folder that both containers may write, no /dev/net/tun, /proc/sys
#: read-only, two capabilities (meshdev/kube/manifest.py).
_AS_IN_A_POD = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -m 0777 /run/meshdev
mkdir -m 0777 /run/control
ln -s meshdev /run/relay
mount --bind /proc/sys /proc/sys
mount -o remount,ro,bind /proc/sys
mount -t tmpfs -o mode=0755 tmpfs /dev/net
exec setpriv --bounding-set=-all,+net_admin,+mknod --inh-caps=-all -- "$@"
"""


class Namespace:
    """A network namespace, held open by a sleeping process."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "sysctl -qw net.ipv4.tcp_congestion_control=cubic; echo; exec sleep inf"],
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"\n"
        self.pid = self._holder.pid

    def run(self, *command: str) -> str:
        """Output of a command that must succeed."""
        whole = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *command]
        done = subprocess.run(whole, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    @contextmanager
    def inside(self, user: int = 0) -> Iterator[None]:
        """Sockets and processes that this thread makes in the block belong to the namespace; sockets to that user."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as home, open(f"/proc/{self.pid}/ns/net") as there:  # noqa: PTH123 -- no paths
            assert libc.setns(there.fileno(), _CLONE_NEWNET) == 0
            libc.setfsuid(user)
            try:
                yield
            finally:
                libc.setfsuid(0)
                assert libc.setns(home.fileno(), _CLONE_NEWNET) == 0

    def close(self) -> None:
        """The namespace goes with its last process and socket."""
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


class Cluster:
    """The pods' network and, after :meth:`start_manager`, a manager in it."""

    def __init__(self) -> None:
        self.manager, self.pod = Namespace(), Namespace()
        names = "".join(f"{name}=/proc/{ns.pid}/ns/net\n" for name, ns in (("M", self.manager), ("P", self.pod)))
        # `ip -n` takes names below /run/netns only; a link of another namespace can be given by the pid.
        script = names + _NETWORK.replace("ip -n $M", "nsenter --net=$M ip").replace(
            "ip -n $P", "nsenter --net=$P ip"
        ).replace("netns $P", f"netns {self.pod.pid}")
        subprocess.run(["sh", "-ec", script], check=True)
        self._process: subprocess.Popen[str] | None = None
        self.output = ""
        """What the manager logged, once it was stopped."""
        self._control: subprocess.Popen[str] | None = None
        self._relay: subprocess.Popen[str] | None = None

    def is_answered(self, source: IPv4Address, port: int) -> bool:
        """Whether a connection from there to the manager is refused, as nobody listens; what was dropped is silent."""
        with self.pod.inside():
            sock = socket.socket()
        with sock:
            sock.bind((str(source), 0))
            sock.settimeout(0.005)
            try:
                sock.connect((str(MANAGER), port))
            except TimeoutError:
                return False
            except ConnectionRefusedError:
                return True
        raise AssertionError("somebody listens")

    def start_manager(self, **environment: str) -> None:
        """Start the container *tunnel*, with more in its environment; returns when it listens."""
        command = ["nsenter", f"--net=/proc/{self.manager.pid}/ns/net", "unshare", "--mount", "sh", "-c", _AS_IN_A_POD]
        self._process = subprocess.Popen(
            [*command, "sh", sys.executable, "-m", "meshdev.manager.tunnel"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                "POD_NAME": "manager-1",
                "POD_NAMESPACE": "default",
                **environment,
            },
        )
        assert self._process.stdout is not None
        lines = []
        for line in self._process.stdout:
            lines.append(line)
            if f"listens on 127.0.0.1:{TUNNEL_PORT}" in line:
                return
        raise AssertionError("the manager did not start:\n" + "".join(lines))

    def start_control(self) -> None:
        """Start the container *control* beside it: the same network and folder, no capability."""
        self._control = self._start_beside(65532, "meshdev.manager.control", "following the tunnel container")

    def start_relay(self) -> None:
        """Start the container *relay* beside both."""
        self._relay = self._start_beside(RELAY_UID, "meshdev.manager.relay", "workloads are served")

    def _start_beside(self, uid: int, module: str, ready: str) -> "subprocess.Popen[str]":
        inside = ["nsenter", f"--target={self.manager_pid}", "--net", "--mount", f"--wd={_ROOT}", "--"]
        user = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        powerless = ["setpriv", *user, "--bounding-set=-all", "--inh-caps=-all"]
        process = subprocess.Popen(
            [*inside, *powerless, "--", sys.executable, "-m", module],
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "POD_UID": "uid-manager-1"},
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if ready in line:
                return process
        raise AssertionError(f"{module} did not start:\n{''.join(lines)}")

    def stop_control(self) -> None:
        """SIGKILL: it owes nobody a goodbye."""
        _kill(self._control)
        self._control = None

    @property
    def manager_pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop_manager(self) -> int:
        """SIGTERM, as the kubelet does; the exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(10)
        assert self._process.stdout is not None
        self.output = self._process.stdout.read()
        self._process.stdout.close()
        self._process = None
        return code

    def manager_rss(self) -> int:
        """Resident memory of the manager's process in MiB."""
        status = Path(f"/proc/{self.manager_pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) // 1024

    def close(self) -> None:
        self.stop_control()
        _kill(self._relay)
        self._relay = None
        if self._process is not None:
            self.stop_manager()
        self.manager.close()
        self.pod.close()


def _kill(process: "subprocess.Popen[str] | None") -> None:
    if process is not None:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def running() -> Iterator[Cluster]:
    """One with a manager; everything of it ends with the block."""
    cluster = Cluster()
    try:
        cluster.start_manager()
        yield cluster
    finally:
        cluster.close()
