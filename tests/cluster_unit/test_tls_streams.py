"""TLS in recorded streams, by real handshakes."""

import contextlib
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.identity.keys import KeyPair
from tests.e2e.tls_streams import certificates, records
from tests.identity.handshake import End, client_context, identify, server_context

PAIRS = KeyPair.generate(), KeyPair.generate()
SHOWN = tuple(pair.self_signed(lifetime=timedelta(hours=1), now=datetime.now(UTC)) for pair in PAIRS)


def recorded(version: ssl.TLSVersion) -> tuple[bytes, bytes]:
    """Both directions of a connection on which both ends show a certificate, and "secret" is sent."""
    client = identify(client_context(version, SHOWN[1]), PAIRS[0].private_pem, SHOWN[0])
    client.check_hostname = False
    server = identify(server_context(version, SHOWN[0]), PAIRS[1].private_pem, SHOWN[1])
    ends = End(client, "x.relay.meshdev"), End(server, None)
    said = [b"", b""]

    def flow() -> None:
        for number, (one, other) in enumerate((ends, ends[::-1])):
            data = one.outgoing.read()
            said[number] += data
            other.incoming.write(data)

    for _ in range(4):
        for end in ends:
            end.step()
            flow()
    for one in ends:
        one.tls.write(b"secret")
    flow()
    return said[0], said[1]


@pytest.mark.parametrize(("version", "clear"), [(ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, False)])
def test_certificates_are_in_the_clear_in_tls_1_2_only(version: ssl.TLSVersion, clear: bool) -> None:
    for stream, shown in zip(recorded(version), SHOWN, strict=True):
        assert {kind for kind, _ in records(stream)} <= {20, 22, 23}
        assert b"secret" not in stream
        assert certificates(stream) == ([shown] if clear else [])
        assert list(records(stream[:-3]))[:-1] == list(records(stream))[:-1], "the last one may be cut off"


@pytest.mark.parametrize("before", [b"", b"\x16\x03\x01\x00\x01x"])
@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0", b'{"hello": 1}', b"\x17\x03\x03\xff\xff"])
def test_whatever_is_sent_in_the_clear_is_no_tls(before: bytes, text: bytes) -> None:
    with pytest.raises(ValueError, match=f"byte {len(before)} begins no TLS record"):
        list(records(before + text))


@given(st.binary(max_size=200))
def test_no_bytes_are_another_error(stream: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(certificates(b"\x16\x03\x03\x00\xff" + stream), list)
