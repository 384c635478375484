"""An open connection: bytes both ways between a client's TLS and a laptop's TCP.

Nothing is read from one side before the last piece for the other is out, so it keeps at most one piece a direction.
Ends are passed on as they are:

====================================  ==================================================================
a close_notify of the client          ends that direction: the laptop gets a FIN, and may go on sending
an end without one                    a truncation (RFC 5246, 7.2.1), as of an Envoy that was killed: the laptop gets
                                      a reset, and does not take half a body for a whole one
... before it said anything           both are closed: an agent has looked whether the laptop listens
a FIN of the laptop                   ends that direction: the client gets a close_notify, and may go on
a reset of either, or silence         the other gets a reset; the client once it has what came before
====================================  ==================================================================
"""

import functools
from collections.abc import Callable
from typing import Final, Protocol

from meshdev.manager.relay.legs import ERROR, HANGUP, Silence, watch
from meshdev.manager.relay.tls import TlsStream
from meshdev.pump.end import NOT_WATCHED, Delivery, SocketEnd
from meshdev.pump.loop import READABLE, WRITABLE, Loop

#: Between two looks whether the client has acknowledged everything, in seconds.
_LOOK_SECONDS: Final = 0.02


class StreamBuffers(Protocol):
    """What connections share."""

    @property
    def loop(self) -> Loop:
        """Their loop."""

    @property
    def piece(self) -> memoryview:
        """Where each of them reads, and how much at a time."""

    @property
    def plain(self) -> memoryview:
        """Where they decrypt: larger than a piece by a record."""


class RelayedStreams:
    """Owns both sockets, which nobody watches, until *ended* is called: with the end of both, or by :meth:`reset`.

    *guard* calls what is due; what that raises (ProtocolError, or a bug) is to be answered by :meth:`reset`.
    """

    __slots__ = (
        *("_buffers", "_client", "_delivering", "_delivery", "_ended", "_guard"),
        *("_laptop", "_on_client", "_on_laptop", "_over", "_sent", "_silence", "_tls"),
    )

    def __init__(
        self,
        client: SocketEnd,
        laptop: SocketEnd,
        tls: TlsStream,
        buffers: StreamBuffers,
        guard: Callable[..., None],
        ended: Callable[[], None],
    ) -> None:
        self._client, self._laptop, self._tls = client, laptop, tls
        self._buffers = buffers
        self._guard = guard
        self._ended = ended
        self._on_client = functools.partial(guard, self._client_ready)
        self._on_laptop = functools.partial(guard, self._laptop_ready)
        self._delivery = Delivery(client, buffers.loop.clock)
        self._silence = Silence()
        self._delivering = self._over = False
        self._sent = False  # to the laptop, anything

    def begin(self) -> None:
        """Pass on what came with the last message of the handshake, and whatever comes."""
        self._from_client(memoryview(b""))
        self._settle()

    def check_laptop(self) -> None:
        """To be called now and then: a laptop that acknowledges nothing is given up."""
        if self._silence.sent and not (self._delivering or self._over):
            self._guard(self._check)

    def reset(self) -> None:
        """End it now, on both sides."""
        self._close(reset=True)

    # Events of the loop

    def _client_ready(self, events: int) -> None:
        client = self._client
        if events & WRITABLE:
            client.flush()
        if events & READABLE and client.events & READABLE:
            self._read_client()
        elif events & (ERROR | HANGUP):
            self.reset()
        self._settle()

    def _laptop_ready(self, events: int) -> None:
        laptop = self._laptop
        if events & WRITABLE:
            laptop.flush()
        if events & READABLE and laptop.events & READABLE:
            self._read_laptop()
        elif events & ERROR and laptop.ended:
            self._abort()
        elif events & (ERROR | HANGUP):
            laptop.parked = True  # what came before the error, or the end, is read when it is wanted
        self._settle()

    def _check(self) -> None:
        if self._silence.lasts(self._laptop, self._buffers.loop.clock()):
            self._abort()
            self._settle()

    # Bytes

    def _read_client(self) -> None:
        piece = self._buffers.piece
        try:
            size = self._client.sock.recv_into(piece)
        except BlockingIOError:
            return
        except OSError:
            self.reset()
            return
        if size:
            self._from_client(piece[:size])
        else:  # without a close_notify before it, after which nothing is read
            self._close(reset=self._sent)

    def _from_client(self, data: memoryview) -> None:
        tls, laptop, plain = self._tls, self._laptop, self._buffers.plain
        size = tls.decrypt(data, plain)
        if size:
            laptop.send(plain[:size])
            self._sent = self._silence.sent = True
        if tls.ended:
            self._client.ended = True
            laptop.finish()

    def _read_laptop(self) -> None:
        laptop, piece = self._laptop, self._buffers.piece
        try:
            size = laptop.sock.recv_into(piece)
        except BlockingIOError:
            return
        except OSError:
            self._abort()
            return
        if size:
            self._client.send(self._tls.encrypt(piece[:size]))
        elif laptop.broken:  # it did not take all that was for it: its end is no orderly one
            self._abort()
        else:
            laptop.ended = True
            self._client.send(self._tls.finish())

    # What follows

    def _settle(self) -> None:
        """After whatever happened: what is wanted of each socket now. Runs for every piece."""
        client, laptop = self._client, self._laptop
        quiet = client.events == laptop.events == READABLE and not (client.out or laptop.out)
        if quiet and not (client.ended or laptop.ended or client.broken or laptop.broken):
            return  # as for most pieces: both are read, and took all that was for them
        if self._over:
            return
        if client.broken:
            self.reset()
        elif self._delivering:
            self._want(client, self._on_client, reading=False)
        elif laptop.closed:
            self._abort()
            self._want(client, self._on_client, reading=False)
        elif client.ended and laptop.ended and not (client.out or laptop.out):
            self._close(reset=False)
        else:
            self._want(client, self._on_client, reading=not (client.ended or laptop.out or laptop.broken))
            self._want(laptop, self._on_laptop, reading=not (laptop.ended or client.out))

    def _want(self, end: SocketEnd, on: Callable[[int], None], *, reading: bool) -> None:
        events = READABLE if reading else 0
        if end.out:
            events |= WRITABLE
        over = not events and (end.parked or (end.ended and end.finished))
        watch(self._buffers.loop, end, NOT_WATCHED if over else events, on)

    def _abort(self) -> None:
        """The laptop's side has failed: reset the client once it has what came before that."""
        self._delivering = True
        watch(self._buffers.loop, self._laptop, NOT_WATCHED, self._on_laptop)
        self._laptop.close(reset=True)
        self._deliver()

    def _deliver(self) -> None:
        if self._over:
            return
        if self._client.broken or not self._delivery.pending:
            self.reset()
        else:
            self._buffers.loop.call_later(_LOOK_SECONDS, functools.partial(self._guard, self._deliver))

    def _close(self, *, reset: bool) -> None:
        if self._over:
            return
        self._over = True
        for end, on in ((self._laptop, self._on_laptop), (self._client, self._on_client)):
            if end.sock.fileno() >= 0:
                watch(self._buffers.loop, end, NOT_WATCHED, on)
                end.close(reset=reset)
        self._ended()
