"""What a killed helper left behind: shown to anyone, undone by root. A running helper is never disturbed."""

from dataclasses import dataclass
from pathlib import Path

from meshdev.errors import AlreadyConnectedError, LaptopError, MeshdevError
from meshdev.helper.device import delete_device, device_exists
from meshdev.helper.firewall import delete_table
from meshdev.helper.journal import FOLDER, RESOLV_CONF, JournalFile, is_ours, read_record, started
from meshdev.helper.resolv_conf import restore_file
from meshdev.host.dns import former_content
from meshdev.host.journal import DeleteDevice, DeleteTable, Entry, RestoreFile
from meshdev.netlink.sock import Netlink


@dataclass(frozen=True, slots=True)
class Restored:
    """``live``: a helper is running, and nothing was done. Otherwise what was undone, and what failed and why."""

    live: bool
    undone: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def restore(uid: int, folder: Path = FOLDER) -> Restored:
    """Undo everything that a killed helper of that user left. Needs root."""
    try:
        journal = JournalFile(uid, folder)
    except AlreadyConnectedError:
        return Restored(live=True)
    try:
        return undo_entries(journal)
    finally:
        journal.close()


def undo_entries(journal: JournalFile) -> Restored:
    """Undo what the journal's last holder left, newest first; what fails is skipped and stays in the journal."""
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
    """Undo one step; does nothing when it is undone already."""
    match entry:
        case DeleteDevice(name, index):
            with Netlink() as netlink:
                delete_device(netlink, name, index)
        case DeleteTable(name):
            delete_table(name)
        case RestoreFile():
            restore_file(entry)


def leftovers(uid: int, folder: Path = FOLDER) -> list[str]:
    """What a killed helper of that user left and still exists, for ``status``. Needs no root."""
    try:
        record = read_record(uid, folder)
    except LaptopError as error:
        return [error.message]
    if record is not None and started(record.pid) == record.started:
        return []
    entries = (*(record.entries if record is not None else ()), *_forgotten(folder))
    return [str(entry) for entry in entries if is_there(entry)]


def _forgotten(folder: Path) -> list[RestoreFile]:
    """A resolv.conf of ours in no journal: the machine lost power, and with it /run."""
    if not is_ours(RESOLV_CONF):
        return []
    for path in folder.glob("*.json"):
        try:
            record = read_record(int(path.stem), folder)
        except LaptopError:  # it may be in that one; its user will see the error
            return []
        if record is not None and any(isinstance(entry, RestoreFile) for entry in record.entries):
            return []
    return [RestoreFile(str(RESOLV_CONF.resolve()), former_content(RESOLV_CONF.read_bytes()))]


def is_there(entry: Entry) -> bool:
    """Whether the step's effect still exists; True for what only root can see."""
    match entry:
        case DeleteDevice(name, index):
            return device_exists(name, index)
        case RestoreFile(path, _):
            return is_ours(Path(path))
        case DeleteTable():
            return True
