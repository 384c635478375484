"""Parts of a bug report, collected at the same time, each with a deadline: what fails is named with its reason."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from meshdev.errors import MeshdevError

#: A text, or a value for JSON.
Content = str | Mapping[str, Any] | Sequence[Any]
#: By path in the archive.
Files = Mapping[str, Content]

#: All parts together; the archive is written after that.
SECONDS: Final = 15.0


@dataclass(frozen=True)
class Part:
    """One part. *what* is a phrase for README.txt; *collect* may raise MeshdevError, OSError and ValueError."""

    name: str
    what: str
    collect: Callable[["Reasons"], Awaitable[Files]]


@dataclass
class Reasons:
    """Why something within a part is missing, where the rest of it is there."""

    found: list[str] = field(default_factory=list)

    def note(self, error: MeshdevError) -> None:
        """One of them."""
        if error.message not in self.found:
            self.found.append(error.message)


@dataclass(frozen=True)
class BugReport:
    """What was collected, and by the names of the parts what was not."""

    files: Files
    missing: Mapping[str, tuple[str, ...]]


async def collect(parts: Sequence[Part], seconds: float = SECONDS) -> BugReport:
    """All *parts*; those that take longer are cancelled."""
    reasons = {part.name: Reasons() for part in parts}
    tasks = {part.name: asyncio.ensure_future(_collect(part, reasons[part.name])) for part in parts}
    try:
        await asyncio.wait(tasks.values(), timeout=seconds)
    finally:
        late = {name for name, task in tasks.items() if task.cancel()}
        done = dict(zip(tasks, await asyncio.gather(*tasks.values(), return_exceptions=True), strict=True))
    files: dict[str, Content] = {}
    for name, found in done.items():
        if name in late:
            reasons[name].found.append(f"it took longer than {seconds:g} s")
        elif isinstance(found, BaseException):
            raise found  # an error of ours, of which the user has to know
        else:
            files |= found
    return BugReport(files, {name: tuple(each.found) for name, each in reasons.items() if each.found})


async def _collect(part: Part, reasons: Reasons) -> Files:
    try:
        return await part.collect(reasons)
    except MeshdevError as error:
        reasons.note(error)
    except (OSError, ValueError, KeyError, TypeError) as error:  # of what others wrote: files, programs, objects
        reasons.found.append(f"{type(error).__name__}: {error}")
    return {}
