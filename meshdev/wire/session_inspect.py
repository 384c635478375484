"""Requests that pods got, between the commands and the session.

``inspect`` is a stream on the session API::

    CLI → session   {"op": "inspect", …InspectRequest…}                     one line
    session → CLI   {"event": "requests", "requests": [{…}], "dropped": 0}  any number; without "follow" one;
                                                                            with "last" no more than 4 a second
                    {"event": "note", …}                                    what cannot be shown, and why
                    {"event": "error", …}                                   the last: it has ended

End of file from the client ends it; nothing is recorded for it any more.
"""

import re
from typing import Final, NamedTuple

from meshdev.wire.access import SERVED_BY, AccessRecord, ServedBy
from meshdev.wire.codecs import FLAG, Choice, Integer, Many, Nullable, Parsed, Text
from meshdev.wire.counts import COUNT
from meshdev.wire.message import field, message, nested

#: Requests in one event: with their longest texts one has 6 KB.
MAX_REQUESTS: Final = 128

_TYPED: Final = Text(4096)
_NAMESPACE: Final = Text(253)
_NAME: Final = Text(253)
#: Values of one condition of a filter.
_MAX_VALUES: Final = 32
_STATUS: Final = re.compile(r"([1-9][0-9][0-9])|([1-9])xx", re.ASCII)


class Statuses(NamedTuple):
    """Status codes from *first* to *last*, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first // 100}xx"


def parse_statuses(text: str) -> Statuses:
    """Of ``404`` or ``5xx``. Raises ValueError."""
    found = _STATUS.fullmatch(text)
    if found is None:
        raise ValueError("not a status code such as 404, or a class such as 5xx")
    first, last = (found[1], found[1]) if found[1] else (f"{found[2]}00", f"{found[2]}99")
    return Statuses(int(first), int(last))


@message(strict=True, kw_only=True)
class RequestFilter:
    """What a request has to be: one of each of these that is not empty."""

    methods: tuple[str, ...] = field(Many(_NAME, _MAX_VALUES), default=(), sparse=True)
    paths: tuple[str, ...] = field(Many(_TYPED, _MAX_VALUES), default=(), sparse=True)
    """What its path begins with."""
    statuses: tuple[Statuses, ...] = field(Many(Parsed(parse_statuses), _MAX_VALUES), default=(), sparse=True)
    served_by: tuple[ServedBy, ...] = field(Many(Choice(SERVED_BY), _MAX_VALUES), default=(), sparse=True)
    clients: tuple[str, ...] = field(Many(_TYPED, _MAX_VALUES), default=(), sparse=True)
    """Workloads (``deployment/a``) or addresses."""


@message(strict=True, kw_only=True)
class InspectRequest:
    """Asks for requests that the pods of this session's intercepts get.

    Without *follow* it is those that are remembered; with it also what comes from now on.
    """

    target: str | None = field(Nullable(_TYPED), default=None)
    """As typed; None: all intercepts."""
    namespace: str | None = field(Nullable(_NAMESPACE), default=None)
    """The target's; None: the connection's, or, without a target, every one."""
    follow: bool = field(FLAG, default=False)
    all: bool = field(FLAG, default=False)
    """Also what nobody claimed, or others did."""
    values: bool = field(FLAG, default=False)
    """Values of credentials are shown in requests that these intercepts took."""
    last: int | None = field(Nullable(Integer(1, MAX_REQUESTS)), default=None, sparse=True)
    """Only the last so many, a few times a second; the others count as dropped."""
    filter: RequestFilter = field(nested(RequestFilter), default=RequestFilter(), sparse=True)


@message()
class InspectedRequest:
    """One request. *workload* is the client's (``deployment/a``), where its address is that of a known pod."""

    namespace: str = field(_NAMESPACE)
    target: str = field(_TYPED)
    pod: str = field(_NAME)
    record: AccessRecord = field(nested(AccessRecord))
    workload: str | None = field(Nullable(_TYPED), default=None)

    def as_json(self) -> dict[str, object]:
        """What ``inspect -o json`` prints: keys that scripts rely on."""
        record = self.record
        return {
            "time": record.time / 1e6,
            "namespace": self.namespace,
            "target": self.target,
            "pod": self.pod,
            "source": {"address": str(record.source), "workload": self.workload},
            "protocol": record.protocol,
            "method": record.method or None,
            "authority": record.authority or None,
            "path": record.path or None,
            "status": record.status or None,
            "duration_ms": record.duration / 1000,
            "request_bytes": record.request_bytes,
            "response_bytes": record.response_bytes,
            "intercept": record.intercept,
            "holder": record.holder or None,
            "served_by": record.served_by,
            "reason": record.reason or None,
            "trace_id": record.trace_id,
        }


@message()
class Requests:
    """Requests in the order in which they came here, and how many more there were that could not be kept."""

    requests: tuple[InspectedRequest, ...] = field(Many(nested(InspectedRequest), MAX_REQUESTS))
    dropped: int = field(COUNT, default=0)
