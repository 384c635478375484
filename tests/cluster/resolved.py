"""A laptop whose DNS is systemd-resolved: the system bus, resolved itself, and resolv.conf as distributions have it.

resolved runs without systemd. It wants a user of its own, which only the laptop's /etc has; where the machine lacks the
package, an overlay puts its files into the laptop's /usr.
"""

from pathlib import Path

from tests.cluster import addresses as plan
from tests.cluster import packages, processes
from tests.cluster.progress import wait_for
from tests.cluster.run import run, succeeds
from tests.cluster.state import State

LAPTOPS = (2,)

_UPLINK = "eth0"
_SYSTEM_ID = 968  # free in Debian's and Ubuntu's own tables; only inside the laptop
_START_SECONDS = 10.0


def lower_etc() -> str:
    """The lower folders of a laptop's /etc: the machine's, and the unpacked package's where the machine has none."""
    unpacked = packages.resolved_root()
    return "/etc" if unpacked == Path("/") else f"{unpacked}/etc:/etc"


def setup_lines() -> list[str]:
    """Shell lines that make the laptop's files as the package's installation leaves them."""
    unpacked = packages.resolved_root()
    return [
        *([] if unpacked == Path("/") else [f"mount -t overlay overlay -o lowerdir={unpacked}/usr:/usr /usr"]),
        "rm -f /etc/resolv.conf",
        "ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf",
        "getent passwd systemd-resolve >/dev/null || {",
        f"  echo 'systemd-resolve:x:{_SYSTEM_ID}:' >> /etc/group",
        f"  echo 'systemd-resolve:x:{_SYSTEM_ID}:{_SYSTEM_ID}::/:/usr/sbin/nologin' >> /etc/passwd",
        "}",
        "mkdir -p /run/systemd/netif/links",
    ]


def daemons(number: int, holder: int) -> list[processes.Daemon]:
    """The bus and resolved, in start order."""
    enter = processes.beside(holder)
    bus = ("dbus-daemon", "--system", "--nofork", "--nopidfile", "--nosyslog")
    return [
        processes.Daemon(f"laptop{number}-dbus", bus, enter, stop_seconds=2),
        processes.Daemon(f"laptop{number}-resolved", ("/lib/systemd/systemd-resolved",), enter, stop_seconds=2),
    ]


def names(number: int) -> list[str]:
    """The daemons' names."""
    return [daemon.name for daemon in daemons(number, 0)]


def ensure(state: State, number: int, holder: int) -> None:
    """Have both running, and the office's DNS server on the laptop's uplink, as a network manager would set it."""
    bus, resolved = daemons(number, holder)
    inside = processes.beside(holder)
    started = processes.ensure(state, bus)
    if started:
        socket = ("test", "-S", "/run/dbus/system_bus_socket")
        wait_for("the laptop's system bus", lambda: succeeds(*inside, *socket), _START_SECONDS, 0.02)
        processes.stop(state, resolved.name, resolved.stop_seconds)
    if processes.ensure(state, resolved):
        wait_for("systemd-resolved", lambda: succeeds(*inside, "resolvectl", "status", timeout=2), _START_SECONDS, 0.05)
        run(*inside, "resolvectl", "dns", _UPLINK, str(plan.WAN_DNS))
        run(*inside, "resolvectl", "default-route", _UPLINK, "yes")


def name(number: int) -> str:
    """The name of resolved itself."""
    return names(number)[-1]


def restart(state: State, number: int) -> None:
    """Kill resolved and start it anew, as a package's update or a crash does; its bus goes on."""
    holder = state.processes[f"laptop{number}"].pid
    processes.stop(state, name(number), 0)
    ensure(state, number, holder)


def remove(state: State, number: int) -> None:
    """Stop both."""
    if number in LAPTOPS:
        for name in reversed(names(number)):
            processes.stop(state, name, 2)
