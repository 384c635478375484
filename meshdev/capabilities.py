"""Drop capabilities that a process no longer needs (capabilities(7)).

The standard library has no capset, so glibc's function is called. It applies to the calling thread, so call it before
starting others. ``python capabilities.py COMMAND…`` replaces itself with a command that has none, root or not.
"""

import ctypes
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Final

#: linux/capability.h
CAP_DAC_OVERRIDE: Final = 1
CAP_SETPCAP: Final = 8
CAP_NET_BIND_SERVICE: Final = 10
CAP_NET_ADMIN: Final = 12
CAP_MKNOD: Final = 27

_VERSION_3: Final = 0x20080522
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapSets(ctypes.Structure):
    """One half of the three sets; the second half has the capabilities from 32 on."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def keep_only(kept: Iterable[int]) -> None:
    """Keep those of *kept* that this thread has, effective and permitted, and drop all others for good. Raises OSError.

    ``no_new_privs`` prevents an execve from restoring them even with a full bounding set: reducing that needs
    CAP_SETPCAP, which a container that drops what it does not need lacks. Where the thread has it, the bounding set is
    reduced, too.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    mask = sum(1 << capability for capability in set(kept))
    header, halves = _CapHeader(_VERSION_3, 0), (_CapSets * 2)()
    _check(libc.capget(ctypes.byref(header), halves))
    if halves[0].effective & 1 << CAP_SETPCAP:
        _leave_bounding_set(libc, mask)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    for number, half in enumerate(halves):
        half.permitted &= mask >> 32 * number & 0xFFFFFFFF
        half.effective, half.inheritable = half.permitted, 0
    _check(libc.capset(ctypes.byref(header), halves))


def without(command: Sequence[str]) -> tuple[str, ...]:
    """Return how to start *command* without any capability: ``setpriv`` cannot where CAP_SETPCAP is missing."""
    return (sys.executable, "-I", "-S", __file__, *command)


def _leave_bounding_set(libc: ctypes.CDLL, mask: int) -> None:
    capability = 0
    while (there := libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0)) >= 0:  # EINVAL: the kernel knows no more
        if there and not mask >> capability & 1:
            _check(libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0))
        capability += 1


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    keep_only(())
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 -- what it was given is what it is for
