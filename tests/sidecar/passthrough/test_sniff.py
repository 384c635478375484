"""The first bytes of a connection."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.sidecar.passthrough.sniff import PREFACE, client_first, server_first


@pytest.mark.parametrize("size", range(1, len(PREFACE)))
def test_the_preface_of_http2_is_waited_for(size: int) -> None:
    assert client_first(PREFACE[:size]) == "undecided"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (PREFACE, "http2"),
        (PREFACE + b"\0\0\0\x04\0\0\0\0\0", "http2"),
        (b"G", "http1"),
        (b"GET / HTTP/1.1\r\n", "http1"),
        (b"PROPFIND", "http1"),
        (b"PRI * HTTP/1.1\r\n", "http1"),
        (b"PRINT", "http1"),
        (b"get", "http1"),
        (b"x" * 32, "http1"),
        (b"x" * 33, "raw"),
        (b"PROXY TCP4 192.0.2.1", "raw"),
        (b"\r\n\r\n\0\r\nQUIT\n", "raw"),
        (b"\x16\x03\x01\0\x05", "raw"),
        (b"*1\r\n$4\r\nPING\r\n", "raw"),
        (b"SSH-2.0-x\r\n", "raw"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", "raw"),
        (b" GET", "raw"),
    ],
)
def test_clients(data: bytes, found: str) -> None:
    assert client_first(data) == found


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (bytes.fromhex("000000040000000000"), "settings"),
        (bytes.fromhex("00001204000000000000030000"), "settings"),
        (bytes.fromhex("0000120400000000"), "undecided"),
        (b"\0", "undecided"),
        (b"\0\0\x05", "other"),
        (b"\0\x40\x06", "other"),
        (bytes.fromhex("000000040100000000"), "other"),
        (bytes.fromhex("000000040000000001"), "other"),
        (b"\x4a\0\0\0\x0a5.7", "other"),
        (b"220 mail", "other"),
        (b"SSH-2.0", "other"),
        (b"HTTP/1.1 408", "other"),
    ],
)
def test_servers(data: bytes, found: str) -> None:
    assert server_first(data) == found


@given(st.binary(min_size=1, max_size=40))
def test_what_is_decided_stays_decided(data: bytes) -> None:
    """More bytes decide what was not, or show that it was no HTTP/1; they change nothing else."""
    for first in (client_first, server_first):
        found = [first(data[:size]) for size in range(1, len(data) + 1)]
        for before, now in itertools.pairwise(found):
            assert before in {"undecided", now} or (before, now) == ("http1", "raw")
