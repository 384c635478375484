"""What is not as it should be, and since when; begin and end of each go to the log."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

log = logging.getLogger(__name__)

Source = Literal["helper", "networks", "routes", "names", "cluster"]

#: A trouble is over when it was not found so many times in a row: what comes and goes is not whole in between.
_TIMES: Final = 2


@dataclass(slots=True)
class _Trouble:
    since: datetime
    missed: int = 0


class Troubles:
    """Sentences by who found them. *clock* is the time of day for people."""

    def __init__(self, clock: Callable[[], datetime] = datetime.now) -> None:
        self._clock = clock
        self._known: dict[Source, dict[str, _Trouble]] = {}

    def found(self, source: Source, texts: Iterable[str]) -> tuple[list[str], list[str]]:
        """What *source* finds wrong now, all of it; those sentences that are new, and those that are over."""
        known, texts = self._known.setdefault(source, {}), tuple(texts)
        new = [text for text in dict.fromkeys(texts) if text not in known]
        for text in new:
            known[text] = _Trouble(self._clock())
        for text, trouble in known.items():
            trouble.missed = 0 if text in texts else trouble.missed + 1
        over = [text for text, trouble in known.items() if trouble.missed >= _TIMES]
        for text in over:
            del known[text]
        return new, over

    def report(self, source: Source, texts: Iterable[str]) -> None:
        """As :meth:`found`, and what is new or over goes to the log."""
        new, over = self.found(source, texts)
        for text in new:
            log.warning("%s", text)
        for text in over:
            log.info("no longer: %s", text)

    def forget(self, source: Source) -> None:
        """*source* cannot know."""
        self._known.pop(source, None)

    def __bool__(self) -> bool:
        return any(self._known.values())

    def sources(self) -> tuple[Source, ...]:
        """Who found each of :meth:`notes`."""
        return tuple(source for source, known in self._known.items() for _ in known)

    def notes(self) -> tuple[str, ...]:
        """A sentence each, with since when."""
        return tuple(
            f"{text} (since {trouble.since:%H:%M:%S})"
            for known in self._known.values()
            for text, trouble in known.items()
        )
