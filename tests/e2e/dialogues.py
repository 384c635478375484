"""Protocols as two-ended dialogues: who says what, in turn, and that the other one has it before it goes on.

So nothing may be kept back, added, changed or left out. The line between is a client's socket and a server's.
"""

import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.sidecar.worker.world import SECONDS
from tests.sockets import exactly

#: ``>`` the client says this, ``<`` the server does. With ``h``: it is a message's head, which may be spelled otherwise
#: by Envoy. Without bytes: that is all it will say.
Step = tuple[str, bytes]
_HEAD_END: Final = b"\r\n\r\n"


def head(first: str, *lines: str) -> bytes:
    """A message's head, Host included where it is a request."""
    host = () if first.startswith("HTTP/") else ("Host: odd",)
    return "".join(f"{line}\r\n" for line in (first, *host, *lines, "")).encode()


def frame(payload: bytes, *, opcode: int = 1, masked: bool = False) -> bytes:
    """A frame of WebSocket (RFC 6455, section 5.2) of at most 125 bytes; the mask is zero."""
    mask = bytes(4) if masked else b""
    return bytes([0x80 | opcode, len(payload) | (0x80 if masked else 0)]) + mask + payload


def chunk(data: bytes) -> bytes:
    """One chunk (RFC 9112, section 7.1)."""
    return b"%x\r\n%s\r\n" % (len(data), data)


