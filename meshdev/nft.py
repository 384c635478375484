"""libnftables in this process: no fork a rule, errors in nft's own words, and one netlink socket that can own tables.

Source: libnftables(3). Used by the helper on the laptop and by the manager's tunnel container.
"""

import ctypes
import os
import socket
from pathlib import Path
from typing import Final

from meshdev.errors import FirewallError

_LIBRARY: Final = "libnftables.so.1"


class Nftables:
    """One context of libnftables, and so one netlink socket."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise FirewallError(
                f"{_LIBRARY} is not installed ({error})", hint="install nftables (Debian, Ubuntu: apt install nftables)"
            ) from error
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        for name, *arguments in (
            ("nft_ctx_free",),
            ("nft_ctx_buffer_error",),
            ("nft_ctx_buffer_output",),
            ("nft_ctx_unbuffer_output",),
            ("nft_ctx_get_output_buffer",),
            ("nft_ctx_set_dry_run", ctypes.c_bool),
            ("nft_ctx_get_error_buffer",),
            ("nft_run_cmd_from_buffer", ctypes.c_char_p),
        ):
            getattr(library, name).argtypes = [ctypes.c_void_p, *arguments]
        library.nft_ctx_free.restype = None
        library.nft_ctx_set_dry_run.restype = None
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        self._library = library
        before = _netlink_sockets()
        self._context: int | None = library.nft_ctx_new(0)
        if self._context is None:
            raise FirewallError("libnftables gives no context")
        #: The netlink socket, found in /proc, since libnftables does not tell it: tables that it owns live as long as
        #: any copy of it.
        self.descriptor = min(_netlink_sockets() - before, default=None)
        library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str, *, dry: bool = False) -> None:
        """Carry out all of *commands* in one transaction, or nothing. Raises FirewallError with nft's own words."""
        self._library.nft_ctx_set_dry_run(self._context, dry)
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode("ascii"))
        said: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise FirewallError(f"nftables refused: {said.decode(errors='replace').strip()[:500]}")

    def listing(self, table: str) -> str | None:
        """The table ``inet`` of that name as commands that make it; None where there is none. Raises FirewallError."""
        if f"table inet {table}" not in self.show("list tables inet").splitlines():
            return None
        return self.show(f"list table inet {table}")

    def show(self, command: str) -> str:
        """What a command that lists prints. Raises FirewallError with nft's own words."""
        self._library.nft_ctx_buffer_output(self._context)
        try:
            self.run(f"{command}\n")
        finally:
            said: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
            self._library.nft_ctx_unbuffer_output(self._context)
        return said.decode("ascii", errors="replace")

    def close(self) -> None:
        """Close the netlink socket; tables that it owns vanish."""
        if self._context is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None


def _netlink_sockets() -> set[int]:
    return {int(path.name) for path in Path("/proc/self/fd").glob("*") if _is_netlink(int(path.name))}


def _is_netlink(descriptor: int) -> bool:
    try:
        copy = os.dup(descriptor)
    except OSError:  # it was that of the listing
        return False
    try:
        one = socket.socket(fileno=copy)
    except OSError:  # no socket
        os.close(copy)
        return False
    with one:
        return one.family == socket.AF_NETLINK
