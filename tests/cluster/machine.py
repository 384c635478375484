"""The few things the testbed changes on the machine itself, each noted before it is done and put back by `down`:
a user, a sudoers file, two kernel settings, the mode of /dev/net/tun."""

import pwd
import shutil
import stat
from pathlib import Path

from tests.cluster.paths import SUDOERS_FILE, TUN_DEVICE
from tests.cluster.run import TestbedError, run, succeeds
from tests.cluster.state import State

USER = "dev"

_CONGESTION = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
_BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
_INOTIFY_INSTANCES = 1024  # kubelet, containerd and 20 pods of one uid need more than the default of 128


def account() -> pwd.struct_passwd:
    """The developer's account; KeyError before `up`."""
    return pwd.getpwnam(USER)


def prepare(state: State) -> None:
    """Make the changes; each only where it is not so already."""
    _modules()
    _user(state)
    _sudoers(state)
    _tun(state)
    _congestion(state)
    _inotify(state)


def restore(state: State) -> None:
    """Put everything back. Each undo stands alone: one that fails must not keep the others from being done."""
    undo = state.undo
    if "inotify" in undo:
        _INOTIFY.write_text(undo["inotify"])
    if "congestion" in undo:
        _CONGESTION.write_text(undo["congestion"])
    if "tun" in undo and TUN_DEVICE.exists():
        TUN_DEVICE.chmod(int(undo["tun"], 8))
    if "sudoers" in undo:
        SUDOERS_FILE.unlink(missing_ok=True)
    if "user" in undo:
        _remove_user()
    if "home" in undo:
        shutil.rmtree(undo["home"], ignore_errors=True)
    undo.clear()
    state.save()


def _modules() -> None:
    """Kernels without these built in have them as modules. Two pods that talk through a Service need br_netfilter:
    their answers cross the bridge, and would miss the translation back."""
    if not _BRIDGE_FILTER.exists():
        succeeds("modprobe", "-a", "br_netfilter", "overlay", "tun")
    if not _BRIDGE_FILTER.exists():
        raise TestbedError("the kernel has no br_netfilter: pods would not reach each other through Services")


def _user(state: State) -> None:
    """A person without any rights. Their home is a folder of each laptop; here it is only the mount point."""
    try:
        home = Path(account().pw_dir)
    except KeyError:
        state.remember_undo("user", USER)
        home = Path("/home") / USER
        run("useradd", "--no-create-home", "--home-dir", home, "--shell", "/bin/bash", "--user-group", USER)
    if not home.exists():
        state.remember_undo("home", str(home))
        home.mkdir(parents=True)
        shutil.chown(home, USER, USER)


def _remove_user() -> None:
    try:
        account()
    except KeyError:
        return
    run("userdel", "--force", USER)


def _sudoers(state: State) -> None:
    if SUDOERS_FILE.exists():
        return
    state.remember_undo("sudoers", "absent")
    SUDOERS_FILE.parent.mkdir(exist_ok=True)
    fresh = SUDOERS_FILE.with_name("meshdev-testbed.new")  # sudo skips names with a dot
    fresh.write_text(f"{USER} ALL=(ALL:ALL) NOPASSWD: ALL\n")
    fresh.chmod(0o440)
    fresh.replace(SUDOERS_FILE)


def _tun(state: State) -> None:
    """Distributions ship the device 0666: making an interface still needs CAP_NET_ADMIN in a network namespace."""
    if not TUN_DEVICE.exists():
        raise TestbedError(f"there is no {TUN_DEVICE}: load the kernel module (modprobe tun)")
    mode = stat.S_IMODE(TUN_DEVICE.stat().st_mode)
    if mode != 0o666:
        state.remember_undo("tun", f"{mode:o}")
        TUN_DEVICE.chmod(0o666)


def _congestion(state: State) -> None:
    """A namespace may only choose an algorithm that the machine's own namespace allows."""
    allowed = _CONGESTION.read_text().split()
    if "cubic" not in allowed:
        state.remember_undo("congestion", " ".join(allowed))
        _CONGESTION.write_text(" ".join([*allowed, "cubic"]))


def _inotify(state: State) -> None:
    current = int(_INOTIFY.read_text())
    if current < _INOTIFY_INSTANCES:
        state.remember_undo("inotify", str(current))
        _INOTIFY.write_text(str(_INOTIFY_INSTANCES))
