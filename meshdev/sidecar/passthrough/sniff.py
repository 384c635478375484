"""What a connection is, by its first bytes.

A client that begins with HTTP/2's preface, and a server that speaks first and begins with a SETTINGS frame, speak
HTTP/2 (RFC 9113, section 3.4). What can be the first line of an HTTP/1 request is followed; TLS, the PROXY protocol and
everything else is bytes.
"""

import re
from typing import Final, Literal

#: "http2" and "raw" are decided; "http1": as far as is known, and its follower knows more with each byte; "undecided":
#: this may become HTTP/2 or something else, so hold the bytes (at most 23) for a while.
First = Literal["undecided", "http1", "http2", "raw"]
#: What a server's first bytes are: "settings" is decided, as is "other"; "undecided" are less than 9 bytes.
ServerFirst = Literal["undecided", "settings", "other"]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: The beginning of a request line: a method, of which no known one has more letters than these. The rest is for the
#: follower to read.
_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}(?: |\Z)")
#: HAProxy's PROXY protocol, version 1: a line that looks like a request for a while. (Version 2 begins with CR.)
_PROXY: Final = b"PROXY "

_STATUS: Final = slice(8, 13)
_TIMEOUT: Final = b" 408 "

FRAME_HEADER: Final = 9
#: Length (24 bits), type SETTINGS, no flags, stream 0 (RFC 9113, 4.1 and 6.5).
_SETTINGS_REST: Final = b"\x04\x00\x00\x00\x00\x00"
_SETTING: Final = 6
#: The largest frame that a server may send before it knows more (RFC 9113, 4.2).
_MAX_FRAME: Final = 1 << 14


def client_first(data: bytes) -> First:
    """What the first bytes of a client, at least one, begin."""
    if data.startswith(PREFACE):
        return "http2"
    if PREFACE.startswith(data):
        return "undecided"
    if data.startswith(_PROXY) or _METHOD.match(data) is None:
        return "raw"
    return "http1"


def server_first(data: bytes) -> ServerFirst:
    """What the first bytes of a server that speaks before its client does, at least one, begin."""
    length, rest = data[:3], data[3:FRAME_HEADER]
    if not _SETTINGS_REST.startswith(rest) or not _may_be_settings(length):
        return "other"
    return "settings" if len(data) >= FRAME_HEADER else "undecided"


def times_out(data: bytes) -> bool:
    """Whether a server that nobody asked says 408: its idle timer fired (RFC 9110, 15.5.9)."""
    return data[_STATUS] == _TIMEOUT


def _may_be_settings(length: bytes) -> bool:
    """Whether the first bytes of a length, up to three, can be that of settings."""
    if len(length) < 3:
        return int.from_bytes(length.ljust(3, b"\0")) <= _MAX_FRAME
    size = int.from_bytes(length)
    return size % _SETTING == 0 and size <= _MAX_FRAME
