"""A WebSocket echo (RFC 6455): every text or binary message comes back; the text `name?` is answered by the name."""

import base64
import hashlib
import socket
import struct
from io import BufferedReader

from tests.cluster.sample.http1 import Request, Takeover

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10


def echo(request: Request, name: str) -> Takeover:
    """The handshake's answer and the loop behind it."""
    key = (request.values("sec-websocket-key") or [""])[0]
    accept = base64.b64encode(hashlib.sha1(f"{key}{_GUID}".encode(), usedforsecurity=False).digest()).decode()
    head = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )

    def takeover(stream: BufferedReader, connection: socket.socket) -> None:
        connection.sendall(head.encode())
        _loop(stream, connection, name)

    return takeover


def _loop(stream: BufferedReader, connection: socket.socket, name: str) -> None:
    message, kind = b"", _TEXT
    while (received := _frame(stream)) is not None:
        final, opcode, payload = received
        if opcode == _CLOSE:
            connection.sendall(_encode(_CLOSE, payload))
            return
        if opcode == _PING:
            connection.sendall(_encode(_PONG, payload))
        elif opcode in {_CONTINUATION, _TEXT, _BINARY}:
            if opcode != _CONTINUATION:
                message, kind = b"", opcode
            message += payload
            if final:
                answer = name.encode() if (kind, message) == (_TEXT, b"name?") else message
                connection.sendall(_encode(kind, answer))


def _frame(stream: BufferedReader) -> tuple[bool, int, bytes] | None:
    """(final, opcode, payload) of the next frame, or None at the end."""
    head = stream.read(2)
    if len(head) < 2:
        return None
    length = head[1] & 0x7F
    if length >= 126:
        form = "!H" if length == 126 else "!Q"
        (length,) = struct.unpack(form, stream.read(struct.calcsize(form)))
    mask = stream.read(4) if head[1] & 0x80 else b""
    payload = stream.read(length)
    if len(payload) < length:
        return None
    return bool(head[0] & 0x80), head[0] & 0x0F, _unmask(payload, mask)


def _unmask(payload: bytes, mask: bytes) -> bytes:
    if not mask or not payload:
        return payload
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")


def _encode(opcode: int, payload: bytes) -> bytes:
    head = bytes([0x80 | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return head + struct.pack("!BH", 126, len(payload)) + payload
    return head + struct.pack("!BQ", 127, len(payload)) + payload
