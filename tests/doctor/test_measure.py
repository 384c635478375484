"""What a port-forward carries, measured at the real tunnel server."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from meshdev.doctor.measure import measure
from meshdev.errors import PeerClosed, TunnelError
from meshdev.kube.portforward import PortForward
from meshdev.pump.transport import SocketTransport
from meshdev.wire import frames
from meshdev.wire.framing import PlainFraming
from tests.manager.standin import Manager, Visitor, hello


def forwarded(sock: socket.socket) -> PortForward:
    """As the kubelet forwards it."""
    return PortForward(SocketTransport(sock), PlainFraming(), "spdy")


def test_it_measures_and_makes_no_session(manager: Manager) -> None:
    with Visitor(manager) as ann:
        ann.say(hello("ann")).welcome()
        dialled = forwarded(socket.create_connection(manager.address))
        found = measure(dialled, 5.0)
        assert 0 < found.round_trip < 1
        assert found.upload is not None
        assert found.upload > 1e5
        assert dialled.transport.fileno() == -1
        assert manager.holders() == ["ann"]


@contextmanager
def peer(answer: bytes, *, closes: bool) -> Iterator[socket.socket]:
    """Our end of a connection whose other end says that much and no more."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        if closes:
            theirs.shutdown(socket.SHUT_WR)
        yield ours


def test_one_that_never_answers() -> None:
    with peer(b"", closes=False) as sock, pytest.raises(TunnelError, match="did not answer in time"):
        measure(forwarded(sock), 0.2)


def test_one_that_closes() -> None:
    with peer(b"", closes=True) as sock, pytest.raises(PeerClosed):
        measure(forwarded(sock), 5.0)


def test_one_that_carries_heartbeats_only() -> None:
    ours, theirs = socket.socketpair()

    def echo() -> None:
        """Three heartbeats, then nothing is read any more."""
        decoder, beats = frames.FrameDecoder(), 0
        while beats < 3:
            for kind, body in decoder.feed(memoryview(theirs.recv(65536))):
                assert kind == frames.PING
                theirs.sendall(frames.frame(frames.PONG, bytes(body)))
                beats += 1

    thread = threading.Thread(target=echo)
    with ours, theirs:
        thread.start()
        found = measure(forwarded(ours), 0.5)
        thread.join()
    assert found.round_trip < 0.5
    assert found.upload is None
