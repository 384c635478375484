"""Drop root's privileges: every capability but two, and the means to regain them.

Sources: capabilities(7), prctl(2).
"""

import os
import signal
from pathlib import Path
from typing import Final

from meshdev.capabilities import CAP_DAC_OVERRIDE, CAP_NET_ADMIN, CAP_NET_BIND_SERVICE, keep_only
from meshdev.errors import LaptopError
from meshdev.isolation import linux

#: The device, its routes and addresses, nftables, connection tracking, marks on sockets; port 53.
KEPT: Final = frozenset({CAP_NET_ADMIN, CAP_NET_BIND_SERVICE})

#: systemd-resolved.service(8).
_STUB: Final = Path("/run/systemd/resolve/stub-resolv.conf")


def drop() -> None:
    """Keep only the capabilities in :data:`KEPT`, here and in whatever is executed from here. Raises LaptopError.

    Where systemd-resolved runs CAP_DAC_OVERRIDE is kept, too: the file with the order of search domains belongs to its
    account (helper/dns_resolved.py). Elsewhere other accounts' files stay inaccessible.
    """
    try:
        keep_only(KEPT | {CAP_DAC_OVERRIDE} if _STUB.exists() else KEPT)
    except OSError as error:
        raise LaptopError(f"the helper cannot drop root's privileges: {error.strerror}") from error


def end_with_parent(parent: int) -> None:
    """Get SIGTERM when *parent*, which forked this process, exits. Call it in the child, before it has threads.

    Raises LaptopError.
    """
    try:
        linux.end_with_parent(signal.SIGTERM)
    except OSError as error:
        raise LaptopError(f"the helper cannot be notified of its parent's exit: {error.strerror}") from error
    if os.getppid() != parent:  # it has exited meanwhile
        signal.raise_signal(signal.SIGTERM)
