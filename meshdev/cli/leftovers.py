"""What dead helpers left behind, and whether a helper is running: read from the journal, without privileges."""

import time
from typing import Final

from meshdev.errors import LaptopError
from meshdev.helper import journal

_LOOK_SECONDS: Final = 0.02


def find(uid: int) -> tuple[str, ...]:
    """What a helper that died has left; nothing while one is running."""
    if not ((journal.FOLDER / f"{uid}.json").exists() or journal.is_ours(journal.RESOLV_CONF)):
        return ()
    from meshdev.helper.restore import leftovers  # noqa: PLC0415 -- 50 ms, only where there may be something

    return tuple(leftovers(uid, journal.FOLDER))


def live_helper(uid: int) -> int | None:
    """The pid of the helper that has changed this machine and not undone it yet."""
    try:
        record = journal.read_record(uid, journal.FOLDER)
    except LaptopError:  # find() reports it
        return None
    return record.pid if record is not None and journal.started(record.pid) == record.started else None


def wait_undone(uid: int, seconds: float) -> bool:
    """Wait until no helper is running; False after *seconds*. It takes milliseconds once its session is gone."""
    end = time.monotonic() + seconds
    while live_helper(uid) is not None:
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK_SECONDS)  # root's process and root's file: there is no event to wait for
    return True
