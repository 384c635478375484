"""Which virtio-net headers are let through to a TUN device."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.tun.offload import PACKET_LIMIT, PROBES, VNET_HEADER_LENGTH, gso_types, is_sound

EVERYTHING = gso_types(PROBES[0])


def header(flags: int = 0, gso: int = 0, length: int = 0, size: int = 0, start: int = 0, offset: int = 0) -> bytes:
    return struct.pack("<BBHHHH", flags, gso, length, size, start, offset)


def ipv4(protocol: int, payload: int, options: int = 0) -> bytes:
    """As far as it is looked at: version, header length, protocol."""
    first = 4 << 4 | (5 + options // 4)
    return bytes([first]) + bytes(8) + bytes([protocol]) + bytes(10 + options + payload)


def ipv6(following: int, payload: int) -> bytes:
    return b"\x60" + bytes(5) + bytes([following]) + bytes(33 + payload)


TCP, UDP = 6, 17

#: What kernels hand out. Those of this machine are tests/netns/test_offload.py's.
SOUND = {
    "plain": header() + ipv4(UDP, 8),
    "checked by the sender": header(flags=2) + ipv4(TCP, 20),
    "UDP, its checksum open": header(flags=1, start=20, offset=6) + ipv4(UDP, 8),
    "TCP, its checksum open": header(flags=1, start=20, offset=16) + ipv4(TCP, 20),
    "SYN, its checksum open": header(flags=1, length=60, start=20, offset=16) + ipv4(TCP, 40),
    "SCTP, its checksum open": header(flags=1, start=20, offset=8) + ipv4(132, 30),
    "TCP over IPv6": header(flags=1, start=40, offset=16) + ipv6(TCP, 20),
    "bulk": header(1, 1, 52, 1398, 20, 16) + ipv4(TCP, 65_000),
    "bulk, all of it linear": header(1, 1, 65_020, 1398, 20, 16) + ipv4(TCP, 65_000),
    "bulk with IP options": header(1, 1, 64, 1398, 32, 16) + ipv4(TCP, 65_000, options=12),
    "bulk with ECN": header(1, 0x81, 52, 1398, 20, 16) + ipv4(TCP, 65_000),
    "bulk over IPv6": header(1, 4, 72, 1378, 40, 16) + ipv6(TCP, 65_000),
    "bulk over IPv6 behind an extension": header(1, 4, 80, 1378, 48, 16) + ipv6(0, 65_000),
    "bulk in the smallest segments": header(1, 1, 80, 8, 20, 16) + ipv4(TCP, 60_000),
    "segmented without need": header(1, 1, 52, 1398, 20, 16) + ipv4(TCP, 100),
    "datagrams": header(1, 5, 28, 1200, 20, 6) + ipv4(UDP, 8 + 50_000),
    "datagrams over IPv6": header(1, 5, 48, 1200, 40, 6) + ipv6(UDP, 8 + 50_000),
    "128 datagrams": header(1, 5, 28, 10, 20, 6) + ipv4(UDP, 8 + 1280),
}

MALFORMED = {
    "an unknown flag": header(flags=4) + ipv4(UDP, 8),
    "UFO, which nobody has any more": header(1, 3, 28, 1400, 20, 6) + ipv4(UDP, 60_000),
    "ECN without TCP": header(1, 0x80, 0, 0, 20, 6) + ipv4(UDP, 8),
    "ECN with UDP": header(1, 0x85, 28, 1200, 20, 6) + ipv4(UDP, 50_000),
    "a UDP tunnel": header(1, 0x21, 52, 1398, 20, 16) + ipv4(TCP, 65_000),
    "a header longer than the packet": header(length=29) + ipv4(UDP, 8),
    "a checksum in the IP header": header(flags=1, start=10, offset=0) + ipv4(UDP, 8),
    "a checksum behind the end": header(flags=1, start=20, offset=7) + ipv4(UDP, 8),
    "a checksum far behind the end": header(flags=1, start=0xFFFF, offset=0xFFFF) + ipv4(UDP, 8),
    "segments without a checksum": header(0, 1, 52, 1398, 20, 16) + ipv4(TCP, 65_000),
    "segments that claim to be checked": header(2, 1, 52, 1398, 20, 16) + ipv4(TCP, 65_000),
    "segments of nothing": header(1, 1, 52, 0, 20, 16) + ipv4(TCP, 65_000),
    "segments of one byte": header(1, 1, 52, 1, 20, 16) + ipv4(TCP, 65_000),
    "datagrams of nothing": header(1, 5, 28, 0, 20, 6) + ipv4(UDP, 8 + 1000),
    "129 datagrams": header(1, 5, 28, 10, 20, 6) + ipv4(UDP, 8 + 1281),
    "TCP segments of UDP": header(1, 1, 52, 1398, 20, 16) + ipv4(UDP, 65_000),
    "datagrams of TCP": header(1, 5, 28, 1200, 20, 6) + ipv4(TCP, 50_000),
    "a checksum that is not TCP's": header(1, 1, 52, 1398, 20, 6) + ipv4(TCP, 65_000),
    "a checksum that is not UDP's": header(1, 5, 28, 1200, 20, 16) + ipv4(UDP, 50_000),
    "TCP where it is not": header(1, 1, 52, 1398, 24, 16) + ipv4(TCP, 65_000),
    "half a TCP header": header(1, 1, 39, 1398, 20, 16) + ipv4(TCP, 19),
    "IPv4 that is IPv6": header(1, 1, 52, 1398, 40, 16) + ipv6(TCP, 65_000),
    "IPv6 that is IPv4": header(1, 4, 72, 1378, 40, 16) + ipv4(TCP, 65_000),
    "IPv6 inside its own header": header(1, 4, 72, 1378, 20, 16) + ipv6(TCP, 65_000),
    "neither IPv4 nor IPv6": header(1, 1, 52, 1398, 20, 16) + b"\x55" + ipv4(TCP, 65_000)[1:],
}


@pytest.mark.parametrize("packet", SOUND.values(), ids=SOUND.keys())
def test_what_kernels_make_passes(packet: bytes) -> None:
    assert is_sound(memoryview(packet), EVERYTHING)


@pytest.mark.parametrize("packet", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_no_kernel_makes_does_not(packet: bytes) -> None:
    assert not is_sound(memoryview(packet), EVERYTHING)


@pytest.mark.parametrize(
    ("offload", "allowed"),
    [
        (0, {0}),
        (1, {0}),
        (3, {0, 1, 0x81}),
        (7, {0, 1, 4, 0x81, 0x84}),
        (103, {0, 1, 4, 5, 0x81, 0x84}),
        (0x99, {0}),
    ],
)
def test_only_what_was_agreed_on_is_segmented(offload: int, allowed: set[int]) -> None:
    assert gso_types(offload) == allowed
    assert is_sound(memoryview(SOUND["bulk"]), gso_types(offload)) == (1 in allowed)


fields = st.tuples(
    st.sampled_from([0, 1, 2, 3, 4, 0xFF]) | st.integers(0, 0xFF),
    st.sampled_from([0, 1, 3, 4, 5, 0x80, 0x81, 0x84, 0x85]) | st.integers(0, 0xFF),
    *[st.sampled_from([0, 1, 6, 8, 16, 20, 28, 40, 1398]) | st.integers(0, 0xFFFF) for _ in range(4)],
)
bodies = st.binary(min_size=20, max_size=200) | st.sampled_from(
    [ipv4(TCP, 20), ipv4(UDP, 8), ipv4(TCP, 4000), ipv4(UDP, 4000), ipv6(TCP, 4000), ipv6(UDP, 4000), ipv6(0, 4000)]
)


@given(fields, bodies, st.sampled_from(PROBES))
def test_whatever_comes_what_passes_stays_inside_the_packet(
    values: tuple[int, int, int, int, int, int], body: bytes, offload: int
) -> None:
    flags, gso, length, size, start, offset = values
    packet = memoryview(header(*values) + body)
    if not is_sound(packet, gso_types(offload)):
        return
    assert flags < 4
    assert gso in gso_types(offload)
    assert length <= len(body)
    if flags & 1:
        assert start >= 20
        assert start + offset + 2 <= len(body)
    if gso:
        assert flags & 1
        segments = (len(body) - start) / size
        assert segments <= (132 if gso == 5 else (PACKET_LIMIT - VNET_HEADER_LENGTH) / 8)


@given(st.binary(min_size=VNET_HEADER_LENGTH + 20, max_size=VNET_HEADER_LENGTH + 60))
def test_no_bytes_are_an_error(data: bytes) -> None:
    assert is_sound(memoryview(data), EVERYTHING) in {True, False}
