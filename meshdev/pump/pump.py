"""One carrier's pump: packets from a TUN queue to a byte stream and back, in large batches.

Back-pressure needs no buffer of its own: while the stream is full the queue is not read, the kernel's queue of that
TUN device fills and TCP slows down. So a pump holds at most one batch to send and one unfinished frame.
"""

import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from meshdev.config import HEARTBEAT_SECONDS, SILENCE_SECONDS
from meshdev.errors import MeshdevError, PeerClosed, ProtocolError, TunnelError
from meshdev.pump.loop import READABLE, WRITABLE, Loop, Timer
from meshdev.pump.transport import ByteTransport
from meshdev.tun.offload import VNET_HEADER_LENGTH, gso_types, is_sound
from meshdev.wire import frames
from meshdev.wire.framing import Framing

log = logging.getLogger(__name__)

#: A batch is complete once it holds this much: four full packets. More gains nothing (measured) and costs latency.
BATCH_BYTES: Final = 256 * 1024
#: Packets of one batch: limits how long small packets wait for each other.
BATCH_PACKETS: Final = 64
#: A turn of reading ends after this much, so that one busy carrier does not starve the others. In the worst case,
#: frames without a body, that is 65,536 frames and 60 ms (measured; small packets: 17 ms).
TURN_BYTES: Final = 256 * 1024
#: Control frames that may wait for a full stream before the carrier is considered dead.
MAX_WAITING_CONTROL: Final = 256


@dataclass
class Counters:
    """Packets and bytes since the pump started."""

    packets_out: int = 0
    bytes_out: int = 0
    packets_in: int = 0
    bytes_in: int = 0
    dropped: int = 0
    malformed: int = 0
    """Of those dropped: packets with a header that no kernel generates."""


