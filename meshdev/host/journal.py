"""The journal: what must be undone if the helper is killed. Entries are independent of each other.

Only what outlives the helper is in it. An nft table with an owner, a socket and resolved's settings of a link need no
entry: they are removed with the process or the link.
"""

import base64
from typing import Final

from meshdev.wire import values
from meshdev.wire.codecs import Codec, Integer, Many, Parsed, Text
from meshdev.wire.jsonlines import encode
from meshdev.wire.message import Tagged, decode, dump, field, load, message, take

VERSION: Final = 1

_MAX_ENTRIES: Final = 64
_MAX_CONTENT: Final = 256 * 1024


@message(strict=True)
class DeleteDevice:
    """Remove the network device with that name and index; its addresses and routes go with it."""

    name: str = field(Parsed(values.interface))
    index: int = field(Integer(1, (1 << 31) - 1))

    def __str__(self) -> str:
        return f"network device {self.name}"


#: Prefix of our nft tables' names; the uid follows.
TABLE_PREFIX: Final = "meshdev_"


def table_name(uid: int) -> str:
    """The nft table of a user's helper."""
    return f"{TABLE_PREFIX}{uid}"


def _own_table(text: str) -> str:
    if not text.startswith(TABLE_PREFIX) or not text.removeprefix(TABLE_PREFIX).isdecimal():
        raise ValueError("not a table of ours")
    return text


@message(strict=True)
class DeleteTable:
    """Remove the nft table ``inet`` *name*: only on kernels where tables have no owner."""

    name: str = field(Parsed(_own_table, 32))

    def __str__(self) -> str:
        return f"nft table inet {self.name}"


class _Base64(Codec[bytes]):
    """Bytes whose text has at most *limit* characters."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def load(self, value: object) -> bytes:
        return base64.b64decode(Text(self.limit).load(value), validate=True)

    def dump(self, value: bytes) -> object:
        return base64.b64encode(value).decode("ascii")


@message(strict=True)
class RestoreFile:
    """Write *former* back to *path* if the file there begins with our marker, or with a part of it."""

    path: str = field(Parsed(values.absolute_path, 4096))
    former: bytes = field(_Base64(_MAX_CONTENT))

    def __str__(self) -> str:
        return f"the former {self.path}"


Entry = DeleteDevice | DeleteTable | RestoreFile
_ENTRIES: Final[Tagged[Entry]] = Tagged("undo", {"device": DeleteDevice, "table": DeleteTable, "file": RestoreFile})


@message(strict=True)
class JournalRecord:
    """A journal file. ``pid`` and ``started`` (of /proc/PID/stat, in clock ticks since boot) identify its helper."""

    uid: int = field(Integer(0, 1 << 32))
    pid: int = field(Integer(1, 1 << 22))
    started: int = field(Integer(0, 1 << 62))
    entries: tuple[Entry, ...] = field(Many(_ENTRIES, _MAX_ENTRIES))

    def encode(self) -> bytes:
        """Encode the file."""
        return encode({"journal": VERSION, **dump(self)})

    @classmethod
    def parse(cls, data: bytes) -> "JournalRecord":
        """Decode a file. Raises ProtocolError for one that is not ours."""
        return decode(data, "The journal", _record)


def _record(found: dict[str, object]) -> JournalRecord:
    take(found, "journal", Integer(VERSION, VERSION))
    return load(JournalRecord, found)
