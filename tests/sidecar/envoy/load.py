"""Clients that ask all the time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.sidecar.envoy.test_claimed import ask
from tests.sidecar.pod import Pod
from tests.waiting import until

_PAUSE: Final = 0.005


class Load:
    """Four clients, about 200 requests each second together: to the laptop and to the original, each once on a
    connection that is kept, and once on new ones."""

    def __init__(self, app: Pod) -> None:
        self.answers: Counter[tuple[str, str]] = Counter()
        self._app = app
        self._stop = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            for header in ("1", "2"):
                tasks.create_task(self._kept(header))
                tasks.create_task(self._fresh(header))
            yield
            self._stop = True

    async def more(self, count: int) -> None:
        """Wait until so many more were answered."""
        wanted = self.answers.total() + count
        await until(lambda: self.answers.total() >= wanted)

    async def _fresh(self, header: str) -> None:
        while not self._stop:
            self.answers["fresh", await self._app.get(a=header)] += 1
            await asyncio.sleep(_PAUSE)

    async def _kept(self, header: str) -> None:
        reader, writer = await self._app.connect()
        while not self._stop:
            answer = await ask(reader, writer, f"GET / HTTP/1.1\r\nHost: b\r\nA: {header}\r\n\r\n".encode())
            self.answers["kept", answer.decode()] += 1
            await asyncio.sleep(_PAUSE)
        writer.close()
