"""Watching on the wire: how large records become on their way, and that who does not know them skips them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.wire import manager
from meshdev.wire.access import MAX_RECORDS, AccessRecord, AccessRecords
from meshdev.wire.control import encode, encode_body
from meshdev.wire.frames import MAX_CONTROL, OPTIONAL, RECORDS, WATCH
from meshdev.wire.manager import MAX_DATAGRAM, MAX_RECORDS_BODY, RecordsOfClaim
from meshdev.wire.message import SCHEMAS
from meshdev.wire.watching import ClaimRecords
from tests.wire.strategies import messages
from tests.wire.test_access import largest

ID = "a" * 32


def test_who_does_not_know_the_kinds_skips_them() -> None:
    assert WATCH & OPTIONAL
    assert RECORDS & OPTIONAL


@pytest.mark.parametrize("letter", ["a", '"', "\\"])
def test_the_largest_ones_fit(letter: str) -> None:
    records = AccessRecords((largest(letter),) * MAX_RECORDS, 1 << 53)
    message = ClaimRecords(ID, "\U0001f600" * 253, records, 1 << 53)
    body = encode_body(message)
    assert len(body) <= MAX_RECORDS_BODY
    assert len(encode(message)) <= MAX_CONTROL
    assert len(manager.encode(RecordsOfClaim(ID, body))) <= MAX_DATAGRAM


@given(st.lists(messages(SCHEMAS[AccessRecord]), max_size=12), st.text(max_size=253))
def test_whatever_it_holds_it_arrives(records: list[AccessRecord], pod: str) -> None:
    body = encode_body(ClaimRecords(ID, pod, AccessRecords(tuple(records))))
    message = RecordsOfClaim(ID, body)
    assert manager.decode_to_tunnel(manager.encode(message)) == message
