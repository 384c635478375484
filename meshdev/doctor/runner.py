"""Run all checks at once, each within its own time; what one of them raises is its own finding."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from meshdev.doctor.verdicts.finding import Examined, Finding, failed, skipped
from meshdev.errors import MeshdevError

T = TypeVar("T")

#: Time for one check, in seconds; most take milliseconds.
CHECK_SECONDS: Final = 4.0
#: How often unfinished checks are reported.
_REPORT_SECONDS: Final = 1.0


class NotExaminedError(Exception):
    """What a check needs is not there; the message is why."""


class Fact(Generic[T]):
    """Something that several checks need, found once, by whoever asks first. Belongs to one event loop."""

    def __init__(
        self,
        what: str,
        find: Callable[[], Awaitable[T]],
        seconds: float = CHECK_SECONDS,
        *,
        needs: Sequence["Fact[Any]"] = (),
        hint: str | None = None,
    ) -> None:
        """*what* is said of checks that need it where it cannot be found.

        *seconds* limit the search once the *needs* are there; *hint* is the way out where they do not suffice.
        """
        self._what = what
        self._find = find
        self._needs = needs
        self._seconds = seconds
        self._hint = hint
        self._lock = asyncio.Lock()
        self._found: T | None = None
        self._error: Exception | None = None
        self._done = False

    async def get(self) -> T:
        """It; raises what kept it from being found, each time."""
        async with self._lock:
            if not self._done:
                try:
                    for need in self._needs:
                        await need.needed()
                    async with asyncio.timeout(self._seconds):
                        self._found = await self._find()
                except TimeoutError:
                    self._error = MeshdevError(f"no answer within {self._seconds:g} seconds", hint=self._hint)
                except (MeshdevError, NotExaminedError) as error:
                    self._error = error
                self._done = True
        if self._error is not None:
            raise self._error
        return self._found  # type: ignore[return-value]  # found, as there was no error; T may include None

    async def needed(self) -> T:
        """It; raises NotExaminedError where it could not be found, which another check reports."""
        try:
            return await self.get()
        except MeshdevError:
            raise NotExaminedError(self._what) from None


@dataclass(frozen=True)
class DoctorCheck:
    """One check. *seconds* begin when the *needs* are there; without one of these it is skipped.

    What it *uses* is waited for as well, and it is made without.
    """

    name: str
    group: str
    look: Callable[[], Awaitable[Finding]]
    needs: Sequence[Fact[Any]] = ()
    uses: Sequence[Fact[Any]] = ()
    seconds: float = CHECK_SECONDS


async def examine(checks: Sequence[DoctorCheck], waiting: Callable[[str], None]) -> tuple[Examined, ...]:
    """The findings, in the order of *checks*; *waiting* is told now and then which ones are not finished.

    A thread that hangs in the kernel or in a resolver is left behind: its check fails, and the process can exit.
    """
    asyncio.get_running_loop().set_default_executor(_DaemonThreads())
    tasks: dict[str, asyncio.Task[Finding]] = {}
    async with asyncio.TaskGroup() as group:
        for check in checks:
            tasks[check.name] = group.create_task(_finding(check))
        while True:
            _, pending = await asyncio.wait(tasks.values(), timeout=_REPORT_SECONDS)
            if not pending:
                break
            waiting(", ".join(name for name, task in tasks.items() if task in pending))
    return tuple(Examined(check.name, check.group, tasks[check.name].result()) for check in checks)


async def _finding(check: DoctorCheck) -> Finding:
    try:
        for need in check.needs:
            await need.needed()
        for used in check.uses:
            with suppress(MeshdevError, NotExaminedError):
                await used.get()
        async with asyncio.timeout(check.seconds):
            return await check.look()
    except NotExaminedError as reason:
        return skipped(str(reason))
    except TimeoutError:
        return failed(f"no answer within {check.seconds:g} seconds")
    except MeshdevError as error:
        return failed(error.message, error.hint)
    except Exception as error:  # noqa: BLE001 -- one check: it says so, the others go on
        return failed(
            f"internal error: {type(error).__name__}: {error}", "please report it, with what `meshdev version` prints"
        )


class _DaemonThreads(ThreadPoolExecutor):
    """A thread for each call, which neither the event loop nor the interpreter waits for at its end.

    ``asyncio.to_thread`` and ``getaddrinfo`` use it; asyncio takes no other class than ThreadPoolExecutor.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:  # noqa: ANN401 -- Executor's
        """Call *fn* in a thread of its own."""
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 -- whoever waits for it gets it
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=call, daemon=True, name="doctor").start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing is waited for."""
