"""Which of the requests that were seen somebody wants to see. Pure."""

from meshdev.wire.session_inspect import InspectedRequest, RequestFilter


def is_wanted(wanted: RequestFilter, found: InspectedRequest) -> bool:
    """Whether the request is one of those. A request without an answer has no status."""
    record = found.record
    return (
        (not wanted.methods or record.method in wanted.methods)
        and (not wanted.paths or record.path.startswith(wanted.paths))
        and (not wanted.statuses or any(first <= record.status <= last for first, last in wanted.statuses))
        and (not wanted.served_by or record.served_by in wanted.served_by)
        and (not wanted.clients or found.workload in wanted.clients or str(record.source) in wanted.clients)
    )
