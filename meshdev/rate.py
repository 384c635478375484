"""How often something may happen: a token bucket. Pure."""


class TokenBucket:
    """*burst* times at once, and then *per_second*. *now* is in seconds and never goes back."""

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._since = now

    def take(self, now: float, times: int = 1) -> bool:
        """Count so many *times* more; False, and nothing counted, where that is too many."""
        self._fill(now)
        if self._tokens < times:
            return False
        self._tokens -= times
        return True

    def delay(self, now: float, times: float = 1) -> float:
        """Count so many *times* more in any case; after so many seconds it may happen."""
        self._fill(now)
        self._tokens -= times
        return max(0.0, -self._tokens / self._per_second)

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + self._per_second * (now - self._since))
        self._since = now
