"""The container *relay* as the container *control* sees it: it makes a key of its own, and asks for a certificate."""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from meshdev.identity.authority import Authority
from meshdev.manager.control.link import ContainerLink
from meshdev.manager.outbox import Outbox
from meshdev.sidecar.envoy.tls import RELAY_NAME
from meshdev.wire import relay
from meshdev.wire.relay import MAX_DATAGRAM, RelayIdentity, ToRelay

log = logging.getLogger(__name__)

#: The other container's socket: what is /run/meshdev there is a folder of its own here.
RELAY_SOCKET: Final = Path("/run/relay/relay.sock")


class RelayClient(ContainerLink[ToRelay]):
    """*snapshot* is sent to a relay that has connected, and the certificate that it asks for."""

    def __init__(
        self,
        path: Path,
        authority: Authority,
        now: Callable[[], datetime],
        snapshot: Callable[[], Iterable[tuple[str, ToRelay]]],
    ) -> None:
        super().__init__("relay", path, MAX_DATAGRAM)
        self._authority = authority
        self._now = now
        self._snapshot = snapshot

    def begin(self) -> Outbox[ToRelay]:
        """See :class:`ContainerLink`."""
        return Outbox(self._snapshot())

    def receive(self, datagram: bytes) -> None:
        """See :class:`ContainerLink`."""
        request = relay.decode_from_relay(datagram)
        certificate = self._authority.issue_server(request.csr, RELAY_NAME, now=self._now())
        self.send_latest("identity", RelayIdentity(certificate, self._authority.certificate))

    def encode(self, message: ToRelay) -> bytes:
        """See :class:`ContainerLink`."""
        return relay.encode(message)