class Pump:
    """Joins one TUN queue and one byte stream; belongs to the loop's thread.

    *on_frame* gets every frame that is neither packet nor heartbeat. *on_end* is called once, when the stream has ended
    or must not be used any more; by then the pump has closed its transport. The queue stays its owner's.
    """

    def __init__(
        self,
        loop: Loop,
        transport: ByteTransport,
        framing: Framing,
        *,
        on_frame: Callable[[int, bytes], None],
        on_end: Callable[[MeshdevError], None],
    ) -> None:
        self.counters = Counters()
        self.round_trip: float | None = None
        """Seconds the last heartbeat took; None before the first answer."""
        self.last_received = loop.clock()
        self._loop = loop
        self._transport = transport
        self._framing = framing
        self._on_frame = on_frame
        self._on_end = on_end
        self._decoder = frames.FrameDecoder()
        self._queue: int | None = None
        self._queue_armed = False
        self._gso_types: frozenset[int] = frozenset()
        self._batch = bytearray()
        self._batch_view = memoryview(self._batch)
        self._unsent: memoryview | bytes = b""
        self._control: deque[bytes] = deque()
        self._echo: bytes | None = None
        self._stream_events = READABLE
        self._ended = False
        self._heartbeat: Timer | None = None

    def start(self, *, ping: bool, greeting: bytes = b"") -> None:
        """Begin to read the stream; *greeting* is the first frame sent.

        *ping*: this end sends the heartbeats; both ends watch for silence.
        """
        self._loop.register(self._transport.fileno(), self._stream_events, self._on_stream)
        if greeting:
            self.send(greeting)
        if not self._ended:
            self._beat(ping)

    def attach(self, queue: int, offload: int) -> None:
        """Begin to move packets of the TUN queue with descriptor *queue* (non-blocking, vnet header).

        *offload* is the mask of TUN_F_* that both ends agreed on. Raises TunnelError when the pump has ended.
        """
        if self._ended:
            raise TunnelError("the carrier ended before it was attached")
        self._gso_types = gso_types(offload)
        self._batch = bytearray(self._framing.headroom + BATCH_BYTES + frames.HEADER_SIZE + frames.MAX_PACKET)
        self._batch_view = memoryview(self._batch)
        self._queue = queue
        self._queue_armed = not self._unsent
        self._loop.register(queue, READABLE if self._queue_armed else 0, self._on_queue)

    def send(self, frame: bytes) -> None:
        """Send a control frame ahead of waiting packets."""
        if self._ended:
            return
        if len(self._control) >= MAX_WAITING_CONTROL:
            self.end(TunnelError("the carrier takes no more control messages"))
            return
        self._control.append(frame)
        self._flush()

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._ended

    @property
    def waiting(self) -> int:
        """Control frames for which the stream has no room yet."""
        return len(self._control)

    def ask(self) -> None:
        """Send an extra heartbeat, unless it would have to wait behind other frames."""
        if not self._control:
            self.send(self._heartbeat_frame())

    def end(self, error: MeshdevError) -> None:
        """Stop, close the transport, release the queue, pass *error* to *on_end*. A second call does nothing."""
        if self._ended:
            return
        self._ended = True
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        self._loop.unregister(self._transport.fileno())
        self._transport.close()
        if self._queue is not None:
            self._loop.unregister(self._queue)
            self._queue = None
        # A third of a MiB that a reference cycle would keep until the next garbage collection.
        self._batch, self._batch_view, self._unsent = bytearray(), memoryview(b""), b""
        self._on_end(error)

    def _beat(self, ping: bool) -> None:
        now = self._loop.clock()
        if now - self.last_received > SILENCE_SECONDS and not self._late_data():
            self.end(TunnelError(f"nothing came through the carrier for {SILENCE_SECONDS:.0f} seconds"))
            return
        if ping:
            self.send(self._heartbeat_frame())
        if not self._ended:
            self._heartbeat = self._loop.call_later(HEARTBEAT_SECONDS, lambda: self._beat(ping))

    def _heartbeat_frame(self) -> bytes:
        return frames.frame(frames.PING, int(self._loop.clock() * 1e9).to_bytes(frames.PING_SIZE, "big"))

    def _late_data(self) -> bool:
        """Read pending data before deciding: this process may have been stopped, not the peer."""
        before = self.last_received
        self._receive()
        return self._ended or self.last_received > before

    def _on_stream(self, events: int) -> None:
        if events & WRITABLE:
            self._flush()
        if events & ~WRITABLE and not self._ended:
            self._receive()

    # -- to the stream ---------------------------------------------------------------------------------------------

    def _on_queue(self, _events: int) -> None:
        queue = self._queue
        if queue is None or self._unsent:  # the event predates the full stream
            return
        view, readv, start = self._batch_view, os.readv, self._framing.headroom
        end, packets = start, 0
        try:
            while packets < BATCH_PACKETS and end - start < BATCH_BYTES:
                size = readv(queue, [view[end + frames.HEADER_SIZE :]])
                if size < frames.MIN_PACKET:  # a runt from a raw socket: the peer would reject it as hostile
                    self.counters.dropped += 1
                    break
                view[end : end + frames.HEADER_SIZE] = frames.header(frames.PACKET, size)
                end += frames.HEADER_SIZE + size
                packets += 1
        except BlockingIOError:
            pass
        except OSError as error:
            self.end(TunnelError(f"the TUN queue cannot be read: {error.strerror}"))
            return
        if packets:
            self.counters.packets_out += packets
            self.counters.bytes_out += end - start
            self._unsent = self._framing.wrap(self._batch, start, end)
            self._flush()

    def _flush(self) -> None:
        try:
            while True:
                while self._unsent:
                    sent = self._transport.send(self._unsent)
                    self._unsent = b"" if sent == len(self._unsent) else self._unsent[sent:]
                if not self._next_control():
                    break
        except BlockingIOError:
            self._await_room(True)
        except OSError as error:
            self.end(TunnelError(f"the carrier broke: {error.strerror or error}"))
        else:
            self._await_room(False)

    def _next_control(self) -> bool:
        answer = self._framing.outgoing()
        if answer:
            self._unsent = answer
        elif self._control:
            headroom = self._framing.headroom
            buffer = bytearray(headroom) + self._control.popleft()
            self._unsent = self._framing.wrap(buffer, headroom, len(buffer))
        else:
            return False
        return True

    def _await_room(self, full: bool) -> None:
        """While the stream is full do not read its queue; others are unaffected."""
        events = READABLE | WRITABLE if full else READABLE
        if events != self._stream_events:
            self._stream_events = events
            self._loop.modify(self._transport.fileno(), events)
        if self._queue is not None and self._queue_armed == full:
            self._queue_armed = not full
            self._loop.modify(self._queue, 0 if full else READABLE)

    # -- from the stream -------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        try:
            received = self._read_turn()
        except OSError as error:
            self.end(TunnelError(f"the carrier broke: {error.strerror or error}"))
            return
        except MeshdevError as error:
            self.end(error)
            return
        if self._ended:
            return
        if received:
            self.last_received = self._loop.clock()
        if self._echo is not None:
            echo, self._echo = self._echo, None
            self.send(frames.frame(frames.PONG, echo))
        elif not self._unsent:
            self._flush()  # the framing may have an answer to send

    def _read_turn(self) -> int:
        """Read pending data, up to a turn's limit; returns the number of bytes."""
        view, recv_into, take = self._loop.scratch, self._transport.recv_into, self._take
        received = 0
        while received < TURN_BYTES:
            try:
                size = recv_into(view)
            except BlockingIOError:
                break
            if not size:
                raise PeerClosed("the carrier was closed by the other end")
            received += size
            for payload in self._framing.unwrap(view[:size]):
                take(payload)
                if self._ended:
                    return received
        return received

    def _take(self, payload: memoryview) -> None:
        for kind, body in self._decoder.feed(payload):
            if kind == frames.PACKET:
                self._deliver(body)
            elif kind == frames.PING:
                self._echo = bytes(body)  # one answer a turn: only the last heartbeat counts
            elif kind == frames.PONG:
                self.round_trip = max(0.0, self._loop.clock() - int.from_bytes(body, "big") / 1e9)
            else:
                self._on_frame(kind, bytes(body))
            if self._ended:
                return

    def _deliver(self, packet: memoryview) -> None:
        if self._queue is None:
            raise ProtocolError("a packet came before the session was agreed")
        if not is_sound(packet, self._gso_types):
            # Dropped, but the carrier goes on: kernels that we do not know may generate other headers.
            if not self.counters.malformed:
                log.warning("a packet with a malformed header is dropped: %s", packet[:VNET_HEADER_LENGTH].hex())
            self.counters.malformed += 1
            self.counters.dropped += 1
            return
        try:
            os.write(self._queue, packet)
        except OSError:
            # The kernel rejects an invalid packet (EINVAL), or its queue is full: IP may drop packets, TCP recovers.
            self.counters.dropped += 1
        else:
            self.counters.packets_in += 1
            self.counters.bytes_in += len(packet)
