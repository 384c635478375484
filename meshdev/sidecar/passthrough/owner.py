"""What the owner of a client's connection does for its :class:`~meshdev.sidecar.passthrough.switch.Switch`. Pure."""

from typing import Final, Literal, Protocol

from meshdev.sidecar.passthrough.heads import Reason
from meshdev.sidecar.passthrough.http1 import RequestHead

Side = Literal["client", "app", "envoy"]

#: Envoy is gone, and the request with it: it may have been carried out, so it must not be retried.
ENVOY_LOST: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"content-type: text/plain\r\nmeshdev-answer: connection-lost\r\n"  # sidecar.envoy.answers
    b"connection: close\r\ncontent-length: 61\r\n\r\n"
    b"meshdev: the sidecar's Envoy ended while it had this request\n"
)


class ClaimPolicy(Protocol):
    """What is claimed of a port, now."""

    @property
    def http2(self) -> bool:
        """Whether connections of HTTP/2 are for Envoy."""

    @property
    def draining(self) -> bool:
        """Whether the app is about to end: nobody would accept another connection."""

    @property
    def watched(self) -> bool:
        """Whether somebody wants to know of its requests."""

    def claims(self, head: RequestHead) -> bool:
        """Whether this request is for Envoy."""


class ConnectionOwner(Protocol):
    """Who has the sockets. What is sent is sent in order, whenever the other side takes it."""

    def dial_app(self) -> None:
        """Begin to connect; bytes may be sent at once."""

    def dial_envoy(self) -> bool:
        """Connect; False where nobody listens."""

    def send(self, side: Side, data: bytes) -> None:
        """Send bytes, at least one."""

    def finish(self, side: Side) -> None:
        """Send the end of the stream behind all that was sent; that side may go on to send."""

    def drop(self, side: Side) -> None:
        """Close the connection to app or Envoy; what was not sent is not needed."""

    def abort(self) -> None:
        """Reset all of it, once the client has what was sent to it."""

    def raw(self, reason: Reason) -> None:
        """Count a connection that is followed no further."""
