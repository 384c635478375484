"""Examples of whatever a codec allows, made from its own description, and values just beyond its limits."""

import dataclasses
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from typing import Any, Final

from hypothesis import reject
from hypothesis import strategies as st

from meshdev.config import ADDRESS_POOLS
from meshdev.host import journal
from meshdev.wire import agent, intercepts, objects, session_api
from meshdev.wire.codecs import Choice, Codec, Flag, Integer, Many, Nullable, Number, Pairs, Parsed, Text
from meshdev.wire.message import SCHEMAS, Schema, Tagged
from meshdev.wire.modes import MODES
from meshdev.wire.session_inspect import parse_statuses
from meshdev.wire.values import ListenAddress

Strategy = st.SearchStrategy[Any]

_hex = "0123456789abcdef"
_addresses: Strategy = st.ip_addresses(v=4, network="192.0.2.0/24") | st.ip_addresses(v=6, network="2001:db8::/32")
_label = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)
_ports = st.builds(agent.PodPort, st.integers(1, 65535), st.sampled_from(("tcp", "udp")))


def _networks(network: str, shortest: int) -> Strategy:
    addresses = st.ip_addresses(v=4, network=network)
    return st.builds(lambda *pair: IPv4Network(pair, strict=False), addresses, st.integers(shortest, 32))


#: What the functions that read texts understand, by module and name.
PARSED: Final[dict[str, Strategy]] = {
    "values.address": _addresses,
    "values.session_address": st.sampled_from(ADDRESS_POOLS).flatmap(
        lambda pool: st.integers(1, pool.num_addresses - 2).map(lambda number: pool[number])
    ),
    "values.route": _networks("16.0.0.0/5", 8),
    "values.local_address": st.ip_addresses(v=4, network="127.0.0.0/8")
    | st.ip_addresses(v=4, network="192.168.0.0/16"),
    "values.listen_address": st.builds(
        ListenAddress, st.ip_addresses(v=4, network="127.0.0.0/8"), st.integers(1, 65535)
    ),
    "values.name": st.just(".") | st.lists(_label, min_size=1, max_size=5).map(".".join),
    "values.interface": st.from_regex(r"[a-z0-9_-]{1,15}", fullmatch=True),
    "values.absolute_path": st.text(st.characters(exclude_characters="\0"), max_size=20).map("/".__add__),
    "ipaddress.IPv4Address": st.ip_addresses(v=4),
    "ipaddress.IPv4Network": _networks("0.0.0.0/0", 0),
    "objects._identity": st.text(_hex, min_size=32, max_size=32),
    "objects._digest": st.text(_hex, min_size=64, max_size=64),
    "agent.pod_port": _ports,
    "agent.tcp_port": st.builds(agent.PodPort, st.integers(1, 65535)),
    "agent._folder": st.from_regex(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,5}){1,8}", fullmatch=True),
    "agent._relay": st.integers(intercepts.RELAY.low, intercepts.RELAY.high),
    "agent._intercept": st.text(_hex, max_size=32),
    "session_inspect.parse_statuses": st.from_regex(r"[1-9][0-9][0-9]|[1-9]xx", fullmatch=True).map(parse_statuses),
    "modes.mode": st.sampled_from(tuple(MODES.values())),
    "intercepts._port": _ports.map(str),
    "intercepts._pod": st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True),
    "intercepts._uid": st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True),
    "access._trace_id": st.text(_hex, min_size=32, max_size=32),
    "access._span_id": st.text(_hex, min_size=16, max_size=16).filter(lambda text: text != "0" * 16),
    "access._intercept": st.from_regex(r"[0-9A-Za-z_-]{1,32}", fullmatch=True).filter(str.isascii),
    "project_api.part_name": st.text(min_size=1, max_size=20),
    "counts._reason": st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True),
    "lease._port": st.builds("{}/{}".format, st.integers(1, 65535), st.sampled_from(("tcp", "udp"))),
    "journal._own_table": st.integers(0, 1 << 32).map(journal.table_name),
}
#: Values of codecs that one message has for itself.
SPECIAL: Final[dict[str, Strategy]] = {
    "_Dns": st.none() | st.deferred(lambda: messages(SCHEMAS[session_api.DnsStatus])),
    "_Listening": st.dictionaries(_ports, st.integers(1, 65535), max_size=4),
    "_Base64": st.binary(max_size=100),
    "Der": st.binary(min_size=1, max_size=100),
    "KeyIds": st.frozensets(st.text(_hex, min_size=64, max_size=64), max_size=4),
    "_Body": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50).map(str.encode),
}


def allowed(codec: Codec[Any]) -> Strategy:  # noqa: C901, PLR0911 -- one case for each codec
    """Values that *codec* allows."""
    match codec:
        case Flag():
            return st.booleans()
        case Integer(low=low, high=high):
            return st.integers(low, high) | st.sampled_from((low, high))
        case Number(low=low, high=high, digits=digits):
            return st.floats(low, high).map(lambda number: number if digits is None else round(number, digits))
        case objects.ForPeople():
            return st.text(max_size=50).map(codec.dump)
        case objects.Line(limit=limit):
            return st.text(st.characters(exclude_categories=["C", "Z"]), max_size=min(limit, 50))
        case Text(limit=limit):
            return st.text(st.characters(exclude_characters="\0"), max_size=min(limit, 50))
        case Parsed():
            return _parsed(codec.parse)
        case Choice(allowed=words):
            return st.sampled_from(words)
        case Nullable(item=item):
            return st.none() | allowed(item)
        case Many(item=item, most=most, distinct=distinct):
            return st.lists(allowed(item), max_size=min(most, 4), unique_by=distinct).map(tuple)
        case Pairs(key=key, item=item, most=most):
            return st.dictionaries(_parsed(key), allowed(item), max_size=min(most, 4)).map(lambda it: tuple(it.items()))
        case Schema():
            return messages(codec)
        case Tagged():
            return st.one_of(*(messages(SCHEMAS[kind]) for kind in codec.kinds.values()))
        case _:
            return SPECIAL[type(codec).__name__]


def _parsed(parse: Callable[[str], Any]) -> Strategy:
    return PARSED[f"{parse.__module__.rpartition('.')[2]}.{parse.__name__}"]


def messages(schema: Schema[Any]) -> Strategy:
    """Messages of one kind."""
    kind: Any = schema.kind
    fields = {each.name: allowed(each.metadata["codec"]) for each in dataclasses.fields(kind)}
    return st.builds(lambda **values: _made(schema, values), **fields)


def _made(schema: Schema[Any], values: dict[str, Any]) -> object:
    try:
        return schema.kind(**values)
    except ValueError:  # its fields do not go together
        return reject()


def beyond(codec: Codec[Any]) -> Iterator[object]:
    """What JSON can bring and *codec* does not allow, at each of its limits."""
    match codec:
        case Integer(low=low, high=high):
            yield from (low - 1, high + 1, float(low), str(low), True, None)
        case Number(low=low, high=high):
            yield from (low - 1, high * 2, "1", True)
        case Text(limit=limit) | objects.Line(limit=limit) | Parsed(limit=limit):
            yield from ("x" * (limit + 1), "\0", 7, None)
        case Flag():
            yield from (0, 1, "true", None)
        case Choice(allowed=words):
            yield from (f"{words[0]}x", 7, [words[0]], None)
        case Nullable(item=item):
            yield from (value for value in beyond(item) if value is not None)
        case Many(most=most) | Pairs(most=most):
            yield from ([None] * (most + 1), dict.fromkeys(map(str, range(most + 1))), "x", None)
        case Schema():
            yield from ([], "x", None)
