"""Serving whoever dials: one thread a direction of each stream, between a socketpair and a channel."""

import array
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import paramiko

from meshdev.errors import MeshdevError, ProtocolError, UnreachableError
from meshdev.ssh.bastion import Bastion
from meshdev.wire.session_api import Failed
from meshdev.wire.ssh import MAX_RECORD, AddressesRequest, BastionAddresses, DialRequest, encode_dialled, parse_dial

log = logging.getLogger(__name__)

#: Streams at a time: a session has a dozen.
MAX_STREAMS: Final = 128
_PIECE: Final = 256 << 10


def serve(control: socket.socket, bastion: Bastion) -> None:
    """Answer requests until the last holder of the other end is gone."""
    free = threading.Semaphore(MAX_STREAMS)
    size = array.array("i").itemsize
    while True:
        record, ancillary, _, _ = control.recvmsg(MAX_RECORD, socket.CMSG_SPACE(4 * size))
        streams = [socket.socket(fileno=number) for number in _descriptors(ancillary)]
        if not record:
            return
        if len(streams) == 1:
            threading.Thread(target=_answer, args=(streams[0], record, bastion, free), daemon=True).start()
            continue
        for stream in streams:
            stream.close()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _answer(stream: socket.socket, record: bytes, bastion: Bastion, free: threading.Semaphore) -> None:
    """One request, and the bytes that follow."""
    with stream:
        if not free.acquire(blocking=False):
            _report(stream, Failed.of(UnreachableError(f"there are {MAX_STREAMS} connections through the bastion")))
            return
        try:
            _carry_out(stream, record, bastion)
        finally:
            free.release()


def _carry_out(stream: socket.socket, record: bytes, bastion: Bastion) -> None:
    try:
        match parse_dial(record):
            case DialRequest(host, port):
                channel = bastion.open(host, port)
            case AddressesRequest():
                _report(stream, BastionAddresses(bastion.host, tuple(sorted(bastion.addresses()))))
                return
    except (MeshdevError, ProtocolError) as error:
        _report(stream, Failed.of(error))
        return
    try:
        if _report(stream, BastionAddresses()):
            _copy(stream, channel, bastion.alive)
    finally:
        channel.close()


def _report(stream: socket.socket, answer: BastionAddresses | Failed) -> bool:
    """Whether it could be sent; in one piece, which the other side relies on."""
    with suppress(OSError):
        stream.sendall(encode_dialled(answer))
        return True
    return False  # whoever asked has given up


def _copy(stream: socket.socket, channel: paramiko.Channel, alive: Callable[[], None]) -> None:
    """Both directions, until one of them ends: the streams are those of HTTP and TLS, which end as a whole."""
    back = threading.Thread(target=_to_stream, args=(channel, stream, alive), daemon=True)
    back.start()
    with suppress(OSError, EOFError):  # either side has broken off
        while piece := stream.recv(_PIECE):
            channel.sendall(piece)
            alive()
    channel.close()
    back.join()


def _to_stream(channel: paramiko.Channel, stream: socket.socket, alive: Callable[[], None]) -> None:
    with suppress(OSError, EOFError):
        while piece := channel.recv(_PIECE):
            alive()
            stream.sendall(piece)
    with suppress(OSError):
        stream.shutdown(socket.SHUT_RDWR)  # the other direction ends, too
