"""System calls for namespaces that the standard library of Python 3.11 lacks: glibc's functions, by ctypes.

Numbers: ``include/uapi/linux/{sched,mount,prctl,sockios,if}.h``, the same on every architecture with wheels of ours.
The functions are looked up on import: a child between fork and exec only calls them.
"""

import ctypes
import fcntl
import os
import signal
import socket
import struct
from typing import Final

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWNET: Final = 0x4000_0000

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x4_0000

_MNT_DETACH: Final = 2
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1
_IFREQ: Final = struct.Struct("16sH22x")  # struct ifreq: name, flags, the rest of its union

_libc: Final = ctypes.CDLL(None, use_errno=True)
_unshare: Final = _libc.unshare
_setns: Final = _libc.setns
_umount2: Final = _libc.umount2
_prctl: Final = _libc.prctl
_mount: Final = _libc.mount
_mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError; EINVAL for a new user namespace where the process has threads."""
    _check(_unshare(flags))


def setns(fd: int, flags: int) -> None:
    """setns(2): enter the namespaces of the process behind a pidfd (Linux 5.8). Raises OSError."""
    _check(_setns(fd, flags))


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2). Raises OSError with *target*."""
    if _mount(_encoded(source), os.fsencode(target), _encoded(kind), flags, _encoded(options)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def unmount(target: str) -> None:
    """umount2(2), lazily: what uses it keeps it. Raises OSError."""
    _check(_umount2(os.fsencode(target), _MNT_DETACH))


def set_dumpable() -> None:
    """Let this process write its own files in /proc: those of one that is not dumpable are root's (proc(5))."""
    _check(_prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """Get that signal when the thread that started this process exits. Raises OSError."""
    _check(_prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0))


def map_ids(uid: int, gid: int) -> None:
    """In a new user namespace: *uid* and *gid* are the same as outside, and there is no other one. Raises OSError.

    Without privileges a process may map its own ids only, and the group only after it gave up setgroups(2)
    (user_namespaces(7)). Plain system calls: this also runs between fork and exec.
    """
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def set_loopback_up() -> None:
    """Set the loopback device of this network up; in a new one it is down. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        found = fcntl.ioctl(sock, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
        _, flags = _IFREQ.unpack(found)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
