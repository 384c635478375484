"""What the helper gives up once it is root: every capability but two, and the way to get more.

Sources: capabilities(7), prctl(2).
"""

import ctypes
import os
import signal
from pathlib import Path
from typing import Final

from meshdev.capabilities import CAP_DAC_OVERRIDE, CAP_NET_ADMIN, CAP_NET_BIND_SERVICE, keep_only
from meshdev.errors import LaptopError

#: The device, its routes and addresses, nftables, connection tracking, marks on sockets; port 53.
KEPT: Final = frozenset({CAP_NET_ADMIN, CAP_NET_BIND_SERVICE})

#: systemd-resolved.service(8).
_STUB: Final = Path("/run/systemd/resolve/stub-resolv.conf")
_PR_SET_PDEATHSIG: Final = 1


def drop() -> None:
    """Keep of root's power what :data:`KEPT` names, here and in whatever is executed from here. Raises LaptopError.

    Where systemd-resolved runs CAP_DAC_OVERRIDE is kept, too: the order of search domains stands in its own file, which
    belongs to its account (helper/dns_resolved.py). Elsewhere other accounts' files stay closed.
    """
    try:
        keep_only(KEPT | {CAP_DAC_OVERRIDE} if _STUB.exists() else KEPT)
    except OSError as error:
        raise LaptopError(f"the helper cannot give up root's power: {error.strerror}") from error


def end_with_parent(parent: int) -> None:
    """Get SIGTERM when *parent*, which made this process, ends. To be called in the child, before it has threads.

    Raises LaptopError.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        reason = os.strerror(ctypes.get_errno())
        raise LaptopError(f"the helper cannot follow the end of its parent: {reason}")
    if os.getppid() != parent:  # it has ended meanwhile
        signal.raise_signal(signal.SIGTERM)
