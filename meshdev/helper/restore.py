"""What a killed helper left: told to anyone, undone by root. A live helper is never touched."""

import socket
from dataclasses import dataclass
from pathlib import Path

from meshdev.errors import AlreadyConnectedError, LaptopError, MeshdevError
from meshdev.helper.device import delete_device
from meshdev.helper.firewall import delete_table
from meshdev.helper.journal import FOLDER, RESOLV_CONF, Journal, is_ours, read_record, started
from meshdev.helper.resolv_conf import restore_file
from meshdev.host.dns import former_content
from meshdev.host.journal import DeleteDevice, DeleteTable, Entry, RestoreFile
from meshdev.netlink.sock import Netlink


@dataclass(frozen=True, slots=True)
class Restored:
    """``live``: a helper is at work, nothing was done. Otherwise what was undone, and what failed and why."""

    live: bool
    undone: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def restore(uid: int, folder: Path = FOLDER) -> Restored:
    """Undo all that a dead helper of that user left. Needs root."""
    try:
        journal = Journal(uid, folder)
    except AlreadyConnectedError:
        return Restored(live=True)
    try:
        return undo_entries(journal)
    finally:
        journal.close()


def undo_entries(journal: Journal) -> Restored:
    """Undo what the journal's last holder left, newest first; one failure stops nothing and stays in the journal."""
    undone: list[str] = []
    failed: list[str] = []
    for entry in (*reversed(journal.found), *_forgotten(journal.folder)):
        there = is_there(entry)
        try:
            undo(entry)
        except (MeshdevError, OSError) as error:
            failed.append(f"{entry}: {error}")
        else:
            journal.remove(entry)
            if there:
                undone.append(str(entry))
    return Restored(False, tuple(undone), tuple(failed))


def undo(entry: Entry) -> None:
    """Undo one step; nothing when it is undone already."""
    match entry:
        case DeleteDevice(name, index):
            with Netlink() as netlink:
                delete_device(netlink, name, index)
        case DeleteTable(name):
            delete_table(name)
        case RestoreFile():
            restore_file(entry)


def leftovers(uid: int, folder: Path = FOLDER) -> list[str]:
    """What a dead helper of that user left and is still there, for ``status``. Needs no root."""
    try:
        record = read_record(uid, folder)
    except LaptopError as error:
        return [error.message]
    if record is not None and started(record.pid) == record.started:
        return []
    entries = (*(record.entries if record is not None else ()), *_forgotten(folder))
    return [str(entry) for entry in entries if is_there(entry)]


def _forgotten(folder: Path) -> list[RestoreFile]:
    """A resolv.conf of ours that no journal knows: the machine went off meanwhile, and its /run is empty since."""
    if not is_ours(RESOLV_CONF):
        return []
    for path in folder.glob("*.json"):
        try:
            record = read_record(int(path.stem), folder)
        except LaptopError:  # it may be that one's; its user is told when looking
            return []
        if record is not None and any(isinstance(entry, RestoreFile) for entry in record.entries):
            return []
    return [RestoreFile(str(RESOLV_CONF.resolve()), former_content(RESOLV_CONF.read_bytes()))]


def is_there(entry: Entry) -> bool:
    """True while the step's effect can be seen; for what only root can see, True."""
    match entry:
        case DeleteDevice(name, index):
            try:
                return socket.if_nametoindex(name) == index
            except OSError:
                return False
        case RestoreFile(path, _):
            return is_ours(Path(path))
        case DeleteTable():
            return True
