"""Certificates of workloads: for each agent that a session names, on its request, and a new one at half of its life.

Sessions report who the workload is, each for its own claims: no certificate has what another session reported. What the
request itself asks for does not count.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from meshdev.identity.authority import Authority
from meshdev.intercept.spec import Workload

#: Between two looks for what is to be renewed: this part of a certificate's life, at least.
_PAUSE: Final = 0.01
#: And so long at most: timers do not notice that the clock was set.
_LONGEST_PAUSE: Final = timedelta(minutes=1)
#: One that is to be issued later than this from now is issued anew: the clock was put back. It may be by less than what
#: certificates are dated back by.
_MOST_BACK: Final = timedelta(minutes=1)

Later = Callable[[float, Callable[[], None]], object]


def identity_path(workload: Workload, uid: str) -> str:
    """The path of a SPIFFE id: a pod of the workload."""
    return f"ns/{workload.namespace}/{workload.kind}/{workload.name}/pod/{uid}"


@dataclass(frozen=True)
class _Certificate:
    der: bytes
    issued_at: datetime
    renew_at: datetime

    def is_fresh(self, now: datetime) -> bool:
        return self.issued_at - _MOST_BACK <= now < self.renew_at


class Certificates:
    """By key and path. *now* is the time of day; *again* is called with a key when :meth:`current` has a new one."""

    def __init__(
        self,
        authority: Authority,
        lifetime: timedelta,
        now: Callable[[], datetime],
        later: Later,
        again: Callable[[str], None],
    ) -> None:
        self.authority = authority
        self._lifetime = lifetime
        self._now = now
        self._later = later
        self._again = again
        self._issued: dict[str, dict[str, _Certificate]] = {}
        self._replaced: set[str] = set()
        """Keys for which :attr:`_again` is to be called: a certificate took another one's place, or is due."""
        self._looks = False

    def current(self, key: str, request: bytes, path: str) -> bytes:
        """The certificate (DER) of a key, which signed *request*, with that path; it is kept until :meth:`keep`.

        Raises ProtocolError for a path that no workload has.
        """
        now, mine = self._now(), self._issued.get(key, {})
        found = mine.get(path)
        if found is None or not found.is_fresh(now):
            der = self.authority.issue_workload(request, path, now=now, lifetime=self._lifetime)
            if found is not None and key not in self._replaced:  # whoever asked is one of those who need it
                self._replaced.add(key)
                self._later(0, self._tell)
            found = _Certificate(der, now, now + self._lifetime / 2)
            self._issued[key] = {**mine, path: found}
            self._look_later()
        return found.der

    def keep(self, key: str, paths: AbstractSet[str]) -> None:
        """Keep the certificates of that key for *paths* alone."""
        kept = {path: one for path, one in self._issued.pop(key, {}).items() if path in paths}
        if kept:
            self._issued[key] = kept

    def _look_later(self) -> None:
        if self._issued and not self._looks:
            self._looks = True
            first = min(one.renew_at for paths in self._issued.values() for one in paths.values())
            pause = min(max(first - self._now(), self._lifetime * _PAUSE), _LONGEST_PAUSE)
            self._later(pause.total_seconds(), self._look)

    def _look(self) -> None:
        self._looks, now = False, self._now()
        issued = self._issued.items()
        self._replaced |= {key for key, paths in issued if not all(one.is_fresh(now) for one in paths.values())}
        self._tell()
        self._look_later()

    def _tell(self) -> None:
        for key in self._replaced & self._issued.keys():
            self._again(key)
        self._replaced.clear()
