"""The helper's lines: both directions against literal bytes, and what a peer may not send."""

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.config import ADDRESS_POOLS
from meshdev.errors import AlreadyConnectedError, LaptopError, ProtocolError, RouteError
from meshdev.wire.helper.answers import (
    Acknowledged,
    AddressSet,
    Beat,
    DnsOpened,
    DnsSet,
    ListenerAddress,
    RefusedRoute,
    Result,
    RoutesSet,
    TunOpened,
    Upstream,
)
from meshdev.wire.helper.limits import INTEGRATIONS, LINE_LIMIT, MAX_ROUTES
from meshdev.wire.helper.lines import (
    Greeting,
    HelperAnswer,
    HelperFailure,
    encode_answer,
    encode_greeting,
    encode_request,
    parse_answer,
    parse_greeting,
    parse_request,
)
from meshdev.wire.helper.requests import (
    AddRoutes,
    DnsSockets,
    Heartbeat,
    OpenTun,
    RelayTarget,
    Request,
    SetAddress,
    SetDns,
    SetRelays,
    SetRoutes,
    Shutdown,
    UpstreamTcp,
)
from meshdev.wire.values import NEVER_ROUTED
from tests.error_tree import every_kind, told_as

REQUEST_LINES: list[tuple[Request, str]] = [
    (OpenTun(2, True), '"op":"open_tun","queues":2,"unguarded":true'),
    (SetAddress(IPv4Address("198.18.0.7"), 1450), '"op":"set_address","address":"198.18.0.7","mtu":1450'),
    (SetRoutes((IPv4Network("10.96.0.0/16"),)), '"op":"set_routes","routes":["10.96.0.0/16"]'),
    (AddRoutes((IPv4Network("10.9.8.7/32"),)), '"op":"add_routes","routes":["10.9.8.7/32"]'),
    (
        DnsSockets((IPv4Address("192.0.2.1"), IPv6Address("fe80::1%eth0"))),
        '"op":"dns_sockets","upstreams":["192.0.2.1","fe80::1%eth0"]',
    ),
    (UpstreamTcp(IPv4Address("192.0.2.1")), '"op":"upstream_tcp","server":"192.0.2.1"'),
    (SetDns(("ns.svc.cluster.local",), (".",)), '"op":"set_dns","search":["ns.svc.cluster.local"],"domains":["."]'),
    (
        SetRelays((RelayTarget(20001, "udp", IPv4Address("127.0.0.1"), 8080),)),
        '"op":"set_relays","relays":[{"relay":20001,"protocol":"udp","address":"127.0.0.1","port":8080}]',
    ),
    (Heartbeat(), '"op":"heartbeat"'),
    (Shutdown(), '"op":"close"'),
]

RESULT_LINES: list[tuple[Result, str]] = [
    (Acknowledged(), "{}"),
    (TunOpened("meshdev0", 103), '{"device":"meshdev0","offload":103}'),
    (AddressSet(True, None), '{"guard":true,"note":null}'),
    (
        RoutesSet((IPv4Network("10.96.0.0/16"),), (RefusedRoute(IPv4Network("10.1.0.0/24"), "no"),)),
        '{"routes":["10.96.0.0/16"],"refused":[{"route":"10.1.0.0/24","reason":"no"}]}',
    ),
    (
        DnsOpened(
            (ListenerAddress(IPv4Address("127.0.0.1"), 5300, IPv4Address("192.0.2.1")),),
            (Upstream(IPv4Address("192.0.2.1"), 4),),
            "no nft",
        ),
        (
            '{"listeners":[{"address":"127.0.0.1","port":5300,"server":"192.0.2.1"}],"upstreams":[{"address":"192.0.2.1","sockets":4}],'
            '"containers":"no nft"}'
        ),
    ),
    (DnsSet("old answers"), '{"note":"old answers"}'),
    (
        Beat(True, (IPv4Address("192.0.2.1"),), ("a.b",), ("tun was removed",), ("it was set down",)),
        (
            '{"active":true,"nameservers":["192.0.2.1"],"search":["a.b"],'
            '"problems":["tun was removed"],"repaired":["it was set down"]}'
        ),
    ),
]


