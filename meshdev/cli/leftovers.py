"""What dead helpers left behind, and whether a live one is at work: read from the journal, without any right."""

import time
from typing import Final

from meshdev.errors import LaptopError
from meshdev.helper import journal

_LOOK_SECONDS: Final = 0.02


def find(uid: int) -> tuple[str, ...]:
    """What is still there of a helper that died; nothing while one is at work."""
    if not ((journal.FOLDER / f"{uid}.json").exists() or journal.is_ours(journal.RESOLV_CONF)):
        return ()
    from meshdev.helper.restore import leftovers  # noqa: PLC0415 -- 50 ms, only where there may be something

    return tuple(leftovers(uid, journal.FOLDER))


def live_helper(uid: int) -> int | None:
    """The pid of the helper that has changed this machine and not undone it yet."""
    try:
        record = journal.read_record(uid, journal.FOLDER)
    except LaptopError:  # find() tells it
        return None
    return record.pid if record is not None and journal.started(record.pid) == record.started else None


def wait_undone(uid: int, seconds: float) -> bool:
    """Whether no helper is at work within *seconds*. It needs milliseconds once its session is gone."""
    end = time.monotonic() + seconds
    while live_helper(uid) is not None:
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK_SECONDS)  # root's process and root's file: nothing of it can be waited for
    return True
