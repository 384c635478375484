"""The manager's certificate, as control announced it last, for all sessions: they vouch for it to agents.

It stays while control restarts, which keeps its key; a new one comes with a new pod alone.
"""

from collections.abc import Callable, Iterable

from meshdev.manager.tunnel.session import Session
from meshdev.wire.control import INTERCEPT_PROTOCOL, ManagerIdentity, encode


class Introduction:
    """Nothing is sent before control has announced itself, and nothing to sessions of an older protocol."""

    def __init__(self, sessions: Callable[[], Iterable[Session]]) -> None:
        self._sessions = sessions
        self._identity: ManagerIdentity | None = None

    def announce(self, identity: ManagerIdentity) -> None:
        """Control's certificate is this one: send it to every session that does not have it yet."""
        if identity != self._identity:
            self._identity = identity
            for session in list(self._sessions()):
                self.introduce(session)

    def introduce(self, session: Session) -> None:
        """Send it to a session that has joined or has lost the carrier it came by."""
        if self._identity is not None and session.version >= INTERCEPT_PROTOCOL:
            session.send_latest("identity", encode(self._identity))
