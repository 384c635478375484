"""The journal: what must be undone if the helper dies. Each entry stands alone: none needs another to have worked.

Only what outlives its maker stands here. A nft table with an owner, a socket, resolved's settings of a link need no
entry: the kernel or the link takes them along.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from meshdev.errors import ProtocolError
from meshdev.wire import values
from meshdev.wire.fields import Fields
from meshdev.wire.jsonlines import decode, encode

VERSION: Final = 1

_MAX_ENTRIES: Final = 64
_MAX_CONTENT: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class DeleteDevice:
    """Remove the network device of that name and number; its addresses and routes go with it."""

    kind: ClassVar[str] = "device"
    name: str
    index: int

    def __str__(self) -> str:
        return f"network device {self.name}"


@dataclass(frozen=True, slots=True)
class DeleteTable:
    """Remove the nft table ``inet`` *name*: only where the kernel knows no owner of a table."""

    kind: ClassVar[str] = "table"
    name: str

    def __str__(self) -> str:
        return f"nft table inet {self.name}"


@dataclass(frozen=True, slots=True)
class RestoreFile:
    """Write *former* back to *path*, if what stands there begins with our marker or was cut short."""

    kind: ClassVar[str] = "file"
    path: str
    former: bytes

    def __str__(self) -> str:
        return f"the former {self.path}"


Entry = DeleteDevice | DeleteTable | RestoreFile


@dataclass(frozen=True, slots=True)
class Record:
    """A journal file. ``pid`` and ``started`` (of /proc/PID/stat, in clock ticks since boot) tell a live helper."""

    uid: int
    pid: int
    started: int
    entries: tuple[Entry, ...]

    def encode(self) -> bytes:
        """The file's bytes."""
        return encode(
            {
                "journal": VERSION,
                "uid": self.uid,
                "pid": self.pid,
                "started": self.started,
                "entries": [_plain(entry) for entry in self.entries],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> "Record":
        """Of a file's bytes. Raises ProtocolError when they are none of ours."""
        found = decode(data, "The journal")
        found.integer("journal", VERSION, VERSION)
        record = cls(
            found.integer("uid", 0, 1 << 32),
            found.integer("pid", 1, 1 << 22),
            found.integer("started", 0, 1 << 62),
            found.wholes("entries", _entry, _MAX_ENTRIES),
        )
        found.end()
        return record


#: The names of our nft tables begin so; those of users follow.
TABLE_PREFIX: Final = "meshdev_"


def table_name(uid: int) -> str:
    """The nft table of a user's helper."""
    return f"{TABLE_PREFIX}{uid}"


def _plain(entry: Entry) -> dict[str, object]:
    match entry:
        case DeleteDevice(name, index):
            return {"undo": entry.kind, "name": name, "index": index}
        case DeleteTable(name):
            return {"undo": entry.kind, "name": name}
        case RestoreFile(path, former):
            return {"undo": entry.kind, "path": path, "former": base64.b64encode(former).decode("ascii")}


def _device(found: Fields) -> Entry:
    return DeleteDevice(found.parsed("name", values.interface, 15), found.integer("index", 1, (1 << 31) - 1))


def _table(found: Fields) -> Entry:
    name = found.text("name", 32)
    if not name.startswith(TABLE_PREFIX) or not name.removeprefix(TABLE_PREFIX).isdecimal():
        raise ProtocolError("The journal names a table that is not ours")
    return DeleteTable(name)


def _file(found: Fields) -> Entry:
    path = found.text("path", 4096)
    if not path.startswith("/"):
        raise ProtocolError("The journal names a relative path")
    return RestoreFile(path, found.parsed("former", _decode, _MAX_CONTENT))


_READERS: Final[dict[str, Callable[[Fields], Entry]]] = {
    DeleteDevice.kind: _device,
    DeleteTable.kind: _table,
    RestoreFile.kind: _file,
}


def _entry(found: Fields) -> Entry:
    return _READERS[found.choice("undo", tuple(_READERS))](found)


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
