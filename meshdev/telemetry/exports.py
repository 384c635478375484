"""What control and sessions need of :class:`meshdev.telemetry.exporting.Telemetry`, without loading it."""

from typing import Protocol

from meshdev.telemetry.signals import SignalState
from meshdev.wire.session_inspect import InspectedRequest


class RequestExports(Protocol):
    """Takes requests, and sends what is made of them."""

    @property
    def states(self) -> tuple[SignalState, ...]:
        """How each signal fares."""

    def request(self, found: InspectedRequest) -> None:
        """A request is over. It waits for nobody."""

    def missed(self, count: int) -> None:
        """So many more there were, which were not recorded."""

    async def close(self) -> None:
        """Send what waits, not for long, and end."""
