"""Spans and logs of all claims, by OTLP, where control's environment has OpenTelemetry's standard variables.

What makes and sends them (meshdev.telemetry.exporting) is loaded only then.
"""

import logging
from collections.abc import Mapping
from typing import Final

from meshdev.errors import LaptopError, UsageError
from meshdev.manager.control.pods import HeldClaim
from meshdev.telemetry import endpoint
from meshdev.telemetry.endpoint import OtlpEndpoints
from meshdev.telemetry.exports import RequestExports
from meshdev.wire.access import AccessRecord
from meshdev.wire.session_inspect import InspectedRequest

log = logging.getLogger("meshdev.manager.control")

NOWHERE: Final = OtlpEndpoints(None, None)


def endpoints(environ: Mapping[str, str]) -> OtlpEndpoints:
    """Where to send; nowhere where a variable is wrong, which the log says: intercepts go on without."""
    try:
        return endpoint.from_environment(environ)
    except UsageError as error:
        log.error("nothing is sent by OTLP: %s; %s", error.message, error.hint)  # noqa: TRY400 -- the sentence says it
        return NOWHERE


def opened(where: OtlpEndpoints) -> RequestExports | None:
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
