"""What waits for one client of the event stream: bounded, however slowly it reads."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, cast

#: Requests that wait for one client: then the oldest make room, and are counted.
MAX_WAITING: Final = 50


class FeedEvent(NamedTuple):
    """One event: ``state``, ``history`` or ``requests``, with its JSON object. Neither is changed afterwards."""

    name: str
    data: Mapping[str, object]


class ClientEvents:
    """Events by name: a newer one takes the place of one that still waits; requests are joined."""

    def __init__(self) -> None:
        self._waiting: dict[str, Mapping[str, object]] = {}
        self._filled = asyncio.Event()

    def put(self, event: FeedEvent) -> None:
        """Keep it until it is taken."""
        former = self._waiting.get(event.name)
        joined = event.data if former is None or event.name != "requests" else _joined(former, event.data)
        self._waiting[event.name] = joined
        self._filled.set()

    async def take(self) -> list[FeedEvent]:
        """Wait for events, and take all that there are."""
        await self._filled.wait()
        self._filled.clear()
        found = [FeedEvent(name, data) for name, data in self._waiting.items()]
        self._waiting.clear()
        return found


def _joined(former: Mapping[str, object], newer: Mapping[str, object]) -> Mapping[str, object]:
    both = [*_requests(former), *_requests(newer)]
    surplus = max(0, len(both) - MAX_WAITING)
    return {"requests": both[surplus:], "skipped": _skipped(former) + _skipped(newer) + surplus}


def _requests(data: Mapping[str, object]) -> Sequence[object]:
    return cast("Sequence[object]", data["requests"])


def _skipped(data: Mapping[str, object]) -> int:
    return cast("int", data["skipped"])