@pytest.mark.parametrize(("request_", "text"), REQUEST_LINES)
def test_requests_in_both_directions(request_: Request, text: str) -> None:
    line = f'{{"id":7,{text}}}\n'.encode()
    assert encode_request(7, request_) == line
    assert parse_request(line[:-1]) == (7, request_)


@pytest.mark.parametrize(("result", "text"), RESULT_LINES)
def test_answers_in_both_directions(result: Result, text: str) -> None:
    line = f'{{"id":7,"ok":{text},"fds":3}}\n'.encode()
    answer = HelperAnswer(7, result, 3)
    assert encode_answer(answer) == line
    assert parse_answer(line[:-1], lambda _: type(result)) == answer


def test_faults_become_the_error_of_their_code() -> None:
    line = encode_answer(HelperAnswer(7, HelperFailure.of(RouteError("no way", hint="try"))))
    assert line == b'{"id":7,"error":{"code":"route","message":"no way","hint":"try"},"fds":0}\n'
    fault = parse_answer(line, lambda _: Acknowledged).result
    assert isinstance(fault, HelperFailure)
    error = fault.as_error()
    assert (type(error), error.message, error.hint) == (RouteError, "no way", "try")
    assert type(HelperFailure("from-tomorrow", "x", None).as_error()) is LaptopError


def test_the_greeting_in_both_directions() -> None:
    greeting = Greeting(7, 1000, "redirect", "stub=no", (IPv4Address("192.0.2.1"),), ("home.example",))
    line = (
        b'{"helper":1,"pid":7,"uid":1000,"dns":"redirect","why":"stub=no",'
        b'"nameservers":["192.0.2.1"],"search":["home.example"]}\n'
    )
    assert encode_greeting(greeting) == line
    assert parse_greeting(line) == greeting
    fault = HelperFailure.of(AlreadyConnectedError("up"))
    assert parse_greeting(encode_greeting(fault)) == fault


_addresses = st.one_of(st.ip_addresses(v=4, network="192.0.2.0/24"), st.ip_addresses(v=6, network="2001:db8::/32"))
_label = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)
_names = st.lists(
    st.one_of(st.just("."), st.lists(_label, min_size=1, max_size=5).map(".".join)), max_size=8, unique=True
)
_routes = st.lists(
    st.tuples(st.ip_addresses(v=4, network="16.0.0.0/5"), st.integers(8, 32)).map(
        lambda pair: IPv4Network(pair, strict=False)
    ),
    max_size=20,
    unique=True,
).map(tuple)
_session = st.sampled_from(ADDRESS_POOLS).flatmap(
    lambda pool: st.integers(1, pool.num_addresses - 2).map(lambda number: pool[number])
)
_relays = st.lists(
    st.builds(
        RelayTarget,
        st.integers(20000, 29999),
        st.sampled_from(("tcp", "udp")),
        st.ip_addresses(v=4, network="127.0.0.0/8") | st.ip_addresses(v=4, network="192.168.0.0/16"),
        st.integers(1, 65535),
    ),
    max_size=8,
    unique_by=lambda each: (each.relay, each.protocol),
).map(tuple)
_requests: st.SearchStrategy[Request] = st.one_of(
    st.builds(OpenTun, st.integers(1, 8), st.booleans()),
    st.builds(SetAddress, _session, st.integers(576, 65535)),
    st.builds(SetRoutes, _routes),
    st.builds(AddRoutes, _routes),
    st.builds(DnsSockets, st.lists(_addresses, max_size=8, unique=True).map(tuple)),
    st.builds(UpstreamTcp, _addresses),
    st.builds(SetDns, _names.map(tuple), _names.map(tuple)),
    st.builds(SetRelays, _relays),
    st.just(Heartbeat()),
    st.just(Shutdown()),
)


