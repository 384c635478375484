"""Lines in the log that peers can cause as often as they like: one of a kind in 10 s, with the number of others."""

import logging
from typing import Final

from meshdev.pump.loop import Loop, Timer

log = logging.getLogger("meshdev.manager.relay")

#: Between two lines of one kind.
QUIET_SECONDS: Final = 10.0


class Notices:
    """Belongs to the loop's thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._quiet: dict[str, Timer] = {}
        self._more: dict[str, int] = {}
        self._last: dict[str, str] = {}

    def warn(self, kind: str, text: str) -> None:
        """Log it, or count it and log the newest of its kind later."""
        if kind in self._quiet:
            self._more[kind] = self._more.get(kind, 0) + 1
            self._last[kind] = text
            return
        log.warning("%s", text)
        self._quiet[kind] = self._loop.call_later(QUIET_SECONDS, lambda: self._again(kind))

    def close(self) -> None:
        """Log what was counted, and nothing more by itself."""
        for kind in list(self._quiet):
            self._quiet[kind].cancel()
            self._summarize(kind)
        self._quiet.clear()

    def _again(self, kind: str) -> None:
        if self._summarize(kind):
            self._quiet[kind] = self._loop.call_later(QUIET_SECONDS, lambda: self._again(kind))
        else:
            del self._quiet[kind]

    def _summarize(self, kind: str) -> bool:
        more, last = self._more.pop(kind, 0), self._last.pop(kind, "")
        if more:
            log.warning("%s (%d such in %g s)", last, more, QUIET_SECONDS)
        return more > 0
