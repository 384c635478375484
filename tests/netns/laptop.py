"""A laptop in namespaces: its own network, resolv.conf, hosts and /run; a neighbour with a resolver behind a cable."""

import contextlib
import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface
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
until ip link show cable | grep -q 'state UP'; do :; done
echo ready
exec sleep infinity
"""

#: Arguments: a process in the container's network, the bridge's address.
_CONTAINER = """
ip link add docker0 type bridge
ip addr add "$2" dev docker0
ip link add veth1 type veth peer name eth0 netns "$1"
ip link set veth1 master docker0 up
ip link set docker0 up
sysctl -qw net.ipv4.ip_forward=1
"""


class Laptop:
    """Namespaces held open by two sleeping processes; :meth:`close` ends everything inside."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="laptop-"))
        (self._folder / "resolv.conf").write_text(RESOLV_CONF)
        (self._folder / "hosts").write_text("127.0.0.1 localhost\n")
        self._neighbour = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        script = ["sh", "-c", _SET_UP, "sh", str(self._neighbour.pid), str(self._folder)]
        self._container: subprocess.Popen[bytes] | None = None
        _wait_for_network(self._neighbour)
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

    def hide_nftables(self) -> None:
        """From now on there is no libnftables."""
        self.run("sh", "-c", "mount --bind /dev/null $(ldconfig -p | sed -n 's/.*libnftables.so.1 .*=> //p')")

    def snapshot(self) -> str:
        """Everything that must be as before, as text."""
        parts = ("ip addr", "ip route show table all", "ip -6 route show table all", "ip rule", "nft list ruleset")
        files = ("cat /etc/resolv.conf", "cat /etc/hosts", "ls -l --time-style=+ /etc/resolv.conf")
        script = "; ".join(f"echo '# {part}'; {part}" for part in (*parts, *files))
        text = self.run("sh", "-c", script)
        # The lifetimes of addresses count down, everything else must stay.
        return "\n".join(line for line in text.splitlines() if "valid_lft" not in line)

    def route_to_session(self, address: IPv4Address) -> None:
        """The neighbour sends what is for the session's *address* to the laptop."""
        self.neighbour("ip", "route", "add", f"{address}/32", "via", ADDRESS)

    def neighbour(self, *command: str) -> None:
        """Run a command in the neighbour's network."""
        _in_network(self._neighbour, *command)

    def neighbour_command(self, *command: str) -> list[str]:
        """*command* as it runs in the neighbour's network."""
        return ["nsenter", "--target", str(self._neighbour.pid), "--net", "--", *command]

    @contextlib.contextmanager
    def container(self, address: str, gateway: str) -> Iterator[None]:
        """A namespace behind a bridge of the laptop, as Docker makes them; the laptop forwards from then on."""
        process = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        try:
            _wait_for_network(process)
            self.run("sh", "-ec", _CONTAINER, "sh", str(process.pid), gateway)
            interface = IPv4Interface(gateway)
            _in_network(process, "ip", "addr", "add", f"{address}/{interface.network.prefixlen}", "dev", "eth0")
            _in_network(process, "ip", "link", "set", "eth0", "up")
            _in_network(process, "ip", "route", "add", "default", "via", str(interface.ip))
            self.run("sh", "-c", "until ip link show docker0 | grep -q 'state UP'; do :; done")
            self._container = process
            yield
        finally:
            self._container = None
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def inside(self, *, neighbour: bool = False, container: bool = False) -> Iterator[None]:
        """Sockets made in here belong to the laptop's network (or its neighbour's, or its container's)."""
        process = self._container if container else self._neighbour if neighbour else self._holder
        assert process is not None
        pid = process.pid
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


def _wait_for_network(process: subprocess.Popen[bytes]) -> None:
    while Path(f"/proc/{process.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
        pass  # unshare has not got there yet: microseconds


def _in_network(process: subprocess.Popen[bytes], *command: str) -> None:
    subprocess.run(["nsenter", "--target", str(process.pid), "--net", "--", *command], check=True, timeout=20)
