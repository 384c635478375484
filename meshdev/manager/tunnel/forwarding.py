"""What a session is sent of its intercepts: RELAYS, REPORT, ISSUED. What is no longer kept is not sent either.

So what waits for a session is bounded by what is kept for it, and by the answers to what it asks.
"""

from collections.abc import Iterable

from meshdev.manager.tunnel.held import HeldIntercept
from meshdev.manager.tunnel.session import Session
from meshdev.wire.control import encode
from meshdev.wire.frames import ISSUED, REPORT, frame
from meshdev.wire.intercepts import Relays
from meshdev.wire.manager import PodReport


def send_relays(session: Session, message: Relays) -> None:
    """The answer to INTERCEPT and WITHDRAW."""
    session.send_latest(message.id, encode(message))


def keep_report(session: Session, held: HeldIntercept, report: PodReport) -> None:
    """Keep it, in place of others where there are too many, and send it."""
    for pod in held.reports.put(report):
        session.discard(_key(held, pod))
    forward_report(session, held, report)


def forward_report(session: Session, held: HeldIntercept, report: PodReport) -> None:
    """Send one that is kept."""
    session.send_latest(_key(held, report.pod), frame(REPORT, report.body))


def forward_issued(session: Session, held: HeldIntercept, request: str) -> None:
    """Send what is kept for that request."""
    session.send_latest(_key(held, request), frame(ISSUED, held.issued[request]))


def drop_issued(session: Session, held: HeldIntercept, requests: Iterable[str]) -> None:
    """Neither keep nor send what was issued for them."""
    for request in list(requests):
        if held.issued.pop(request, None) is not None:
            session.discard(_key(held, request))


def drop(session: Session, held: HeldIntercept) -> None:
    """The intercept no longer exists."""
    drop_issued(session, held, held.issued)
    for report in held.reports:
        session.discard(_key(held, report.pod))


def _key(held: HeldIntercept, of: str) -> str:
    return f"{held.id} {of}"