_WEBSOCKET: Final = (
    *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
_SWITCHING: Final = head(
    "HTTP/1.1 101 Switching Protocols",
    *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
)
_DATE: Final = "Date: Sun, 06 Nov 1994 08:49:37 GMT"  # Envoy adds one to responses without
_LAST: Final = ("Content-Length: 0", "Connection: close")
_NO: Final = (_DATE, "Content-Length: 2")
_OK: Final = head("HTTP/1.1 200 OK", *_NO)
_STREAM: Final = head(
    "HTTP/1.1 200 OK", _DATE, "Content-Type: text/event-stream", "Cache-Control: no-cache", "Transfer-Encoding: chunked"
)
_EVENTS: Final = tuple(b"id: %d\ndata: event %d\n\n" % (number, number) for number in range(20))


def of_http(*more: str) -> dict[str, list[Step]]:
    """What also a proxy that knows HTTP must let through; *more* are header lines of each request."""
    upgrade = head("GET /ws HTTP/1.1", *more, *_WEBSOCKET)
    get = head("GET /next HTTP/1.1", *more)
    post = head("POST / HTTP/1.1", *more, "Expect: 100-continue", "Content-Length: 5")
    again: list[Step] = [(">h", get), ("<h", _OK), ("<", b"no")]
    frames: list[Step] = [
        step
        for number in range(20)
        for step in (
            (">", frame(b"to the server %d" % number, masked=True)),
            ("<", frame(b"to the client %d" % number)),
            ("<", frame(b"", opcode=9)),
            (">", frame(b"", opcode=10, masked=True)),
        )
    ]
    close: list[Step] = [(">", frame(b"\x03\xe8", opcode=8, masked=True)), ("<", frame(b"\x03\xe8", opcode=8))]
    return {
        "WebSocket": [(">h", upgrade), ("<h", _SWITCHING), *frames, *close, ("<", b""), (">", b"")],
        "WebSocket, data right behind 101": [
            *((">h", upgrade), ("<h", _SWITCHING + frame(b"hello"))),
            *(*frames, *close, ("<", b""), (">", b"")),
        ],
        # Of the response to a handshake that is not 101 Envoy leaves out the body below 400, and it is the last.
        "WebSocket, refused by 200": [(">h", upgrade), ("<h", head("HTTP/1.1 200 OK", _DATE))],
        "WebSocket, refused by 403": [(">h", upgrade), ("<h", head("HTTP/1.1 403 Forbidden", *_NO)), ("<", b"no")],
        "SSE": [
            *((">h", get), ("<h", _STREAM), *(("<", chunk(event)) for event in _EVENTS)),
            *(("<", b"0\r\n\r\n"), *again),
        ],
        "100 Continue": [
            *((">h", post), ("<h", head("HTTP/1.1 100 Continue")), (">", b"hello")),
            *(("<h", _OK), ("<", b"ok"), *again),
        ],
        "100 Continue, refused": [
            *((">h", post), ("<h", head("HTTP/1.1 417 Expectation Failed", _DATE, *_LAST))),
            ("<", b""),
        ],
    }


def as_bytes(steps: list[Step]) -> list[Step]:
    """Heads, too, must be what was said."""
    return [(direction[0], said) for direction, said in steps]


_GET: Final = head("GET / HTTP/1.1")
_MAIL: Final[list[Step]] = [
    ("<", b"220 mail.example.org ESMTP\r\n"),
    (">", b"EHLO client.example.org\r\n"),
    ("<", b"250-mail.example.org\r\n250-PIPELINING\r\n250 STARTTLS\r\n"),
    (">", b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"),
    ("<", b"250 ok\r\n250 ok\r\n354 go on\r\n"),
    (">", b"GET / HTTP/1.1\r\nHost: b\r\na: 1\r\n\r\n.\r\n"),
    ("<", b"250 ok\r\n"),
    (">", b"QUIT\r\n"),
    *(("<", b"221 bye\r\n"), ("<", b""), (">", b"")),
]
_SERVED: Final[list[Step]] = [("<", _OK + b"ok"), (">", _GET), ("<", _OK + b"ok")]
#: What nobody claimed: bytes are bytes.
OF_BYTES: Final[dict[str, list[Step]]] = {
    **{name: as_bytes(steps) for name, steps in of_http().items()},
    "WebSocket, refused, and the connection is kept": [
        (">", head("GET /ws HTTP/1.1", *_WEBSOCKET)),
        *_SERVED,
        *_SERVED[1:],
    ],
    "WebSocket, data right behind the request": [
        (">", head("GET /ws HTTP/1.1", *_WEBSOCKET) + frame(b"early", masked=True)),
        *(("<", _SWITCHING), ("<", frame(b"hello")), (">", frame(b"later", masked=True))),
    ],
    "SSE, until the end of the connection": [
        *((">", _GET), ("<", head("HTTP/1.1 200 OK", "Content-Type: text/event-stream"))),
        *(*(("<", event) for event in _EVENTS), ("<", b""), (">", b"")),
    ],
    "100 Continue, refused, and the connection is kept": [
        (">", head("POST / HTTP/1.1", "Expect: 100-continue", "Content-Length: 5")),
        ("<", head("HTTP/1.1 417 Expectation Failed", "Content-Length: 0")),
        *_SERVED[1:],
    ],
    "HTTP/1.0": [(">", head("GET / HTTP/1.0")), ("<", b"HTTP/1.0 200 OK\r\n\r\nbody"), ("<", b""), (">", b"")],
    "HTTP/1.0, kept": [
        (">", head("GET / HTTP/1.0", "Connection: keep-alive")),
        ("<", head("HTTP/1.0 200 OK", "Connection: keep-alive", "Content-Length: 2") + b"ok"),
        *_SERVED[1:],
    ],
    "the server speaks first": _MAIL,
    "the server speaks first, as HTTP would": [("<", b"HTTP/1.1 408 Request Timeout\r\n\r\n"), (">", _GET), *_SERVED],
    "PROXY protocol 1": [(">", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), (">", _GET), *_SERVED],
    "PROXY protocol 2": [
        (">", bytes.fromhex("0d0a0d0a000d0a515549540a21110000c0000201c000020200010002")),
        *((">", _GET), *_SERVED),
    ],
    "half-close of the client": [
        *((">", _GET), (">", b""), ("<", _OK), ("<", b"o"), ("<", b"k"), ("<", b"")),
    ],
    "half-close of the server": [
        *((">", _GET), ("<", _OK + b"ok"), ("<", b""), (">", b"more"), (">", b"and more"), (">", b"")),
    ],
    "half-close at once": [(">", b""), ("<", b"220 hello\r\n"), ("<", b"bye\r\n"), ("<", b"")],
}


#: Where the client's words arrive, from the first of them on.
Serving = Callable[[], socket.socket]


def play(client: socket.socket, server: Serving, steps: list[Step]) -> None:
    """Each of the steps; AssertionError at the first that went otherwise."""
    for number, (direction, said) in enumerate(steps):
        where = f"step {number}, {direction} {said[:60]!r}"
        speaker = client if direction[0] == ">" else server()
        if said:
            speaker.sendall(said)
        else:
            speaker.shutdown(socket.SHUT_WR)
        listener = server() if direction[0] == ">" else client
        if not said:
            assert listener.recv(1) == b"", where
        elif direction.endswith("h"):
            spelled, _, rest = said.partition(_HEAD_END)
            got, lines = _words(_head(listener)), _words(spelled)
            assert (got[0], set(lines[1:]) - set(got[1:])) == (lines[0], set()), f"{where}: {got}"
            assert exactly(listener, len(rest)) == rest, where
        else:
            assert exactly(listener, len(said)) == said, where


def _head(sock: socket.socket) -> bytes:
    """Not a byte more."""
    found = b""
    while not found.endswith(_HEAD_END):
        piece = sock.recv(1)
        assert piece, found
        found += piece
    return found.removesuffix(_HEAD_END)


def _words(text: bytes) -> list[str]:
    return [line.lower() for line in text.decode().split("\r\n")]


def tls(client: socket.socket, server: Serving) -> None:
    """A handshake, and a request inside of it that would be claimed."""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder, "key"), Path(folder, "certificate")
        files = ("-keyout", str(key), "-out", str(certificate), "-newkey", "rsa:2048", "-subj", "/CN=odd")
        subprocess.run(["openssl", "req", "-x509", "-nodes", *files], check=True, capture_output=True, timeout=SECONDS)
        of_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        of_server.load_cert_chain(certificate, key)
        of_client = ssl.create_default_context(cafile=str(certificate))
    of_client.check_hostname = False
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(of_server.wrap_socket, server().dup(), server_side=True)
        with of_client.wrap_socket(client.dup()) as asking, serving.result(SECONDS) as answering:
            play(asking, lambda: answering, [(">", head("GET / HTTP/1.1", "a: 1")), ("<", _OK), ("<", b"ok")])
