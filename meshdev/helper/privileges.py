"""What the helper gives up once it is root: every capability but two, and the way to get more.

Sources: capabilities(7), prctl(2), linux/capability.h. No library: ``capset`` is in glibc and musl without a header.
"""

import ctypes
import errno
import os
import signal
import struct
from pathlib import Path
from typing import Final

from meshdev.errors import LaptopError

#: The device, its routes and addresses, nftables, connection tracking, marks on sockets.
CAP_NET_ADMIN: Final = 12
#: Port 53.
CAP_NET_BIND_SERVICE: Final = 10
KEPT: Final = 1 << CAP_NET_ADMIN | 1 << CAP_NET_BIND_SERVICE
#: The order of search domains in systemd-resolved's own file, which belongs to its account (helper/dns_resolved.py).
CAP_DAC_OVERRIDE: Final = 1

#: systemd-resolved.service(8).
_STUB: Final = Path("/run/systemd/resolve/stub-resolv.conf")

_PR_SET_PDEATHSIG: Final = 1
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_VERSION_3: Final = 0x20080522
_MOST: Final = 64  # two words of 32 in version 3
_SETS: Final = struct.Struct("=6I")  # effective, permitted, inheritable of the low word, then of the high one
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def drop() -> None:
    """Keep of root's power what :data:`KEPT` names, here and in whatever is executed from here. Raises LaptopError.

    Where systemd-resolved runs that is CAP_DAC_OVERRIDE, too: almost every file that matters is uid 0's anyway.
    What is kept must have been there: in a container root may have less. Files are root's own or nobody's business:
    without CAP_DAC_OVERRIDE other accounts' files stay closed.
    """
    kept = KEPT | (1 << CAP_DAC_OVERRIDE if _STUB.exists() else 0)
    _check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    for capability in range(_MOST):
        if kept >> capability & 1:
            continue
        if _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) and ctypes.get_errno() != errno.EINVAL:
            # EINVAL: the kernel knows no more. EPERM: somebody took CAP_SETPCAP; what follows binds this process.
            break
    header = struct.pack("=Ii", _VERSION_3, 0)
    found = ctypes.create_string_buffer(_SETS.size)
    _check(_LIBC.capget(header, found), "capget")
    _, permitted, _, _, _, _ = _SETS.unpack(found.raw)
    _check(_LIBC.capset(header, _SETS.pack(permitted & kept, permitted & kept, 0, 0, 0, 0)), "capset")


def end_with_parent(parent: int) -> None:
    """Get SIGTERM when *parent*, which made this process, ends. To be called in the child, before it has threads."""
    _check(_LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0), "the parent's end")
    if os.getppid() != parent:  # it has ended meanwhile
        signal.raise_signal(signal.SIGTERM)


def _check(failed: int, what: str) -> None:
    if failed:
        raise LaptopError(f"the helper cannot give up root's power ({what}): {os.strerror(ctypes.get_errno())}")
