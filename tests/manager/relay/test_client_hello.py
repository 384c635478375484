"""What is read of a ClientHello: of real ones, in any pieces, and of whatever else may come."""

import contextlib
import ssl
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.manager.relay.client_hello import MAX_BYTES, ClientHello, ClientHelloReader

NAME: Final = "20001.relay.meshdev"


def real(version: ssl.TLSVersion, name: str | None = NAME) -> bytes:
    """OpenSSL's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.maximum_version = version
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


TLS12: Final = real(ssl.TLSVersion.TLSv1_2)
TLS13: Final = real(ssl.TLSVersion.TLSv1_3)


def records(message: bytes, sizes: list[int]) -> bytes:
    """The same message in records of these sizes; the last has the rest."""
    found, at = b"", 0
    for size in [*sizes, len(message)]:
        if piece := message[at : at + size]:
            found += b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece
        at += size
    return found


def read(data: bytes, size: int = 1 << 20) -> ClientHello | None:
    reader = ClientHelloReader()
    for at in range(0, len(data), size):
        found = reader.feed(data[at : at + size])
        assert reader.received == data[: at + size]
        if found is not None:
            assert at + size >= len(data)
            return found
    return None


def hello(extensions: bytes, session: bytes = b"") -> bytes:
    body = b"\x03\x03" + bytes(32) + bytes([len(session)]) + session + b"\0\x02\xc0\x2b" + b"\x01\0"
    body += len(extensions).to_bytes(2, "big") + extensions
    return records(b"\x01" + len(body).to_bytes(3, "big") + body, [])


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_of_openssl(size: int) -> None:
    assert read(TLS12, size) == ClientHello(NAME.encode(), b"")
    found = read(TLS13, size)
    assert found is not None
    assert found.server_name == NAME.encode()
    assert len(found.session_id) == 32  # RFC 8446, D.4: of compatibility mode


def test_without_a_server_name() -> None:
    assert read(real(ssl.TLSVersion.TLSv1_2, None)) == ClientHello(None, b"")
    assert read(hello(b"")) == ClientHello(None, b"")


def test_a_session_that_is_offered() -> None:
    assert read(hello(b"", b"s" * 32)) == ClientHello(None, b"s" * 32)


def test_names_of_another_kind_are_skipped() -> None:
    names = b"\x07\0\x01x" + b"\0\0\x01y"
    assert read(hello(b"\0\0" + bytes([0, len(names) + 2, 0, len(names)]) + names)) == ClientHello(b"y", b"")


@given(st.lists(st.integers(1, 300), max_size=20), st.integers(1, 400))
def test_a_message_may_span_records_and_come_in_any_pieces(sizes: list[int], piece: int) -> None:
    assert read(records(TLS12[5:], sizes), piece) == ClientHello(NAME.encode(), b"")


@pytest.mark.parametrize("end", range(len(TLS12)))
def test_of_a_part_nothing_is_known_yet(end: int) -> None:
    assert read(TLS12[:end]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x80\x2e\x01\x03\x01",  # SSL 2
        b"\x15\x03\x01\0\x02\x01\0",  # an alert
        b"\x16\x02",
        b"\x16\x03\x01\0\0",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\0\x01\x02",  # a ServerHello
        b"\x16\x03\x01\0\x04\x01\xff\xff\xff",
        TLS12 + b"x",
        TLS12 + TLS12,
        records(TLS12[5:] + b"x", []),
        records(b"\x01\0\0\x01x", []),
        hello(b"\0\0\0\x05\0\x09\0\0\x01"),
        hello(b"\0"),
        hello(b"", b"s")[:-2] + b"\0\x01",
    ],
)
def test_what_cannot_become_one_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(data)


def test_it_is_bounded() -> None:
    long = b"\x01\0\x3f\xf0" + bytes(MAX_BYTES)
    with pytest.raises(ProtocolError, match="16384"):
        read(records(long, [1] * MAX_BYTES), 4096)
    with pytest.raises(ProtocolError, match="16384"):
        read(records(long, [16000])[:17000])


@given(st.binary(max_size=400))
def test_of_garbage_nothing_but_the_documented_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        read(data, 7)


@given(st.data(), st.sampled_from([TLS12, TLS13]))
def test_nor_of_one_with_wrong_bytes(data: st.DataObject, genuine: bytes) -> None:
    changed = bytearray(genuine)
    for at in data.draw(st.lists(st.integers(5, len(genuine) - 1), min_size=1, max_size=8)):
        changed[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        read(bytes(changed), data.draw(st.integers(1, 600)))


@given(st.binary(max_size=300))
def test_nor_of_hostile_extensions(extensions: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        read(hello(extensions))
