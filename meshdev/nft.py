"""libnftables in this process: no fork per command, nft's own error messages, and a netlink socket that can own tables.

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
    """A context of libnftables, with one netlink socket."""

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
            raise FirewallError("libnftables cannot create a context")
        #: The netlink socket, found in /proc, as libnftables does not expose it. Tables that it owns exist until its
        #: last copy is closed.
        self.descriptor = min(_netlink_sockets() - before, default=None)
        library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str, *, dry: bool = False) -> None:
        """Run *commands* in one transaction: all or none. Raises FirewallError with nft's message."""
        self._library.nft_ctx_set_dry_run(self._context, dry)
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode("ascii"))
        message: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise FirewallError(f"nftables refused: {message.decode(errors='replace').strip()[:500]}")

    def listing(self, table: str) -> str | None:
        """The commands that create the table ``inet`` *table* as it is; None without one. Raises FirewallError."""
        if f"table inet {table}" not in self.show("list tables inet").splitlines():
            return None
        return self.show(f"list table inet {table}")

    def show(self, command: str) -> str:
        """The output of a list command. Raises FirewallError with nft's message."""
        self._library.nft_ctx_buffer_output(self._context)
        try:
            self.run(f"{command}\n")
        finally:
            output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
            self._library.nft_ctx_unbuffer_output(self._context)
        return output.decode("ascii", errors="replace")

    def close(self) -> None:
        """Close the netlink socket; tables that it owns are removed."""
        if self._context is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None


def _netlink_sockets() -> set[int]:
    return {int(path.name) for path in Path("/proc/self/fd").glob("*") if _is_netlink(int(path.name))}


def _is_netlink(descriptor: int) -> bool:
    try:
        copy = os.dup(descriptor)
    except OSError:  # the directory's own descriptor
        return False
    try:
        one = socket.socket(fileno=copy)
    except OSError:  # no socket
        os.close(copy)
        return False
    with one:
        return one.family == socket.AF_NETLINK
