"""Which of Envoy's statistics exist (each costs memory), and what they mean."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from meshdev.sidecar.envoy import names
from meshdev.wire.agent import PodPort
from meshdev.wire.counts import Counts

K = TypeVar("K")

_PORT: Final = r"(?P<port>[0-9]+)(?P<udp>_udp)?"
_LISTENER: Final = rf"{names.LISTENER}_{_PORT}"
_ROUTE: Final = rf"vhost\.{names.HOST}\.route\.(?P<id>[0-9a-f]+)(?P<fallen>_fallen)?"
_KINDS: Final = {
    "route": rf"{_ROUTE}\.upstream_rq_(?P<what>completed|5xx)",
    "requests": rf"http\.{_LISTENER}\.downstream_rq_(?P<what>active)",
    "bytes": rf"tcp\.{_LISTENER}\.downstream_cx_(?P<what>total)",
    "datagrams": rf"udp\.{_LISTENER}\.downstream_sess_(?P<what>total)",
    "fallback": rf"cluster\.{names.FALLBACK}_{_PORT}_(?P<id>[0-9a-f]+)\.upstream_rq_(?P<what>total)",
    "ends": rf"cluster\.{names.FLOW}_{_PORT}\.upstream_cx_(?P<what>active|connect_fail)",
}
_READ: Final = {kind: re.compile(pattern) for kind, pattern in _KINDS.items()}

#: For the bootstrap: others are not even made.
PATTERNS: Final = [{"safe_regex": {"regex": re.sub(r"\?P<\w+>", "", pattern)}} for pattern in _KINDS.values()]
#: What to ask the admin socket for.
TARGET: Final = "/stats?usedonly"


@dataclass
class Stats:
    """What Envoy counted since it started. ``busy`` is how much is under way now: requests, connections of bytes."""

    intercepts: dict[str, Counts] = field(default_factory=dict)
    flows: dict[PodPort, Counts] = field(default_factory=dict)
    busy: int = 0


def read(text: str) -> Stats:
    """The admin socket's answer to :data:`TARGET`."""
    found = Stats()
    for kind, match, value in _lines(text):
        what = match["what"]
        if what == "active":
            found.busy += value
        elif kind == "route":
            _add(found.intercepts, match["id"], _of_route(what, value, fallen=match["fallen"] is not None))
        elif kind == "fallback":
            _add(found.intercepts, match["id"], Counts(fell_back=value))
        else:
            port = PodPort(int(match["port"]), "udp" if match["udp"] else "tcp")
            _add(found.flows, port, Counts(errors=value) if kind == "ends" else Counts(matched=value))
    return found


def _of_route(what: str, value: int, *, fallen: bool) -> Counts:
    """Requests that fell back were answered by the original; a program's own 5xx is an error, too."""
    if what == "completed":
        return Counts(matched=value, fell_back=value if fallen else 0)
    return Counts() if fallen else Counts(errors=value)


def _lines(text: str) -> Iterator[tuple[str, re.Match[str], int]]:
    for line in text.splitlines():
        name, _, value = line.partition(": ")
        for kind, pattern in _READ.items():
            match = pattern.fullmatch(name)
            if match is not None and value.isdecimal():
                yield kind, match, int(value)


def _add(counts: dict[K, Counts], key: K, more: Counts) -> None:
    counts[key] = counts.get(key, Counts()) + more
