"""A small epoll loop for the packet path.

asyncio costs about as much per event as a whole packet does here, so the packet path has its own loop: callbacks on
descriptors, timers, and :meth:`Loop.post` as the only entry point for other threads.
"""

import heapq
import itertools
import os
import select
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

READABLE: Final = select.EPOLLIN
WRITABLE: Final = select.EPOLLOUT

#: One read of a stream. At least a TLS record (16 KiB), so that OpenSSL never keeps bytes that epoll cannot see.
READ_BYTES: Final = 256 * 1024

Clock = Callable[[], float]


@dataclass(order=True)
class Timer:
    """A callback that is due at ``when`` (seconds of the loop's clock)."""

    when: float
    order: int
    callback: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        """Make sure the callback does not run; after it ran this does nothing."""
        self.cancelled = True
        self.callback = _nothing  # frees what it references now, not when the timer would have been due


def _nothing() -> None: ...


class Loop:
    """Runs callbacks of descriptors and timers in the thread that called :meth:`run`.

    Everything but :meth:`post` and :meth:`stop` belongs to that thread. An exception of a callback ends :meth:`run`:
    callbacks handle expected errors, all others are bugs that must surface.

    Callbacks may be called spuriously; they must tolerate BlockingIOError.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self.scratch = memoryview(bytearray(READ_BYTES))
        """A read buffer for any callback; its content is valid until the callback returns."""
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._registered: set[int] = set()  # in this round
        self._timers: list[Timer] = []
        self._order = itertools.count()
        self._posted: deque[Callable[[], None]] = deque()
        self._running = True
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.register(self._wake, READABLE, self._on_wake)

    def register(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call *callback* with the ready events of *fd*, level-triggered."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback
        self._registered.add(fd)

    def modify(self, fd: int, events: int) -> None:
        """Change the events of *fd* to wait for."""
        self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Stop watching *fd*, before it is closed."""
        del self._callbacks[fd]
        self._epoll.unregister(fd)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Run *callback* once, *seconds* from now."""
        timer = Timer(self.clock() + seconds, next(self._order), callback)
        heapq.heappush(self._timers, timer)
        return timer

    def post(self, callback: Callable[[], None]) -> None:
        """From any thread: run *callback* in the loop's thread, :meth:`close` at the latest. Dropped after that."""
        self._posted.append(callback)
        self._signal()

    def stop(self) -> None:
        """From any thread or a signal handler: let :meth:`run` return after this round."""
        self._running = False
        self._signal()

    def run(self) -> None:
        """Run until :meth:`stop`."""
        poll, callbacks, registered = self._epoll.poll, self._callbacks, self._registered
        while self._running:
            registered.clear()
            for fd, events in poll(self._timeout()):
                # An earlier callback of this round may have unregistered the descriptor, and closed it; another may
                # have registered its number anew, and the error that was reported is not the new one's (epoll(7)).
                if (callback := callbacks.get(fd)) and fd not in registered:
                    callback(events)
            self._run_timers()

    def close(self) -> None:
        """Run what was posted too late for :meth:`run`, then close the loop's own descriptors.

        Call it once :meth:`run` has returned and nothing is posted any more. Registered descriptors stay open; they
        belong to their owners.
        """
        if self._wake >= 0:
            self._run_posted()
            self._epoll.close()
            wake, self._wake = self._wake, -1
            os.close(wake)

    def _signal(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _timeout(self) -> float:
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0].when - self.clock()) if self._timers else -1

    def _run_timers(self) -> None:
        now = self.clock()
        while self._timers and (self._timers[0].cancelled or self._timers[0].when <= now):
            timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                timer.callback()

    def _on_wake(self, _events: int) -> None:
        os.eventfd_read(self._wake)
        self._run_posted()

    def _run_posted(self) -> None:
        while self._posted:
            self._posted.popleft()()
