"""A container on a laptop (a namespace behind a bridge) uses the cluster's names and addresses."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from tests.cluster import addresses
from tests.e2e.conftest import Laptop

pytestmark = pytest.mark.cluster

#: What Docker makes for a container; the argument is a process in the container's network.
_SET_UP: Final = """
ip link add docker0 type bridge
ip addr add 172.17.0.1/16 dev docker0
ip link add veth1 type veth peer name eth0 netns "$1"
ip link set docker0 addrgenmode none
ip link set veth1 addrgenmode none
ip link set veth1 master docker0 up
ip link set docker0 up
sysctl -qw net.ipv4.ip_forward=1
nft add table ip docker
nft add chain ip docker post '{ type nat hook postrouting priority 100; }'
nft add rule ip docker post ip saddr 172.17.0.0/16 oifname != docker0 masquerade
nsenter --target "$1" --net -- sh -ec 'ip addr add 172.17.0.2/16 dev eth0; ip link set eth0 up
ip route add default via 172.17.0.1'
"""
_TEAR_DOWN: Final = "ip link del docker0; nft delete table ip docker; sysctl -qw net.ipv4.ip_forward=$1"
#: Docker gives a container the machine's name servers: systemd-resolved's own where the machine asks its stub.
_INSIDE: Final = """
real=/run/systemd/resolve/resolv.conf
[ ! -e "$real" ] || mount --bind "$real" /etc/resolv.conf
shift
exec "$@"
"""


@contextmanager
def container(laptop: Laptop) -> Iterator[tuple[str, ...]]:
    """A container of that laptop; what runs a command in it."""
    forwarding = laptop.ok("sysctl", "-n", "net.ipv4.ip_forward").strip()
    held = laptop.command("unshare", "--net", "sh", "-c", "echo $$; exec sleep infinity")
    with subprocess.Popen(held, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = process.stdout.readline().strip()
        try:
            laptop.ok("sh", "-ec", _SET_UP, "sh", pid)
            yield "nsenter", "--target", pid, "--net", "--", "unshare", "--mount", "sh", "-ec", _INSIDE, "sh", pid
        finally:
            process.kill()
            laptop.ok("sh", "-c", _TEAR_DOWN, "sh", forwarding)


@pytest.mark.parametrize("number", [1, 2], ids=["plain", "resolved"])
def test_names_and_addresses(number: int) -> None:
    laptop = Laptop(number)
    laptop.clean()
    with container(laptop) as inside, laptop.connected():
        assert laptop.status()["notes"] == []
        (address,) = {line.split()[0] for line in laptop.ok("getent", "ahostsv4", "b.default").splitlines()}
        for host in ("b", "b.default.svc.cluster.local", address):
            assert laptop.ok(*inside, "curl", "-sS", "--max-time", "5", f"http://{host}/") == "service-b>service-c"
        # 1 MB: segments that are larger than the tunnel's MTU.
        size = laptop.ok(
            *inside, "sh", "-c", f"head -c 1000000 /dev/zero | curl -sS --max-time 9 -T - http://{address}/"
        )
        assert size.strip() == "1000000"
        # The rest of the internet is as before.
        web = f"http://www.{addresses.WAN_ZONE}/"
        assert laptop.ok(*inside, "curl", "-sS", "--max-time", "5", web).startswith("wan:")


def test_why_not(laptop: Laptop) -> None:
    with container(laptop):
        laptop.ok("sysctl", "-qw", "net.ipv4.ip_forward=0")
        said = laptop.run("meshdev", "connect").stdout
        assert "containers (docker0) do not reach the cluster" in said
        assert any("does not forward" in note for note in laptop.status()["notes"])
