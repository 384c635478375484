"""Access records: what a sidecar tells of a request, while somebody watches.

::

    control → agent     {"watch": {"all": true, "values": false}}
    agent   → control   {"records": {"records": [{…}], "dropped": 3}}          what the passthrough worker saw
                        (the agent passes both on, to its worker and from it)
    Envoy   → control   its access log (envoy.service.accesslog.v3), of what it carried
    control → session   {"id": …, "pod": "b-1", "records": [{…}], "dropped": 3}

A record is made once, by whoever carried the request: Envoy where it was claimed or is HTTP/2, the passthrough worker
otherwise. Values of credentials are masked by whoever makes it (meshdev.observe.masking).
"""

import re
from ipaddress import IPv4Address
from typing import Final, Literal

from meshdev.wire.codecs import FLAG, PORT, Choice, Integer, InvalidValueError, Many, Nullable, Parsed
from meshdev.wire.counts import COUNT
from meshdev.wire.message import field, message, nested
from meshdev.wire.objects import IPV4, ForPeople, for_people

#: As clients and servers say it; "tcp" for bytes that are none of the others.
AccessProtocol = Literal["HTTP/1.0", "HTTP/1.1", "HTTP/2", "gRPC", "tcp"]
#: Who answered: the local program; the app, because nobody claimed the request; the app, because the local program
#: could not be reached; the sidecar itself, with an error.
ServedBy = Literal["laptop", "original", "fallback", "meshdev"]

ACCESS_PROTOCOLS: Final[tuple[AccessProtocol, ...]] = ("HTTP/1.0", "HTTP/1.1", "HTTP/2", "gRPC", "tcp")
SERVED_BY: Final[tuple[ServedBy, ...]] = ("laptop", "original", "fallback", "meshdev")

#: Characters of a record's texts, of ASCII. Escaped, and once more as a text within JSON, a record has at most 5 KiB.
MAX_METHOD: Final = 32
MAX_AUTHORITY: Final = 255
MAX_PATH: Final = 512
MAX_REASON: Final = 200
MAX_HOLDER: Final = 128
_MAX_ID: Final = 32
#: Records in one message: they fit a frame or a datagram of 64 KiB.
MAX_RECORDS: Final = 12
#: A watch that is not renewed within this time ends by itself, wherever it is known, in seconds.
WATCH_SECONDS: Final = 10.0
#: Records of one pod a second: what is more is counted.
RECORDS_PER_SECOND: Final = 500
#: Microseconds.
_MAX_TIME: Final = 1 << 53
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
#: The W3C's parent-id: all zeros are no id.
_SPAN_ID: Final = re.compile(r"(?!0{16})[0-9a-f]{16}")
_INTERCEPT: Final = re.compile(r"[0-9A-Za-z_-]{1,32}", re.ASCII)


def _trace_id(text: str) -> str:
    if _TRACE_ID.fullmatch(text) is None:
        raise ValueError("not 32 hexadecimal digits")
    return text


def _span_id(text: str) -> str:
    if _SPAN_ID.fullmatch(text) is None:
        raise ValueError("not 16 hexadecimal digits, or only zeros")
    return text


def _intercept(text: str) -> str:
    if _INTERCEPT.fullmatch(text) is None:
        raise ValueError("not the id of an intercept")
    return text


class _Ascii(ForPeople):
    """A line of ASCII: other letters, which HTTP has in no head, are replaced when it is sent."""

    def load(self, value: object) -> str:
        if not isinstance(value, str) or not value.isascii():
            raise InvalidValueError
        return super().load(value)

    def dump(self, value: str) -> object:
        return for_people(value.encode("ascii", "replace").decode(), self.limit)


@message(slots=True)
class AccessRecord:
    """One request, or one connection of bytes, once it is over.

    ``time`` is when it began, in microseconds since 1970 by the pod's clock, and ``duration`` goes until its last byte,
    in microseconds. ``source`` is the client's address, ``port`` the pod's. ``status`` is 0 where there was no answer,
    and for bytes. ``intercept`` is the id of the claim that took it, and ``reason`` why it went where it went: which
    condition did not hold, or why the local program was not reached; empty where there is nothing to explain.
    ``holder`` has the intercept; only the manager knows.

    Where the intercept is traced, the request is the span ``span_id`` of the trace ``trace_id``; what served it got
    both in its traceparent. ``parent_span_id`` is the span that the client sent, None where it sent no valid
    traceparent. ``sampled`` is the client's flag, or true where the trace begins here. All others have none of them.
    """

    time: int = field(Integer(0, _MAX_TIME))
    source: IPv4Address = field(IPV4)
    port: int = field(PORT)
    protocol: AccessProtocol = field(Choice(ACCESS_PROTOCOLS))
    served_by: ServedBy = field(Choice(SERVED_BY))
    duration: int = field(COUNT)
    method: str = field(_Ascii(MAX_METHOD), default="", sparse=True)
    authority: str = field(_Ascii(MAX_AUTHORITY), default="", sparse=True)
    path: str = field(_Ascii(MAX_PATH), default="", sparse=True)
    status: int = field(Integer(0, 999), default=0, sparse=True)
    request_bytes: int = field(COUNT, default=0, sparse=True)
    response_bytes: int = field(COUNT, default=0, sparse=True)
    intercept: str | None = field(Nullable(Parsed(_intercept, _MAX_ID)), default=None, sparse=True)
    reason: str = field(_Ascii(MAX_REASON), default="", sparse=True)
    trace_id: str | None = field(Nullable(Parsed(_trace_id)), default=None, sparse=True)
    holder: str = field(_Ascii(MAX_HOLDER), default="", sparse=True)
    span_id: str | None = field(Nullable(Parsed(_span_id)), default=None, sparse=True)
    parent_span_id: str | None = field(Nullable(Parsed(_span_id)), default=None, sparse=True)
    sampled: bool = field(FLAG, default=False, sparse=True)


@message()
class Watch:
    """What is to be recorded; with neither, nothing. ``all``: also requests that nobody claimed. ``values``: values of
    credentials are not masked in requests of the watcher's own intercepts."""

    on: bool = field(FLAG, default=False)
    all: bool = field(FLAG, default=False, sparse=True)
    values: bool = field(FLAG, default=False, sparse=True)


@message()
class AccessRecords:
    """Records in the order in which their requests ended, and how many more there were since the last message."""

    records: tuple[AccessRecord, ...] = field(Many(nested(AccessRecord), MAX_RECORDS))
    dropped: int = field(COUNT, default=0, sparse=True)
