"""Waiting in tests: for something to happen, with a deadline; never for time to pass."""

import asyncio
from collections.abc import Callable
from typing import Final

from tests.loops import DEADLINE_SECONDS

_LOOK_SECONDS: Final = 0.005


async def until(condition: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until *condition* holds, on an event loop; what is waited for lives outside of it."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 -- there is no event: that is why this is used
            await asyncio.sleep(_LOOK_SECONDS)
