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
from meshdev.host.dns import MARKER, ResolvConf, parse_resolv_conf, render_resolv_conf
from meshdev.host.journal import RestoreFile
from meshdev.wire.values import IPAddress

#: Another program that writes just then is taken for the former file's owner; so often at once it is a fight.
_TRIES: Final = 4


class OwnResolvConf:
    """The file, ours from :meth:`write` until :meth:`withdraw`. Methods raise DnsError."""

    def __init__(self, journal: Journal, path: Path = RESOLV_CONF) -> None:
        self._journal = journal
        self.path = path
        self._entry: RestoreFile | None = None

    @property
    def written(self) -> bool:
        """True while ours shall stand there."""
        return self._entry is not None

    def write(self, nameserver: IPAddress | None, search: tuple[str, ...]) -> None:
        """Journal the former file, then write ours: *search* before its own list; None: its own name servers.

        Where another program writes the file meanwhile, its is the former one then. Where that fails the former file
        stands there, or is journalled still.
        """
        for _ in range(_TRIES):
            entry = self._journalled()
            try:
                if _write_over(entry, render_resolv_conf(entry.former, nameserver, search)):
                    return
            except DnsError:
                with contextlib.suppress(DnsError, OSError):  # the first error tells more; the undo tries again
                    self.withdraw()
                raise
            self.withdraw()
        raise DnsError(f"{self.path} is left alone: another program writes it again and again")

    def _journalled(self) -> RestoreFile:
        """What leads back to the file as it stands at the path now, unless that is ours."""
        path = os.path.realpath(self.path)  # Path.resolve() raises RuntimeError at a loop before Python 3.13
        if self._entry is not None and self._entry.path != path:  # a link that leads elsewhere now
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
        """Whether another program (a DHCP client) wrote another file in place of ours: that is the former one now."""
        if self._entry is None or is_ours(self._read()):
            return False
        self.withdraw()  # ours may still stand where the name led before: it may be a link
        return True

    def withdraw(self) -> None:
        """Write the former file back unless somebody else wrote one meanwhile."""
        if self._entry is not None:
            restore_file(self._entry)
            self._journal.remove(self._entry)
            self._entry = None

    def former(self) -> ResolvConf:
        """The file as it was before us; nothing where there is none."""
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
    """Put the former content back where ours (or half of it) stands; another's is left alone. Raises DnsError."""
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
    """Write *content* over the former file, or over ours; whether it stands at the path then. Raises DnsError."""
    return _change(Path(entry.path), lambda now: content if now == entry.former or is_ours(now) else None)


def _change(path: Path, change: Callable[[bytes], bytes | None]) -> bool:
    try:
        return change_in_place(path, change)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DnsError(
            f"{path} cannot be written: {error.strerror}", hint=f"is it immutable (lsattr {path}), or not root's own?"
        ) from error


def is_ours(content: bytes) -> bool:
    """Ours, or what a machine that died while writing left of it."""
    return content.startswith(MARKER.encode()) or MARKER.encode().startswith(content)
