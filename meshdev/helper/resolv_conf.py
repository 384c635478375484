"""/etc/resolv.conf with lines of ours in it. The former file is in the journal, and in ours as comments."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from meshdev.errors import DnsError
from meshdev.helper.dns import Watched
from meshdev.helper.in_place import change_in_place
from meshdev.helper.journal import RESOLV_CONF, Journal
from meshdev.host.dns import MARKER, render_resolv_conf
from meshdev.host.journal import RestoreFile
from meshdev.wire.resolv_conf import ResolvConf, parse_resolv_conf
from meshdev.wire.values import IPAddress

#: If another program writes the file meanwhile, its content is the former one; this often in a row, it is a conflict.
_TRIES: Final = 4


class OwnResolvConf:
    """The file, ours from :meth:`write` until :meth:`withdraw`. Methods raise DnsError."""

    def __init__(self, journal: Journal, path: Path = RESOLV_CONF) -> None:
        self._journal = journal
        self.path = path
        self._entry: RestoreFile | None = None

    @property
    def written(self) -> bool:
        """True while the file should be ours."""
        return self._entry is not None

    def write(self, nameserver: IPAddress | None, search: tuple[str, ...]) -> None:
        """Journal the former file, then write ours: *search* before its own list; None: its own name servers.

        If another program writes the file meanwhile, its content is the former one. After an error the former file is
        in place, or still in the journal.
        """
        for _ in range(_TRIES):
            entry = self._journalled()
            try:
                if _write_over(entry, render_resolv_conf(entry.former, nameserver, search)):
                    return
            except DnsError:
                with contextlib.suppress(DnsError, OSError):  # the first error says more; the undo tries again
                    self.withdraw()
                raise
            self.withdraw()
        raise DnsError(f"{self.path} is left alone: another program keeps writing it")

    def _journalled(self) -> RestoreFile:
        """The journal's entry for the file at the path now, unless that is ours already."""
        path = os.path.realpath(self.path)  # Path.resolve() raises RuntimeError at a loop before Python 3.13
        if self._entry is not None and self._entry.path != path:  # a link with a new target
            self.withdraw()
        if self._entry is None:
            entry = RestoreFile(path, self._read())
            try:
                self._journal.add(entry)
            except OSError as error:
                raise DnsError(f"{self.path} is left alone: the journal cannot be written: {error.strerror}") from error
            self._entry = entry
        return self._entry

    def replaced(self) -> bool:
        """Whether another program (a DHCP client) has replaced our file: its file is the former one now."""
        if self._entry is None or is_ours(self._read()):
            return False
        self.withdraw()  # ours may still be at the former target: the path may be a link
        return True

    def withdraw(self) -> None:
        """Write the former file back unless another program wrote one meanwhile."""
        if self._entry is not None:
            restore_file(self._entry)
            self._journal.remove(self._entry)
            self._entry = None

    def former(self) -> ResolvConf:
        """The file as it was before us; empty where there is none."""
        if self._entry is not None:
            found = parse_resolv_conf(self._entry.former.decode(errors="replace"))
        else:
            found = Watched(self.path).read()
        return ResolvConf(found.asked, found.search, found.options)

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DnsError(f"{self.path} cannot be read: {error.strerror}") from error


def restore_file(entry: RestoreFile) -> None:
    """Restore the former content of a file that is ours, even in part; leave others alone. Raises DnsError."""
    path = Path(entry.path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise DnsError(f"{path} cannot be read: {error.strerror}") from error
    if is_ours(content) and content != entry.former:
        _change(path, lambda now: entry.former if is_ours(now) else None)


def _write_over(entry: RestoreFile, content: bytes) -> bool:
    """Overwrite the former file, or ours, by *content*; whether it is at the path afterwards. Raises DnsError."""
    return _change(Path(entry.path), lambda now: content if now == entry.former or is_ours(now) else None)


def _change(path: Path, change: Callable[[bytes], bytes | None]) -> bool:
    try:
        return change_in_place(path, change)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DnsError(
            f"{path} cannot be written: {error.strerror}",
            hint=f"is it immutable (lsattr {path}), or not owned by root?",
        ) from error


def is_ours(content: bytes) -> bool:
    """Whether it is ours, or a truncated one of ours after a crash while writing."""
    return content.startswith(MARKER.encode()) or MARKER.encode().startswith(content)
