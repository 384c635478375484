"""This machine: TUN, sudo, namespaces, the state folder."""

import errno
import re
import stat
from dataclasses import dataclass
from typing import Final

from meshdev.doctor.verdicts.finding import Finding, failed, ok, warning
from meshdev.isolation.reasons import Forbidden, Works

TUN_NODE: Final = "/dev/net/tun"
#: sudo (1.8 to 1.9) and sudo-rs, in the C locale.
_WOULD_ASK: Final = re.compile(r"(password|authentication) is required")
#: Logs, the journal and sockets of a connection stay far below, in bytes.
_SPACE_NEEDED: Final = 10 << 20
_ROOTLESS: Final = "meshdev run and meshdev connect --socks need no root"


@dataclass(frozen=True, slots=True)
class TunFacts:
    """What opening /dev/net/tun said: an errno, 0 where it could be opened. Opening alone makes no device."""

    errno: int
    root: bool


def tun(facts: TunFacts) -> Finding:
    """Whether TUN devices can be made here."""
    if not facts.errno:
        return ok(f"{TUN_NODE} can be opened")
    if facts.errno in {errno.EACCES, errno.EPERM}:
        if facts.root:
            return failed(
                f"{TUN_NODE} may not be opened, though you are root: a container without the device",
                "start the container with --device /dev/net/tun --cap-add NET_ADMIN",
            )
        return warning(
            f"{TUN_NODE} may be opened by root alone: connect works, run without root does not",
            f"sudo chmod 666 {TUN_NODE}",
        )
    if facts.errno == errno.ENOENT:
        return failed(
            f"{TUN_NODE} does not exist",
            "sudo modprobe tun; in a container: start it with --device /dev/net/tun --cap-add NET_ADMIN",
        )
    if facts.errno in {errno.ENODEV, errno.ENXIO}:
        return failed(f"{TUN_NODE} has no driver behind it", "sudo modprobe tun")
    return failed(f"{TUN_NODE} cannot be opened: {errno.errorcode.get(facts.errno, facts.errno)}", "dmesg | tail")


@dataclass(frozen=True, slots=True)
class SudoFacts:
    """What ``sudo -n -l`` said of the helper; *code* None where there is no sudo. *terminal*: sudo could ask there."""

    root: bool
    code: int | None = None
    output: str = ""
    terminal: bool = False


def sudo(facts: SudoFacts) -> Finding:
    """Whether the helper gets root."""
    if facts.root:
        return ok("not needed: you are root")
    if facts.code is None:
        return warning("sudo is not installed, so connect gets no root", f"install sudo, or be root; {_ROOTLESS}")
    if facts.code == 0:
        return ok("it lets you run the helper, and asks for no password now")
    return _refused(facts)


def _refused(facts: SudoFacts) -> Finding:
    if _WOULD_ASK.search(facts.output):
        if facts.terminal:
            return ok("it asks for your password when you connect")
        return warning(
            "it needs a password, and there is no terminal to ask on",
            f"allow the helper in sudoers without a password; {_ROOTLESS}",
        )
    why = facts.output or f"exit code {facts.code}"
    return warning(f"it does not let you run the helper: {why}", f"be root, or ask for it; {_ROOTLESS}")


def namespaces(tried: Works | Forbidden) -> Finding:
    """Whether ``run`` and ``connect --socks`` get a network of their own, without root."""
    if isinstance(tried, Forbidden):
        return warning(tried.reason, tried.hint)
    return ok("run and connect --socks work without root")


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """The state folder, or the part of its path that exists, and the space there in bytes."""

    path: str
    exists: bool
    mode: int
    uid: int
    writable: bool
    free: int
    socket_too_long: bool = False


def state_folder(facts: FolderFacts, uid: int) -> Finding:
    """Whether a connection can keep its files there."""
    if facts.exists and (not stat.S_ISDIR(facts.mode) or facts.uid != uid):
        return failed(f"{facts.path} is not a folder of yours", "set XDG_RUNTIME_DIR to a folder of yours")
    if facts.exists and facts.mode & 0o022:
        return failed(f"other users may write to {facts.path}", f"chmod 700 {facts.path}")
    if not facts.writable:
        return failed(f"nothing can be written to {facts.path}", "set XDG_RUNTIME_DIR to a folder of yours")
    if facts.socket_too_long:
        return failed(f"{facts.path} is too long for a socket's name", "set XDG_RUNTIME_DIR to a shorter folder")
    if facts.free < _SPACE_NEEDED:
        return failed(f"{facts.path} has {facts.free >> 20} MB left", f"df {facts.path}")
    return ok(facts.path)
