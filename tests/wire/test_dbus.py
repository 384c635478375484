"""Messages of the bus in both directions, byte for byte as the specification lays them out."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.wire.dbus import ERROR, METHOD_RETURN, DBusMessage, call, external, link_path, parse

HELLO = bytes.fromhex(
    "6c010201 00000000 01000000 6e000000"
    "01016f00 15000000 2f6f72672f667265656465736b746f702f44427573 000000"
    "06017300 14000000 6f72672e667265656465736b746f702e44427573 00000000"
    "02017300 14000000 6f72672e667265656465736b746f702e44427573 00000000"
    "03017300 05000000 48656c6c6f 00 0000"
)
REPLY = bytes.fromhex("6c020101 08000000 05000000 0f000000 05017500 01000000 08016700 01620000 01000000 2a000000")


def test_a_call() -> None:
    bus = "org.freedesktop.DBus"
    assert call(1, bus, "/org/freedesktop/DBus", bus, "Hello") == HELLO
    asked = call(7, bus, "/a", "b.c", "Get", "x", "yz")
    message = parse(asked)
    assert message is not None
    assert message.body == b"\1\0\0\0x\0\0\0\2\0\0\0yz\0"
    assert b"\x08\x01g\0\x02ss\0" in asked


def test_authentication() -> None:
    assert external(1000) == b"\0AUTH EXTERNAL 31303030\r\n"


def test_answers() -> None:
    assert parse(REPLY + HELLO) == DBusMessage(METHOD_RETURN, b"\1\0\0\0\x2a\0\0\0", len(REPLY), 1)
    for size in range(len(REPLY)):
        assert parse(REPLY[:size]) is None
    big = bytes.fromhex("42030101 00000007 00000001 00000000") + b"\0\0\0\2no\0"
    message = parse(big)
    assert message is not None
    assert (message.kind, message.size, message.answers) == (ERROR, len(big), None)


@pytest.mark.parametrize(
    ("order", "fields", "answers"),
    [
        ("<", "05017500 2a000000", 42),
        (">", "05017500 0000002a", 42),
        ("<", "08016700 02737300 05017500 2a000000", 42),  # behind the signature of two strings
        ("<", "07017300 03000000 3a2e3100 00000000 05017500 2a000000", 42),  # behind a sender
        ("<", "09017500 07000000 05017500 2a000000", 42),  # behind a number of descriptors
        ("<", "07017300 03000000 3a2e3100", None),
        ("<", "0a026173 04000000 00000000 05017500 2a000000", None),  # behind what nobody knows
        ("<", "05017500 2a00", None),
        ("<", "05017300 2a000000", None),
        ("<", "07017300 ffffffff 05017500 2a000000", None),
        ("<", "", None),
    ],
)
def test_which_call_is_answered(order: str, fields: str, answers: int | None) -> None:
    body = bytes.fromhex(fields)
    head = struct.pack(f"{order}4BIII", ord("l" if order == "<" else "B"), 2, 0, 1, 0, 9, len(body))
    message = parse(head + body + bytes(-len(body) % 8))
    assert message is not None
    assert message.answers == answers


def test_what_an_error_says() -> None:
    assert DBusMessage(ERROR, b"\2\0\0\0no\0", 0).text == "no"
    assert DBusMessage(ERROR, b"\xff\0\0\0no", 0).text == ""
    assert DBusMessage(ERROR, b"", 0).text == ""


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad", REPLY[:3] + b"\2" + REPLY[4:], REPLY[:4] + b"\xff" * 12])
def test_other_protocols(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(data)


@given(st.binary(max_size=200))
def test_whatever_comes(data: bytes) -> None:
    try:
        message = parse(data)
    except ProtocolError:
        return
    assert message is None or 0 < message.size <= len(data)


@pytest.mark.parametrize(("index", "path"), [(3, "_33"), (42, "_342"), (117, "_3117")])
def test_the_object_of_a_link(index: int, path: str) -> None:
    assert link_path(index) == f"/org/freedesktop/resolve1/link/{path}"
