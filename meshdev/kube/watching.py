"""List, then watch: the state of a selection of objects as it changes, until the iterator is closed."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, TypeVar

from meshdev.errors import ClusterError, MeshdevError, UnreachableError
from meshdev.kube.client import KubeApi, Object
from meshdev.kube.errors import ConflictError, GoneError, NotFoundError

T = TypeVar("T")
U = TypeVar("U")

_PAGE: Final = 500
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
#: A watch that ends sooner was not ended by its timeout; what is in between may do so again and again.
_SHORT_WATCH: Final = 1.0

State = Mapping[str, T]


def as_is(item: Object) -> Object:
    """For *project*: the whole object."""
    return item


class ReasonReporter:
    """Reports why something is waited for, each time that changes; :attr:`reason` is the last one."""

    def __init__(self, progress: Callable[[str], None], first: str) -> None:
        """*first* holds as long as nothing else is known, and is not reported."""
        self._progress = progress
        self.reason = first

    def report(self, reason: str) -> None:
        """It waits for this now."""
        if reason != self.reason:
            self.reason = reason
            self._progress(reason)

    def trouble(self, error: MeshdevError) -> None:
        """For :func:`follow`."""
        self.report(error.message)


async def listed(
    api: KubeApi, path: str, query: Mapping[str, str], project: Callable[[Object], T]
) -> tuple[dict[str, T], str]:
    """*project* of each object by uid, and the resource version of the list. Read in pages: memory stays bounded."""
    found: dict[str, T] = {}
    more = ""
    while True:
        page = await api.get(path, {**query, "limit": str(_PAGE), **({"continue": more} if more else {})})
        for item in page.get("items") or []:
            found[item["metadata"]["uid"]] = project(item)
        more = page["metadata"].get("continue") or ""
        if not more:
            return found, page["metadata"]["resourceVersion"]


async def follow(
    api: KubeApi,
    path: str,
    query: Mapping[str, str],
    project: Callable[[Object], T],
    trouble: Callable[[MeshdevError], None] = lambda _: None,
) -> AsyncGenerator[State[T]]:
    """The whole state, by uid, after the list and after each change; the mapping is live, so copy what must last.

    Never ends by itself: a broken connection or a server that forgot the version is reported to *trouble* and tried
    again with growing pauses. ForbiddenError and what else waiting does not cure is raised.
    """
    pause = _FIRST_PAUSE
    state: dict[str, T] = {}
    version = ""
    while True:
        started = time.monotonic()
        try:
            if not version:
                state, version = await listed(api, path, query, project)
                yield state
            async with aclosing(api.watch(path, query, version)) as events:
                async for kind, item in events:
                    pause = _FIRST_PAUSE
                    version = item["metadata"]["resourceVersion"]
                    if _apply(state, kind, item, project):
                        yield state
        except (UnreachableError, GoneError, ClusterError) as error:
            if isinstance(error, NotFoundError | ConflictError):
                raise
            version = ""  # what happened meanwhile is unknown
            trouble(error)
        else:
            if time.monotonic() - started > _SHORT_WATCH:
                continue
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _apply(state: dict[str, T], kind: str, item: Object, project: Callable[[Object], T]) -> bool:
    """Whether the event changed anything."""
    uid = item["metadata"].get("uid", "")
    if kind in {"ADDED", "MODIFIED"}:
        new = project(item)
        changed = uid not in state or state[uid] != new
        state[uid] = new
        return changed
    return kind == "DELETED" and state.pop(uid, None) is not None


async def switched(source: AsyncGenerator[T], make: Callable[[T], AsyncGenerator[U]]) -> AsyncGenerator[U]:
    """What the generator that *make* makes of the newest value of *source* yields; the one before is closed.

    Ends with *source*; what either raises is raised. Close it to end both.
    """
    inner: AsyncGenerator[U] | None = None
    newest: asyncio.Future[T] = asyncio.ensure_future(anext(source))
    coming: asyncio.Future[U] | None = None
    try:
        while True:
            await asyncio.wait([each for each in (newest, coming) if each], return_when=asyncio.FIRST_COMPLETED)
            if newest.done():
                try:
                    value = newest.result()
                except StopAsyncIteration:
                    return
                await _ended(inner, coming)
                inner = make(value)
                coming, newest = asyncio.ensure_future(anext(inner)), asyncio.ensure_future(anext(source))
            elif coming is not None and inner is not None:
                try:
                    item = coming.result()
                except StopAsyncIteration:
                    coming = None
                    continue
                yield item
                coming = asyncio.ensure_future(anext(inner))
    finally:
        await _ended(inner, coming)
        await _ended(source, newest)


async def _ended(source: AsyncGenerator[Any] | None, coming: asyncio.Future[Any] | None) -> None:
    if coming is not None:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
    if source is not None:
        await source.aclose()


async def merged(*sources: AsyncGenerator[Any]) -> AsyncGenerator[tuple[int, Any]]:
    """What the *sources* yield as it comes, with the index of the source; ends when all have ended."""
    pending = {asyncio.ensure_future(anext(source)): index for index, source in enumerate(sources)}
    try:
        while pending:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                index = pending.pop(future)
                try:
                    value = future.result()
                except StopAsyncIteration:
                    continue
                yield index, value
                pending[asyncio.ensure_future(anext(sources[index]))] = index
    finally:
        for future in pending:
            future.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for source in sources:
            await source.aclose()


async def united(*sources: AsyncGenerator[T]) -> AsyncGenerator[tuple[T, ...]]:
    """The latest of each source, once all have one, and again when one of them changes."""
    known: dict[int, T] = {}
    async with aclosing(merged(*sources)) as changes:
        async for source, found in changes:
            if source in known and known[source] == found:
                continue
            known[source] = found
            if len(known) == len(sources):
                yield tuple(known[index] for index in range(len(sources)))
