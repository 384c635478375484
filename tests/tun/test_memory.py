"""The pair in memory and the virtio-net header."""

import os

import pytest

from meshdev.tun.memory import memory_pair
from meshdev.tun.offload import PACKET_LIMIT, PROBES


def test_what_one_writes_the_other_reads_packet_by_packet() -> None:
    left, right = memory_pair(queues=2)
    for number, size in ((0, 40), (1, PACKET_LIMIT), (0, 1500)):
        os.writev(left.queues[number].fileno(), [bytes(10), bytes(size - 10)])
    buffer = bytearray(PACKET_LIMIT)
    assert os.readv(right.queues[0].fileno(), [buffer]) == 40
    assert os.readv(right.queues[0].fileno(), [buffer]) == 1500
    assert os.readv(right.queues[1].fileno(), [buffer]) == PACKET_LIMIT
    with pytest.raises(BlockingIOError):
        os.readv(right.queues[0].fileno(), [buffer])
    left.close()
    right.close()
    left.close()
    assert left.queues[0].fileno() == -1


def test_detaching_drops_what_waits() -> None:
    left, right = memory_pair()
    os.write(left.queues[0].fileno(), bytes(40))
    right.queues[0].detach()
    right.queues[0].attach()
    with pytest.raises(BlockingIOError):
        os.read(right.queues[0].fileno(), 100)
    left.close()
    right.close()


def test_the_best_offloads_are_tried_first() -> None:
    assert PROBES == (103, 7, 1, 0)
