"""The upgrade in front of a carrier: what is asked, what counts as a yes, and what a no says."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import PeerClosed, ProtocolError
from meshdev.wire import upgrade
from meshdev.wire.upgrade import Upgrade, UpgradeAccepted, UpgradeRefused

TARGET = "/api/v1/namespaces/default/pods/a/portforward"
NONCE = b"the sample nonce"  # RFC 6455, 1.3
SPDY_YES = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    b"X-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n"
)
WEBSOCKET_YES = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n\r\n"
)


def spdy() -> Upgrade:
    return upgrade.spdy("k:6443", TARGET, {"Authorization": "Bearer t"})


def websocket() -> Upgrade:
    return upgrade.websocket("k:6443", TARGET, {}, NONCE)


def test_native_spdy_is_a_post_without_a_body() -> None:
    lines = spdy().request.decode().split("\r\n")
    assert lines[0] == f"POST {TARGET} HTTP/1.1"
    assert lines[-2:] == ["", ""]
    assert {line.lower() for line in lines[1:-2]} == {
        "host: k:6443",
        "connection: upgrade",
        "upgrade: spdy/3.1",
        "x-stream-protocol-version: portforward.k8s.io",
        "content-length: 0",
        "authorization: bearer t",
    }


def test_the_websocket_asks_for_kubectls_subprotocol() -> None:
    request = websocket().request.decode()
    assert request.startswith(f"GET {TARGET} HTTP/1.1\r\n")
    assert "dGhlIHNhbXBsZSBub25jZQ==" in request
    assert "SPDY/3.1+portforward.k8s.io" in request


def test_accept_key_is_the_rfcs_example() -> None:
    assert upgrade.accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(("make", "answer"), [(spdy, SPDY_YES), (websocket, WEBSOCKET_YES)])
def test_a_yes_in_pieces_with_first_bytes_behind_it(make: Callable[[], Upgrade], answer: bytes) -> None:
    asked = make()
    assert asked.feed(answer[:30]) is None
    assert asked.feed(answer[30:] + b"first") == UpgradeAccepted(b"first")


def test_a_no_carries_status_and_body() -> None:
    asked = spdy()
    assert asked.feed(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno") is None
    assert asked.feed(b"pe") == UpgradeRefused(403, b"nope")


def test_a_no_that_ends_with_the_connection() -> None:
    asked = spdy()
    assert asked.feed(b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\nproxy says no") is None
    assert asked.feed(b"") == UpgradeRefused(502, b"proxy says no")


def test_an_endless_no_is_cut() -> None:
    asked = spdy()
    answer = asked.feed(b"HTTP/1.1 500 Oops\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100_000)
    assert answer == UpgradeRefused(500, b"x" * 65536)


@pytest.mark.parametrize(
    ("make", "answer", "words"),
    [
        (spdy, WEBSOCKET_YES, "upgrade"),
        (websocket, SPDY_YES, "upgrade"),
        (websocket, WEBSOCKET_YES.replace(b"s3pP", b"s3pQ"), "sec-websocket-accept"),
        (websocket, WEBSOCKET_YES.replace(b"SPDY/3.1+portforward", b"v4.channel"), "sec-websocket-protocol"),
        (spdy, b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
    ],
)
def test_what_is_no_answer(make: Callable[[], Upgrade], answer: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        make().feed(answer)


def test_no_answer_at_all() -> None:
    with pytest.raises(PeerClosed, match="instead of answering"):
        spdy().feed(b"")


def test_a_token_cannot_smuggle_a_header() -> None:
    with pytest.raises(ProtocolError, match="cannot be sent"):
        upgrade.spdy("k", TARGET, {"Authorization": "Bearer t\r\nX: y"})


@given(st.binary(max_size=500))
def test_hostile_bytes_raise_protocol_errors_only(noise: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        spdy().feed(b"HTTP/1.1 101 " + noise)
