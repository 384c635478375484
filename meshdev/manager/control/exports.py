"""Spans and logs of all claims, by OTLP, where control's environment has OpenTelemetry's standard variables.

What makes and sends them (meshdev.telemetry.exporting) is loaded only then.
"""

import logging
from collections.abc import Mapping
from typing import Final, Protocol

from meshdev.errors import LaptopError, UsageError
from meshdev.manager.control.pods import HeldClaim
from meshdev.telemetry import endpoint
from meshdev.telemetry.endpoint import OtlpEndpoints
from meshdev.telemetry.signals import SignalState
from meshdev.wire.access import AccessRecord
from meshdev.wire.session_inspect import InspectedRequest

log = logging.getLogger("meshdev.manager.control")

NOWHERE: Final = OtlpEndpoints(None, None)


class ClaimExports(Protocol):
    """What is needed of :class:`meshdev.telemetry.exporting.Telemetry`."""

    @property
    def states(self) -> tuple[SignalState, ...]:
        """How each signal fares."""

    def request(self, found: InspectedRequest) -> None:
        """A request is over. It waits for nobody."""

    def missed(self, count: int) -> None:
        """So many more there were, which were not recorded."""

    async def close(self) -> None:
        """Send what waits, not for long, and end."""


def endpoints(environ: Mapping[str, str]) -> OtlpEndpoints:
    """Where to send; nowhere where a variable is wrong, which the log says: intercepts go on without."""
    try:
        return endpoint.from_environment(environ)
    except UsageError as error:
        log.error("nothing is sent by OTLP: %s; %s", error.message, error.hint)  # noqa: TRY400 -- the sentence says it
        return NOWHERE


def opened(where: OtlpEndpoints) -> ClaimExports | None:
    """What sends to these; None for nowhere, or where that cannot be, which the log says."""
    if not where.all():
        return None
    from meshdev.telemetry.exporting import Telemetry  # noqa: PLC0415 -- 2 to 4 MB more, where nobody wants it

    try:
        made = Telemetry(where)
    except LaptopError as error:
        log.error("nothing is sent by OTLP: %s", error.message)  # noqa: TRY400 -- the same
        return None
    log.info("requests of all claims are sent to %s", ", ".join(map(str, where.all())))
    return made


def request(held: HeldClaim, record: AccessRecord) -> InspectedRequest:
    """A request that the claim took."""
    workload = held.claim.spec.workload
    return InspectedRequest(workload.namespace, str(workload), held.pod, record)
