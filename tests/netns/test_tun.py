"""Devices of the real kernel."""

import errno
import os
import select
import socket
import struct
import subprocess
import sys
from contextlib import suppress

import pytest

from meshdev.errors import DeviceError
from meshdev.tun.device import TunDevice, TunQueue
from meshdev.tun.linux import LinuxQueue, interface_name, open_tun, set_offload
from meshdev.tun.offload import PACKET_LIMIT, PROBES, VNET_HEADER_LENGTH
from tests.netns.laptop import Laptop


def _up(laptop: Laptop, device: TunDevice) -> None:
    laptop.run("ip", "addr", "add", "198.18.0.7/32", "dev", device.name)
    laptop.run("ip", "link", "set", device.name, "up")
    laptop.run("ip", "route", "add", "10.1.0.0/16", "dev", device.name)


def _packets(queue: TunQueue) -> list[bytes]:
    found = []
    while select.select([queue.fileno()], [], [], 0.05)[0]:
        buffer = bytearray(PACKET_LIMIT)
        found.append(bytes(buffer[: os.readv(queue.fileno(), [buffer])]))
    return found


def _flows_to(queue: TunQueue) -> set[int]:
    """Destination ports of the UDP packets waiting there."""
    found = set()
    for packet in _packets(queue):
        body = packet[VNET_HEADER_LENGTH:]
        if body[0] >> 4 == 4 and body[9] == socket.IPPROTO_UDP:
            found.add(struct.unpack_from(">H", body, 22)[0])
    return found


def _send_flows(laptop: Laptop, ports: range) -> None:
    with laptop.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for port in ports:
            sock.sendto(b"x", ("10.1.2.3", port))


def test_open_takes_the_next_free_name_and_the_best_offload(laptop: Laptop) -> None:
    with laptop.inside():
        first, second = open_tun(3), open_tun(1)
    assert (first.name, second.name) == ("meshdev0", "meshdev1")
    assert len(first.queues) == 3
    assert first.offload in PROBES
    assert first.offload & 7 == 7  # every kernel of this decade
    assert interface_name(first.queues[2].fileno()) == "meshdev0"
    for queue in first.queues:
        assert not os.get_inheritable(queue.fileno())
        with pytest.raises(BlockingIOError):
            os.readv(queue.fileno(), [bytearray(PACKET_LIMIT)])
    first.close()
    first.close()
    second.close()
    assert "meshdev" not in laptop.run("ip", "link")


def test_open_never_joins_a_device_that_exists(laptop: Laptop) -> None:
    with laptop.inside():
        device = open_tun(1, name="work0")
        with pytest.raises(DeviceError, match="work0 exists already"):
            open_tun(1, name="work0")
    device.close()


def test_a_device_that_is_down_refuses_packets(laptop: Laptop) -> None:
    with laptop.inside():
        device = open_tun(1)
    with pytest.raises(OSError, match="Input/output") as caught:
        os.writev(device.queues[0].fileno(), [bytes(VNET_HEADER_LENGTH) + b"\x45" + bytes(39)])
    assert caught.value.errno == errno.EIO
    device.close()


def test_offload_can_be_set_through_a_queue(laptop: Laptop) -> None:
    with laptop.inside():
        device = open_tun(1)
    set_offload(device.queues[0].fileno(), 1)
    with pytest.raises(DeviceError, match="refuses the TUN offloads"):
        set_offload(device.queues[0].fileno(), 0x8000)
    device.close()


def test_flows_of_a_detached_queue_go_to_the_others_and_it_needs_no_privilege(laptop: Laptop) -> None:
    with laptop.inside():
        device = open_tun(2)
    _up(laptop, device)
    ports = range(5000, 5100)
    _send_flows(laptop, ports)
    before = [_flows_to(queue) for queue in device.queues]
    assert all(before)
    assert before[0] | before[1] == set(ports)

    child = os.fork()
    if not child:  # as the session does: another uid, no capability, only the descriptor
        with suppress(BaseException):
            os.setgroups([])
            os.setresuid(65534, 65534, 65534)
            device.queues[0].detach()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0

    _send_flows(laptop, ports)
    assert _flows_to(device.queues[0]) == set()
    assert _flows_to(device.queues[1]) == set(ports)

    os.set_blocking(device.queues[0].fileno(), False)
    queue = LinuxQueue(os.dup(device.queues[0].fileno()))
    queue._detached = True  # the child did it; this object is new
    queue.attach()
    _send_flows(laptop, ports)
    after = [_flows_to(queue) for queue in device.queues]
    assert all(after)
    queue.close()
    device.close()


def test_with_every_queue_detached_packets_are_dropped_and_the_device_stays(laptop: Laptop) -> None:
    with laptop.inside():
        device = open_tun(2)
    _up(laptop, device)
    for queue in device.queues:
        queue.detach()
        queue.detach()
    _send_flows(laptop, range(5000, 5010))
    for queue in device.queues:
        queue.attach()
    assert [_flows_to(queue) for queue in device.queues] == [set(), set()]
    assert "10.1.0.0/16" in laptop.run("ip", "route")
    device.close()


def test_no_node(laptop: Laptop) -> None:
    code = "from meshdev.tun.linux import open_tun; open_tun(1)"
    script = f"mount -t tmpfs none /dev/net && exec {sys.executable} -c '{code}'"
    done = subprocess.run(laptop.command("sh", "-c", script), capture_output=True, text=True, check=False)
    assert "DeviceError: /dev/net/tun does not exist" in done.stderr


def test_no_permission(laptop: Laptop) -> None:
    code = "from meshdev.tun.linux import open_tun; open_tun(1)"
    command = laptop.command(
        "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-c", code
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "DeviceError: no permission to make a TUN device" in done.stderr
