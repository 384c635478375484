"""Give the calling process a network of its own, in which it has every right; nothing of the machine changes.

Three namespaces at once: *user*, so that it takes no root, *network*, and *mount*, for a resolv.conf of its own.
Whoever is in them keeps uid, gid, files, processes and sockets. All of it ends with the last process that is in them.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from meshdev.errors import IsolationError
from meshdev.isolation import linux
from meshdev.isolation.reasons import APPARMOR, LIMITS, USERNS_CLONE, Facts, IsolationStep, explain

_ETC: Final = Path("/etc")
RESOLV_CONF: Final = "/etc/resolv.conf"

#: By these sockets glibc asks the machine's own resolvers before it reads resolv.conf: nss-resolve(8) by
#: io.systemd.Resolve, and nscd(8).
_RESOLVERS: Final = ("/run/systemd/resolve", "/run/nscd", "/var/run/nscd")
_EMPTY: Final = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC


class StepError(Exception):
    """A step that the kernel refused."""

    def __init__(self, step: IsolationStep, number: int) -> None:
        super().__init__(f"{step}: {os.strerror(number)}")
        self.step = step
        self.number = number


def enter_own_network(resolv_conf: Path) -> None:
    """Move the calling process, which must have no threads, into namespaces of its own. Raises IsolationError.

    There it has all capabilities, until it executes another program, and its loopback device is up. *resolv_conf* is
    at /etc/resolv.conf there: whoever may write the file changes it, in place, inside and outside. Write to that path
    rather than to the one in /etc: a program of the machine that renames another file over /etc/resolv.conf removes
    the mount (rename(2)).

    After an error the process may be in them in part: end it.
    """
    try:
        make_namespaces(resolv_conf)
    except StepError as error:
        found = explain(error.step, error.number, facts())
        raise IsolationError(f"no network of its own: {found.reason}", hint=found.hint) from error


def make_namespaces(resolv_conf: Path) -> None:
    """As :func:`enter_own_network`; raises StepError."""
    uid, gid = os.geteuid(), os.getegid()
    with _step("namespaces"):
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNET | linux.CLONE_NEWNS)
    with _step("ids"):
        linux.set_dumpable()
        linux.map_ids(uid, gid)
    with _step("mounts"):
        # The kernel makes it a slave of the machine's: what is mounted there later would cover ours.
        linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
    with _step("loopback"):
        linux.set_loopback_up()
    with _step("resolv.conf"):
        _mount_resolv_conf(resolv_conf)


def facts() -> Facts:
    """What explains a refusal."""
    sysctls = {}
    for name in (*LIMITS, USERNS_CLONE, APPARMOR):
        try:
            sysctls[name] = int(Path("/proc/sys", *name.split(".")).read_text())
        except (OSError, ValueError):  # this kernel has none
            continue
    return Facts(sysctls, seccomp=_seccomp())


def _seccomp() -> bool:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    return any(line.split()[1:] == ["2"] for line in status.splitlines() if line.startswith("Seccomp:"))


def _mount_resolv_conf(source: Path) -> None:
    """Hide the machine's resolvers, and mount *source* where /etc/resolv.conf leads to."""
    content = os.open(source, os.O_PATH | os.O_CLOEXEC)  # the folder is covered for a moment
    try:
        hidden = {os.path.realpath(name) for name in _RESOLVERS if Path(name).is_dir()}
        for folder in hidden:
            linux.mount("tmpfs", folder, "tmpfs", _EMPTY, "mode=755,size=64k")
        linux.mount(f"/proc/self/fd/{content}", _target(source.parent, hidden), None, linux.MS_BIND)
    finally:
        os.close(content)


def _target(scratch: Path, hidden: Collection[str]) -> str:
    """The file to mount upon: one that nobody outside can replace, where that is possible."""
    found = Path(os.path.realpath(RESOLV_CONF))  # a link into /run/systemd/resolve, mostly
    if str(found.parent) in hidden:
        found.touch(mode=0o644)  # in the folder that is ours alone now
        return str(found)
    if found.exists() and (os.path.ismount(found) or os.access(_ETC, os.W_OK)):  # as in a container
        return str(found)
    try:
        _cover_etc(scratch)
    except OSError:
        if found.exists():
            return str(found)
        raise
    return RESOLV_CONF


def _cover_etc(scratch: Path) -> None:
    """Put a layer over /etc with a regular resolv.conf in it; what is below stays readable as it is.

    A file that is mounted upon loses the mount when another program renames a new one to its path, as network managers
    do; the layer's own file stays. Not for those who may write in /etc, if it can be avoided: what they write there
    would be gone with the layer.
    User namespaces may mount overlayfs since Linux 5.11.
    """
    linux.mount("tmpfs", str(scratch), "tmpfs", _EMPTY, "mode=755,size=1m")
    try:
        upper, work = scratch / "upper", scratch / "work"
        upper.mkdir(mode=0o755)
        work.mkdir()
        (upper / "resolv.conf").touch(mode=0o644)
        linux.mount("overlay", str(_ETC), "overlay", 0, f"lowerdir={_ETC},upperdir={upper},workdir={work}")
    finally:
        linux.unmount(str(scratch))


@contextmanager
def _step(step: IsolationStep) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StepError(step, error.errno or 0) from error
