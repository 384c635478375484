"""What a client's connection needs of the worker that it belongs to."""

from typing import TYPE_CHECKING, Protocol

from meshdev.pump.loop import Loop
from meshdev.sidecar.passthrough.heads import Reason
from meshdev.sidecar.worker.dialling import AppDialler
from meshdev.sidecar.worker.recorder import Recorder

if TYPE_CHECKING:
    from meshdev.sidecar.worker.connection import ClientConnection


class ConnectionRegistry(Protocol):
    """What the connections of a worker share."""

    @property
    def loop(self) -> Loop:
        """Their loop."""

    @property
    def piece(self) -> memoryview:
        """Where each of them reads, and how much at a time: kept where the other side does not take it."""

    @property
    def dialler(self) -> AppDialler:
        """What connects to the app."""

    @property
    def recorder(self) -> Recorder:
        """Who is told of requests, while somebody watches."""

    def raw(self, reason: Reason) -> None:
        """Count a connection that is followed no further."""

    def held(self, connection: "ClientConnection", size: int, heads: int) -> None:
        """So many bytes of that connection are held back now, behind so many heads that were complete."""

    def without_envoy(self) -> None:
        """Count a claim that goes to the app, since Envoy is not there."""

    def failed(self) -> None:
        """Count a connection that ends by an internal error."""

    def closed(self, connection: "ClientConnection") -> None:
        """The connection is over."""
