"""A laptop in namespaces: its own network, resolv.conf, hosts and /run; a neighbour with a resolver behind a cable."""

import contextlib
import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

_CLONE_NEWNET = 0x40000000

#: What the laptop had before anybody came: one cable, a default route, a resolver at its other end.
ADDRESS = "192.0.2.2"
GATEWAY = "192.0.2.1"
RESOLV_CONF = f"nameserver {GATEWAY}\nsearch home.example\n"

_SET_UP = f"""
set -e
mount --make-rprivate /
ip link set lo up
ip link add cable type veth peer name other
ip link set other netns "$1"
ip addr add {ADDRESS}/24 dev cable
ip link set cable addrgenmode none up
other() {{ target="$1"; shift; nsenter --net=/proc/"$target"/ns/net ip "$@"; }}
other "$1" link set lo up
other "$1" addr add {GATEWAY}/24 dev other
other "$1" link set other addrgenmode none up
ip route add default via {GATEWAY}
mount --bind "$2/resolv.conf" /etc/resolv.conf
mount --bind "$2/hosts" /etc/hosts
mount -t tmpfs tmpfs /run
echo ready
exec sleep infinity
"""


class Laptop:
    """Namespaces held open by two sleeping processes; :meth:`close` ends everything inside."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="laptop-"))
        (self._folder / "resolv.conf").write_text(RESOLV_CONF)
        (self._folder / "hosts").write_text("127.0.0.1 localhost\n")
        self._neighbour = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        script = ["sh", "-c", _SET_UP, "sh", str(self._neighbour.pid), str(self._folder)]
        while Path(f"/proc/{self._neighbour.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
            pass  # unshare has not got there yet: microseconds
        self._holder = subprocess.Popen(["unshare", "--net", "--mount", *script], stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    def command(self, *command: str) -> list[str]:
        """*command* as it runs inside."""
        return ["nsenter", "--target", str(self._holder.pid), "--net", "--mount", "--", *command]

    def run(self, *command: str) -> str:
        """Output of a command that must succeed."""
        done = subprocess.run(self.command(*command), capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def snapshot(self) -> str:
        """Everything that must be as before, as text."""
        parts = ("ip addr", "ip route show table all", "ip -6 route show table all", "ip rule", "nft list ruleset")
        files = ("cat /etc/resolv.conf", "cat /etc/hosts", "ls -l /etc/resolv.conf")
        script = "; ".join(f"echo '# {part}'; {part}" for part in (*parts, *files))
        text = self.run("sh", "-c", script)
        # The lifetimes of addresses count down, everything else must stay.
        return "\n".join(line for line in text.splitlines() if "valid_lft" not in line)

    def route_to_session(self, address: IPv4Address) -> None:
        """The neighbour sends what is for the session's *address* to the laptop."""
        command = ["nsenter", "--target", str(self._neighbour.pid), "--net", "--"]
        subprocess.run([*command, "ip", "route", "add", f"{address}/32", "via", ADDRESS], check=True, timeout=20)

    @contextlib.contextmanager
    def inside(self, *, neighbour: bool = False) -> Iterator[None]:
        """Sockets made in here belong to the laptop's network (or its neighbour's)."""
        pid = self._neighbour.pid if neighbour else self._holder.pid
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/self/ns/net") as home, open(f"/proc/{pid}/ns/net") as there:  # noqa: PTH123 -- no paths
            assert libc.setns(there.fileno(), _CLONE_NEWNET) == 0
            try:
                yield
            finally:
                assert libc.setns(home.fileno(), _CLONE_NEWNET) == 0

    def close(self) -> None:
        """Both namespaces go with their last process."""
        for process in (self._holder, self._neighbour):
            process.kill()
            process.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()
        shutil.rmtree(self._folder)
