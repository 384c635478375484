"""Certificates for what Envoys show: on an agent's request, as long as it has an edge; a new one at half of their life.

Who the workload is say the sessions with an edge; what the request itself asks for does not count.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.identity.authority import Authority
from meshdev.identity.keys import key_id
from meshdev.intercept.spec import Workload
from meshdev.wire.agent import IssuedCertificate

log = logging.getLogger(__name__)

#: Time between two certificates of one key, in seconds, whatever its agent asks for: one takes 0.4 ms.
PAUSE_SECONDS: Final = 1.0

Later = Callable[[float, Callable[[], None]], object]


def identity_path(workload: Workload, uid: str) -> str:
    """The path of a SPIFFE id: a pod of the workload."""
    return f"ns/{workload.namespace}/{workload.kind}/{workload.name}/pod/{uid}"


@dataclass
class _Requested:
    request: bytes
    path: str = ""
    issued: IssuedCertificate | None = None
    renew_at: datetime | None = None
    pause_until: datetime | None = None


class Certificates:
    """By key. *now* is the time of day, *again* is called with a key when :meth:`current` has something new for it."""

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
        self._requested: dict[str, _Requested] = {}

    def request(self, key: str, request: bytes) -> None:
        """The agent of *key* asks for a certificate by that request."""
        mine = self._requested.setdefault(key, _Requested(request))
        if mine.request != request:
            mine.request, mine.issued, mine.renew_at = request, None, None

    def forget(self, key: str) -> None:
        """The agent is gone."""
        self._requested.pop(key, None)

    def identity(self, key: str) -> str:
        """The SPIFFE id in the certificate that the agent has; empty where it has none."""
        mine = self._requested.get(key)
        return self.authority.identity(mine.path) if mine is not None and mine.issued is not None else ""

    def current(self, key: str, paths: Sequence[str]) -> IssuedCertificate | None:
        """The certificate that the agent shall have, which sessions know by *paths*, oldest first.

        None where it did not ask for one, or asked for that of another key. Without paths it has what it had.
        """
        mine = self._requested.get(key)
        if mine is None:
            return None
        now = self._now()
        if not paths or (mine.path in paths and mine.renew_at is not None and now < mine.renew_at):
            return mine.issued
        if mine.pause_until is not None and now < mine.pause_until:
            self._look_again(key, mine.pause_until - now)
            return mine.issued
        mine.pause_until = now + timedelta(seconds=PAUSE_SECONDS)
        mine.path, mine.renew_at = paths[0], now + self._lifetime / 2
        mine.issued = self._issue(key, mine.request, mine.path, now)
        self._look_again(key, self._lifetime / 2)
        return mine.issued

    def _issue(self, key: str, request: bytes, path: str, now: datetime) -> IssuedCertificate | None:
        try:
            certificate = self.authority.issue_workload(request, path, now=now, lifetime=self._lifetime)
            if key_id(certificate) != key:
                raise ProtocolError("the request is for another key than the stream's")  # noqa: TRY301 -- logged alike
        except ProtocolError as error:
            log.warning("an agent gets no certificate as %s: %s", path, error.message)
            return None
        return IssuedCertificate(certificate, self.authority.certificate)

    def _look_again(self, key: str, after: timedelta) -> None:
        self._later(after.total_seconds(), lambda: self._again(key))
