"""Which of Envoy's statistics exist (each costs memory), and what they mean."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, TypeVar

from meshdev.sidecar.envoy import names
from meshdev.wire.agent import PodPort
from meshdev.wire.counts import DURATIONS, Counts, Traffic

K = TypeVar("K")
V = TypeVar("V", Counts, Traffic)

_PORT: Final = r"(?P<port>[0-9]+)(?P<udp>_udp)?"
_LISTENER: Final = rf"{names.LISTENER}_{_PORT}"
_ROUTE: Final = rf"vhost\.{names.HOST}\.route\.(?P<id>[0-9a-f]+)(?P<fallen>_fallen)?"
_OF_INTERCEPT: Final = f"{names.LAPTOP}|{names.FALLBACK}"
_BYTES: Final = "rx_bytes_total|tx_bytes_total"
_KINDS: Final = {
    "route": rf"{_ROUTE}\.upstream_rq_(?P<what>completed|5xx)",
    "requests": rf"http\.{_LISTENER}\.downstream_rq_(?P<what>active)",
    "bytes": rf"tcp\.{_LISTENER}\.downstream_cx_(?P<what>total)",
    "datagrams": rf"udp\.{_LISTENER}\.downstream_sess_(?P<what>total)",
    "fallback": rf"cluster\.{names.FALLBACK}_{_PORT}_(?P<id>[0-9a-f]+)\.upstream_rq_(?P<what>total)",
    "time": rf"{_ROUTE}\.upstream_rq_(?P<what>time)",
    "carried": rf"cluster\.(?:{_OF_INTERCEPT})_{_PORT}_(?P<id>[0-9a-f]+)\.upstream_cx_(?P<what>{_BYTES})",
    "flown": rf"cluster\.{names.FLOW}_{_PORT}\.upstream_cx_(?P<what>{_BYTES})",
    "ends": rf"cluster\.{names.FLOW}_{_PORT}\.upstream_cx_(?P<what>active|connect_fail)",
}
_READ: Final = {kind: re.compile(pattern) for kind, pattern in _KINDS.items()}

#: For the bootstrap: others are not even made.
PATTERNS: Final = [{"safe_regex": {"regex": re.sub(r"\?P<\w+>", "", pattern)}} for pattern in _KINDS.values()]
#: Also for the bootstrap. Envoy counts below a bound what is equal to it, too, and cuts fractions of milliseconds off:
#: what took less than 5 ms took at most 4 by its clock. From 100 ms on it joins ten of them, which are below a bound as
#: the last one before it is.
BUCKETS: Final = [{"match": {"suffix": ".upstream_rq_time"}, "buckets": [bound - 0.5 for bound in DURATIONS]}]
#: What to ask the admin socket for.
TARGET: Final = "/stats?usedonly"
#: And for durations, whose sums and numbers it has in this form only.
TIMES: Final = "/stats?format=prometheus&usedonly&filter=upstream_rq_time%24"

_TIME: Final = re.compile(
    r"envoy_vhost_route_upstream_rq_time_(?P<what>bucket|sum)\{[^}]*envoy_route=\"(?P<id>[0-9a-f]+)(?:_fallen)?\""
    r"(?:,le=\"(?P<bound>[0-9.]+|\+Inf)\")?\} (?P<value>[0-9.]+)"
)
_PLACES: Final = {f"{bound - 0.5:g}": place for place, bound in enumerate(DURATIONS)} | {"+Inf": len(DURATIONS)}


@dataclass
class Stats:
    """What Envoy counted since it started. ``busy`` is how much is under way now: requests, connections of bytes."""

    intercepts: dict[str, Counts] = field(default_factory=dict)
    flows: dict[PodPort, Counts] = field(default_factory=dict)
    traffic: dict[str, Traffic] = field(default_factory=dict)
    flow_traffic: dict[PodPort, Traffic] = field(default_factory=dict)
    busy: int = 0

    def newest_traffic(self, most: int) -> list[tuple[str, Traffic]]:
        """Of at most so many intercepts. Bytes are counted by clusters, which end with their intercepts: durations are
        not, so those that have nothing else come last."""
        return sorted(self.traffic.items(), key=_has_bytes_then_id)[:most]


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
        elif kind == "carried":
            _add(found.traffic, match["id"], _carried(what, value))
        else:
            port = PodPort(int(match["port"]), "udp" if match["udp"] else "tcp")
            if kind == "flown":
                _add(found.flow_traffic, port, _carried(what, value))
            else:
                _add(found.flows, port, Counts(errors=value) if kind == "ends" else Counts(matched=value))
    return found


def read_times(text: str, found: Stats) -> None:
    """Add what the admin socket answers to :data:`TIMES`; it may be a moment older or newer."""
    below: dict[str, list[int]] = {}
    for match in _TIME.finditer(text):
        value = float(match["value"])
        if match["what"] == "sum":
            _add(found.traffic, match["id"], Traffic(milliseconds=round(value)))
        elif (place := _PLACES.get(match["bound"] or "")) is not None:
            below.setdefault(match["id"], [0] * len(_PLACES))[place] += int(value)
    for id_, counts in below.items():
        _add(found.traffic, id_, Traffic(durations=tuple(max(0, now - lower) for lower, now in pairwise((0, *counts)))))


def _of_route(what: str, value: int, *, fallen: bool) -> Counts:
    """Requests that fell back were answered by the original; a program's own 5xx is an error, too."""
    if what == "completed":
        return Counts(matched=value, fell_back=value if fallen else 0)
    return Counts() if fallen else Counts(errors=value)


def _has_bytes_then_id(item: tuple[str, Traffic]) -> tuple[bool, str]:
    id_, traffic = item
    return not (traffic.request_bytes or traffic.response_bytes), id_


def _carried(what: str, value: int) -> Traffic:
    """Envoy sends requests, and receives responses."""
    return Traffic(request_bytes=value) if what.startswith("tx") else Traffic(response_bytes=value)


def _lines(text: str) -> Iterator[tuple[str, re.Match[str], int]]:
    for line in text.splitlines():
        name, _, value = line.partition(": ")
        for kind, pattern in _READ.items():
            match = pattern.fullmatch(name)
            if match is not None and value.isdecimal():
                yield kind, match, int(value)


def _add(counts: dict[K, V], key: K, more: V) -> None:
    before = counts.get(key)
    counts[key] = more if before is None else before + more