@given(st.integers(0, 1 << 53), _requests)
def test_every_request_survives_the_way(number: int, request: Request) -> None:
    assert parse_request(encode_request(number, request)) == (number, request)


def test_as_many_routes_as_are_allowed_fit_in_a_line() -> None:
    routes = tuple(IPv4Network((int(IPv4Address("223.100.100.0")) + number, 32)) for number in range(MAX_ROUTES))
    line = encode_request(1 << 53, SetRoutes(routes))
    assert len(line) < LINE_LIMIT
    assert parse_request(line)[1] == SetRoutes(routes)
    assert len(encode_answer(HelperAnswer(1, RoutesSet(routes, ())))) < LINE_LIMIT


RELAY: dict[str, Any] = {"relay": 20000, "protocol": "tcp", "address": "127.0.0.1", "port": 80}
HOSTILE_RELAYS: list[Any] = [
    None,
    {},
    [7],
    [[20000, "127.0.0.1", 80, "tcp"]],
    [RELAY, RELAY],
    [RELAY, RELAY | {"address": "127.0.0.2"}],
    [RELAY | {"relay": number} for number in range(20000, 20257)],
    *(
        [RELAY | {key: value}]
        for key, value in (
            ("relay", 22),
            ("relay", 30000),
            ("relay", "20000"),
            ("protocol", "icmp"),
            ("protocol", "tcp; flush ruleset"),
            ("address", "::1"),
            ("address", "0.0.0.0"),
            ("address", "224.0.0.1"),
            ("address", "255.255.255.255"),
            ("address", "127.0.0.1 . 22"),
            ("address", "localhost"),
            ("port", 0),
            ("port", 65536),
            ("port", True),
            ("more", 1),
        )
    ),
]

REFUSED: list[dict[str, Any]] = [
    {},
    {"op": "heartbeat"},
    {"id": 1},
    {"id": 1, "op": "reboot"},
    {"id": 1, "op": ["heartbeat"]},
    {"id": -1, "op": "heartbeat"},
    {"id": True, "op": "heartbeat"},
    {"id": "1", "op": "heartbeat"},
    {"id": 1, "op": "heartbeat", "more": 1},
    {"id": 1, "op": "open_tun"},
    {"id": 1, "op": "open_tun", "queues": 0},
    {"id": 1, "op": "open_tun", "queues": 9},
    {"id": 1, "op": "open_tun", "queues": 1.0},
    {"id": 1, "op": "open_tun", "queues": True},
    {"id": 1, "op": "set_address", "address": "10.0.0.1", "mtu": 1500},
    {"id": 1, "op": "set_address", "address": "198.18.0.0", "mtu": 1500},
    {"id": 1, "op": "set_address", "address": "198.18.255.255", "mtu": 1500},
    {"id": 1, "op": "set_address", "address": "198.18.0.7/32", "mtu": 1500},
    {"id": 1, "op": "set_address", "address": "198.18.0.7", "mtu": 68},
    {"id": 1, "op": "set_routes", "routes": "10.0.0.0/8"},
    {"id": 1, "op": "set_routes", "routes": [10]},
    {"id": 1, "op": "set_routes", "routes": {"0": "10.0.0.0/8"}},
    {"id": 1, "op": "set_routes", "routes": ["10.0.0.0/16", "10.0.0.0/16"]},
    {"id": 1, "op": "set_routes", "routes": [f"10.{n >> 8}.{n & 255}.0/24" for n in range(MAX_ROUTES + 1)]},
    {"id": 1, "op": "dns_sockets", "upstreams": ["0.0.0.0"]},
    {"id": 1, "op": "dns_sockets", "upstreams": ["224.0.0.1"]},
    {"id": 1, "op": "dns_sockets", "upstreams": ["fe80::1%eth0;rm"]},
    {"id": 1, "op": "dns_sockets", "upstreams": ["fe80::1%" + "x" * 16]},
    {"id": 1, "op": "dns_sockets", "upstreams": [f"192.0.2.{n}" for n in range(1, 10)]},
    *({"id": 1, "op": "set_relays", "relays": relays} for relays in HOSTILE_RELAYS),
    {"id": 1, "op": "set_dns", "search": ["UPPER"], "domains": []},
    {"id": 1, "op": "set_dns", "search": ["a..b"], "domains": []},
    {"id": 1, "op": "set_dns", "search": ["a."], "domains": []},
    {"id": 1, "op": "set_dns", "search": [""], "domains": []},
    {"id": 1, "op": "set_dns", "search": ["-a"], "domains": []},
    {"id": 1, "op": "set_dns", "search": ["a b"], "domains": []},
    {"id": 1, "op": "set_dns", "search": ["a\nnameserver 6.6.6.6"], "domains": []},
    {"id": 1, "op": "set_dns", "search": ["a\n"], "domains": []},
    {"id": 1, "op": "set_dns", "search": ["x" * 64], "domains": []},
    {"id": 1, "op": "set_dns", "search": [".".join(["x" * 60] * 5)], "domains": []},
    {"id": 1, "op": "set_dns", "search": [f"n{n}" for n in range(33)], "domains": []},
]


