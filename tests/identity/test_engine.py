"""TLS without I/O: a handshake and data in pieces, the peer's certificate, the end, and what is no TLS."""

import contextlib
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.identity.engine import TlsEngine
from meshdev.identity.keys import KeyPair
from meshdev.identity.tls import load_identity

PAIR = KeyPair.generate()
CERTIFICATE = PAIR.self_signed(lifetime=timedelta(hours=1), now=datetime.now(UTC))


def server() -> TlsEngine:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    load_identity(context, PAIR.private_pem, [CERTIFICATE])
    return TlsEngine(context, server_side=True)


def client() -> TlsEngine:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return TlsEngine(context, server_side=False)


def exchanged(one: TlsEngine, other: TlsEngine, size: int = 1 << 20) -> tuple[bytes, bytes]:
    """Bytes of each to the other, at most *size* at a time, until neither has any: what each got."""
    got = {one: b"", other: b""}
    busy = True
    while busy:
        busy = False
        for sender, receiver in ((one, other), (other, one)):
            data = sender.outgoing()
            for start in range(0, len(data), size):
                busy = True
                got[receiver] += receiver.receive(data[start : start + size])
    return got[one], got[other]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_what_was_to_be_sent_before_the_handshake_arrives_after_it(size: int) -> None:
    here, there = client(), server()
    here.send(b"question")
    there.send(b"answer")
    assert here.peer_certificate is None
    assert exchanged(here, there, size) == (b"answer", b"question")
    assert here.established
    assert here.peer_certificate == CERTIFICATE
    assert there.peer_certificate is None
    here.send(b"x" * 100_000)
    assert exchanged(here, there, size) == (b"", b"x" * 100_000)


def test_an_end_is_seen_and_is_none_of_the_other_direction() -> None:
    here, there = client(), server()
    exchanged(here, there)
    there.send(b"last")
    there.close()
    assert here.receive(there.outgoing()) == b"last"
    assert here.ended
    assert not there.ended


def test_closing_before_the_handshake_is_no_error() -> None:
    server().close()


@pytest.mark.parametrize("make", [client, server])
def test_what_is_no_tls_is_refused(make: Callable[[], TlsEngine]) -> None:
    engine = make()
    engine.outgoing()
    with pytest.raises(ProtocolError, match="TLS failed"):
        engine.receive(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")


@given(st.binary(min_size=1, max_size=300), st.integers(0, 1 << 12))
def test_bytes_that_are_changed_on_the_way_raise_nothing_but_a_protocol_error(noise: bytes, where: int) -> None:
    here, there = client(), server()
    hello = here.outgoing()
    flight = hello[: where % len(hello)] + noise + hello[where % len(hello) :]
    with contextlib.suppress(ProtocolError):
        there.receive(flight)
        here.receive(there.outgoing() + noise)
