"""What is not as it should be, and since when. Pure but for the clock that is given."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Literal

Source = Literal["helper", "routes", "names", "cluster"]


class Troubles:
    """Sentences by who found them. *clock* tells the time of day for people."""

    def __init__(self, clock: Callable[[], datetime] = datetime.now) -> None:
        self._clock = clock
        self._since: dict[Source, dict[str, datetime]] = {}

    def found(self, source: Source, texts: Iterable[str]) -> tuple[list[str], list[str]]:
        """What *source* finds wrong now, all of it; those sentences that are new, and those that are over."""
        before = self._since.get(source, {})
        now = {text: before.get(text) or self._clock() for text in texts}
        self._since[source] = now
        return [text for text in now if text not in before], [text for text in before if text not in now]

    def __bool__(self) -> bool:
        return any(self._since.values())

    def notes(self) -> tuple[str, ...]:
        """A sentence each, with since when."""
        return tuple(
            f"{text} (since {since:%H:%M:%S})" for texts in self._since.values() for text, since in texts.items()
        )