@pytest.mark.parametrize("value", REFUSED, ids=str)
def test_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        parse_request(json.dumps(value).encode())


@pytest.mark.parametrize(
    "route",
    [
        *map(str, NEVER_ROUTED),
        "0.0.0.0/0",
        "10.0.0.0/7",
        "127.0.0.1/32",
        "169.254.169.254/32",
        "10.0.0.1/16",
        "10.0.0.0",
        "10.0.0.0/255.255.0.0",
        "10.0.0.0/016",
        "010.0.0.0/16",
        " 10.0.0.0/16",
        "10.0.0.0/33",
        "::/0",
        "2001:db8::/32",
        "default",
        "",
    ],
)
def test_routes_that_nobody_may_ask_for(route: str) -> None:
    with pytest.raises(ProtocolError):
        parse_request(json.dumps({"id": 1, "op": "set_routes", "routes": [route]}).encode())


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_random_bytes_raise_nothing_but_a_protocol_error(data: bytes) -> None:
    for parse in (parse_request, parse_greeting, lambda line: parse_answer(line, lambda _: Acknowledged)):
        with pytest.raises(ProtocolError):
            parse(data)


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=10,
)


@given(st.sampled_from(REQUEST_LINES), st.data(), _json)
def test_any_value_in_any_place_is_checked(line: tuple[Request, str], data: st.DataObject, value: object) -> None:
    known = json.loads(encode_request(7, line[0]))
    known[data.draw(st.sampled_from(sorted(known)))] = value
    try:
        _, request = parse_request(json.dumps(known).encode())
    except ProtocolError:
        return
    assert parse_request(encode_request(7, request)) == (7, request)


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"id":' + b"9" * 5000 + b"}", b'{"id":NaN,"op":"heartbeat"}', b"\xff"]
)
def test_hostile_json(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_request(data)


def test_answers_that_fit_no_request() -> None:
    line = encode_answer(HelperAnswer(7, Acknowledged()))
    with pytest.raises(ProtocolError, match="not sent"):
        parse_answer(line, lambda _: None)
    with pytest.raises(ProtocolError):
        parse_answer(line, lambda _: TunOpened)
    with pytest.raises(ProtocolError):
        parse_answer(line.replace(b'"fds":0', b'"fds":65'), lambda _: Acknowledged)
    with pytest.raises(ProtocolError):
        parse_answer(b'{"id":7,"ok":{},"error":{"code":"x","message":"","hint":null},"fds":0}', lambda _: Acknowledged)


def test_a_helper_of_another_version() -> None:
    with pytest.raises(ProtocolError):
        parse_greeting(b'{"helper":2,"future":true}')
    for way in INTEGRATIONS:
        greeting = Greeting(1, 0, way, "", (), ())
        assert parse_greeting(encode_greeting(greeting)) == greeting


def test_every_error_of_the_tree_survives_the_way() -> None:
    for kind in every_kind():
        assert type(HelperFailure.of(kind("x")).as_error()) is told_as(kind)
