"""Access records on their way from the passthrough worker to control: as many as a slow manager may be behind with.

What is more is lost, and counted: neither the worker nor its connections wait for the manager. Pure.
"""

from collections import deque
from dataclasses import replace
from typing import Final

from meshdev.wire.access import AccessRecords

#: Messages of the worker that wait: two seconds of them, 54 KB each where texts are as long as they may be.
MAX_MESSAGES: Final = 80


class RecordQueue:
    """In the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[AccessRecords] = deque()
        self._dropped = 0

    def put(self, records: AccessRecords) -> None:
        """Keep them, or count them."""
        if len(self._waiting) < MAX_MESSAGES:
            self._waiting.append(records)
        else:
            self._dropped += len(records.records) + records.dropped

    def take(self) -> AccessRecords | None:
        """The first message, with how many were lost here; None where there is nothing to tell."""
        if not self._waiting and not self._dropped:
            return None
        found = self._waiting.popleft() if self._waiting else AccessRecords(())
        lost, self._dropped = self._dropped, 0
        return replace(found, dropped=found.dropped + lost)

    def clear(self) -> None:
        """Nobody wants to know any more."""
        self._waiting.clear()
        self._dropped = 0
