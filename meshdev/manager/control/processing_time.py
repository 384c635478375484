"""How long control is busy with what sidecars send: so much of each second for one pod, and for all of them.

Control is one process for everybody. Whoever makes it read or compute much waits, and the routes of others do not.
Pure.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from meshdev.rate import TokenBucket

#: Seconds of each second, for records. 500 of them take 0.04; of a pod with 20,000 requests a second most are only
#: counted: 0.1.
SHARE_OF_POD: Final = 0.15
SHARE_OF_ALL: Final = 0.4
#: The same for reading what agents send: an honest one's takes a thousandth.
READING_OF_POD: Final = 0.05
READING_OF_ALL: Final = 1.0
#: Pods that are remembered: those that used more than their share are, in any case.
_REMEMBERED: Final = 512


class ProcessingTime:
    """*clock* is in seconds, *spent* the processor time that this thread has used, in seconds. *of_pod* and *of_all*
    are seconds of each second, and at once."""

    def __init__(self, clock: Callable[[], float], spent: Callable[[], float], of_pod: float, of_all: float) -> None:
        self._clock = clock
        self._spent = spent
        self._of_pod = of_pod
        self._all = TokenBucket(of_all, of_all, clock())
        self._pods: dict[str, TokenBucket] = {}

    @contextmanager
    def of(self, key: str) -> Iterator[None]:
        """What the block takes is for that pod."""
        began = self._spent()
        try:
            yield
        finally:
            seconds, now = self._spent() - began, self._clock()
            self._all.delay(now, seconds)
            self._pod(key, now).delay(now, seconds)

    def wait(self, key: str) -> float:
        """After so many seconds something may be done for that pod."""
        now = self._clock()
        return max(self._all.delay(now, 0), self._pod(key, now).delay(now, 0))

    def _pod(self, key: str, now: float) -> TokenBucket:
        if key not in self._pods and len(self._pods) >= _REMEMBERED:
            self._pods = {each: bucket for each, bucket in self._pods.items() if bucket.delay(now, 0)}
        return self._pods.setdefault(key, TokenBucket(self._of_pod, self._of_pod, now))
