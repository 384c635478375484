"""Reports of pods as messages to the tunnel container. Pure."""

from meshdev.wire.control import encode_body
from meshdev.wire.intercepts import Report
from meshdev.wire.manager import PodReport


def keyed(alias: str, report: Report) -> tuple[str, PodReport]:
    """The message, and what a newer one of the same pod and claim is known by."""
    message = PodReport(alias, report.pod, report.state == "gone", encode_body(report))
    return f"report {alias} {report.pod}", message


def gone(report: Report) -> Report:
    """The last report of that pod."""
    return Report(report.id, report.pod, "gone")
