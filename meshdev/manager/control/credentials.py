"""Control's TLS: its certificate, and whom a handshake lets through (docs/design/0023, "Control's TLS").

gRPC asks for the configuration at each connection, on a thread of its own. What is answered is parsed once more, which
takes 57 ms with 1,024 anchors, and stays in memory as long as a connection that began with it, 2.3 MiB: so it is
answered only when somebody new is among them, those who are connected are not, and sets come the slower the larger they
are. An agent that control does not know to have lost its connection waits until keepalive finds that out (15 s).
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import grpc

from meshdev.identity.authority import Authority
from meshdev.identity.keys import KeyPair
from meshdev.identity.tls import pem
from meshdev.manager.control.certificates import Later
from meshdev.manager.control.rest import wait_for_rest

log = logging.getLogger(__name__)

#: What clients find in control's certificate.
SERVER_NAME: Final = "control.meshdev"
#: After so long it is given the next set whatever its other threads do (meshdev.manager.control.rest), in seconds.
_REST_SECONDS: Final = 1.0
#: Time between two sets, in seconds: at least, and for each anchor of the former one.
_PAUSE_SECONDS: Final = 0.02
_PAUSE_SECONDS_EACH: Final = 0.001


class TrustedPeers:
    """Server credentials that follow *trust_anchors* (by key, in DER). Belongs to one event loop."""

    def __init__(
        self, authority: Authority, trust_anchors: Callable[[], Mapping[str, bytes]], later: Later, now: datetime
    ) -> None:
        pair = KeyPair.generate()
        certificate = authority.issue_server(pair.request(), SERVER_NAME, now=now)
        self._shown = ((pair.private_pem, pem(certificate).encode()),)
        self._authority = pem(authority.certificate).encode()
        self._trust_anchors = trust_anchors
        self._later = later
        self._anchors = frozenset(trust_anchors().values())
        self._waits = self._changed = False
        self._next: deque[Any] = deque(maxlen=1)
        self.credentials = grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._fetch, require_client_authentication=True
        )

    def follow(self) -> None:
        """There may be other anchors."""
        self._changed = True
        if not self._waits:
            self._look()

    def _look(self) -> None:
        self._waits = False
        if not self._changed:
            return
        self._changed = False
        anchors = frozenset(self._trust_anchors().values())
        # Who is not needed any more completes a handshake until then, and no stream: that is for a session's word.
        if anchors <= self._anchors:
            return
        pause = _PAUSE_SECONDS + _PAUSE_SECONDS_EACH * max(len(anchors), len(self._anchors))
        self._anchors = anchors
        self._next.append(self._configuration())
        self._waits = True
        self._later(pause, self._look)

    def _configuration(self) -> Any:  # noqa: ANN401 -- gRPC has no types
        roots = self._authority + b"".join(sorted(pem(anchor).encode() for anchor in self._anchors))
        return grpc.ssl_server_certificate_configuration(self._shown, root_certificates=roots)

    def _fetch(self) -> Any:  # noqa: ANN401 -- gRPC has no types
        """Called on a thread of gRPC's, one at a time. None: the configuration stays."""
        if not self._next:
            return None
        if not wait_for_rest(_REST_SECONDS):
            log.warning("other trust anchors come while handshakes are busy")
        return self._next.popleft()
