"""The agent's log: where it is attested and with which certificate, and among it everything else that is logged."""

import asyncio
import logging
import sys
from typing import Final, TextIO

from meshdev.wire.attestation import AgentAnnouncement

#: Log rotation takes the announcement away (the kubelet reads the newest file only): it is repeated after so many
#: characters of other lines, and after so many seconds where there were any. The kubelet rotates at 10 MiB by default,
#: and looks every 10 s (KubeletConfiguration: containerLogMaxSize, containerLogMonitorInterval).
REPEAT_CHARACTERS: Final = 64 << 10
REPEAT_SECONDS: Final = 60.0


class SingleLines(logging.Formatter):
    """Whatever is logged, each line begins with a date or a blank: no message can look like the announcement."""

    def format(self, record: logging.LogRecord) -> str:
        """As the base class does; further lines are indented."""
        return "\n  ".join(super().format(record).splitlines())


class AnnouncingHandler(logging.StreamHandler[TextIO]):
    """Logs to *stream*, and repeats the announcement among what is logged."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._announcement: AgentAnnouncement | None = None
        self._written = 0

    def announce(self, announcement: AgentAnnouncement | None = None) -> None:
        """Write the announcement; without one the last again, where something was logged since."""
        self.acquire()
        try:
            if announcement is not None:
                self._announcement = announcement
            if self._announcement is not None and (announcement is not None or self._written):
                self._written = 0
                self.stream.write(f"{self._announcement}\n")
                self.flush()
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        super().emit(record)
        self._written += len(record.getMessage()) + 1
        if self._written > REPEAT_CHARACTERS:
            self.announce()


async def repeat(handler: AnnouncingHandler) -> None:
    """Until cancelled: the announcement again and again, where something was logged since."""
    while True:
        await asyncio.sleep(REPEAT_SECONDS)
        handler.announce()


def logging_to(stream: TextIO = sys.stdout) -> AnnouncingHandler:
    """Log everything to *stream*, and nowhere else."""
    handler = AnnouncingHandler(stream)
    handler.setFormatter(SingleLines("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    return handler
