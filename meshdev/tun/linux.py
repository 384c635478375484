"""TUN devices of Linux: opened with python-pytun (root), used through plain descriptors (anyone who holds one).

Sources: Linux ``drivers/net/tun.c`` and ``include/uapi/linux/if_tun.h``.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from meshdev.config import MAX_CARRIERS
from meshdev.errors import DeviceError
from meshdev.tun.device import TunDevice
from meshdev.tun.offload import PROBES, VNET_HEADER_LENGTH

NODE: Final = Path("/dev/net/tun")
_NODE_NUMBER: Final = os.makedev(10, 200)  # Documentation/networking/tuntap.rst

#: The kernel replaces %d by the first free number, so names never collide.
NAME_PATTERN: Final = "meshdev%d"

TUNSETOFFLOAD: Final = 0x400454D0
TUNGETIFF: Final = 0x800454D2
TUNSETVNETHDRSZ: Final = 0x400454D8
TUNSETQUEUE: Final = 0x400454D9

_IFF_ATTACH_QUEUE: Final = 0x0200
_IFF_DETACH_QUEUE: Final = 0x0400
_IFREQ: Final = struct.Struct("16sH22x")  # struct ifreq: name, flags, the rest of its union (40 bytes in all)


class LinuxQueue:
    """A queue of a Linux TUN device (see :class:`~meshdev.tun.device.TunQueue`). Owns *fd* from now on."""

    __slots__ = ("_detached", "_fd")

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        os.set_inheritable(fd, False)
        self._fd = fd
        self._detached = False

    def fileno(self) -> int:
        """The descriptor, or -1 after :meth:`close`."""
        return self._fd

    def attach(self) -> None:
        """Join the device again."""
        if self._detached:
            self._set_queue(_IFF_ATTACH_QUEUE)
            self._detached = False

    def detach(self) -> None:
        """Leave the device; its flows go to the other queues."""
        if not self._detached:
            self._set_queue(_IFF_DETACH_QUEUE)
            self._detached = True

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _set_queue(self, flags: int) -> None:
        try:
            fcntl.ioctl(self._fd, TUNSETQUEUE, _IFREQ.pack(b"", flags))
        except OSError as error:
            raise DeviceError(
                f"the TUN device was removed, or its queues cannot be changed ({error.strerror})",
                hint="did another program remove it? meshdev connect makes a new one",
            ) from error


def wrap_queues(fds: Iterable[int]) -> tuple[LinuxQueue, ...]:
    """Queues for descriptors received by SCM_RIGHTS, which they own from now on."""
    return tuple(LinuxQueue(fd) for fd in fds)


def interface_name(fd: int) -> str:
    """The name of the device behind a queue's descriptor."""
    answer = fcntl.ioctl(fd, TUNGETIFF, _IFREQ.pack(b"", 0))
    name: bytes = _IFREQ.unpack(answer)[0]
    return name.rstrip(b"\0").decode()


def set_offload(fd: int, mask: int) -> None:
    """Set the offloads of the whole device through one of its queues; needs no privilege.

    Raises DeviceError when the kernel does not know one of the flags; the former ones then stay in force.
    """
    try:
        fcntl.ioctl(fd, TUNSETOFFLOAD, mask)
    except OSError as error:
        raise DeviceError(f"the kernel refuses the TUN offloads {mask}: {error.strerror}") from error


def open_tun(queues: int, *, name: str = NAME_PATTERN) -> TunDevice:
    """Make a TUN device with that many queues and the best offloads the kernel supports. Needs CAP_NET_ADMIN.

    The device is down, has no address and is removed with its last queue. Never joins an existing device: raises
    DeviceError if *name* is in use (``%d`` in it becomes a free number).
    """
    if not 1 <= queues <= MAX_CARRIERS:
        raise DeviceError(f"a TUN device has 1 to {MAX_CARRIERS} queues, not {queues}")
    made: list[LinuxQueue] = []
    try:
        for index in range(queues):
            name, queue = _open_queue(name, exclusive=index == 0)
            made.append(queue)
        offload = _probe(made[0].fileno())
    except BaseException:
        for opened in made:
            opened.close()
        raise
    return TunDevice(name, tuple(made), offload)


def ensure_node(node: Path = NODE) -> None:
    """Make /dev/net/tun where it is missing, as in a container whose /dev is a bare tmpfs. Needs CAP_MKNOD."""
    if node.exists():
        return
    try:
        node.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.mknod(node, 0o600 | 0o020000, _NODE_NUMBER)  # S_IFCHR
    except FileExistsError:
        return
    except OSError as error:
        raise _explain(OSError(errno.ENOENT, error.strerror), node) from error


def _open_queue(name: str, *, exclusive: bool) -> tuple[str, LinuxQueue]:
    # Imported here: users of a queue (the session, tests in memory) need no pytun.
    from pytun import (  # noqa: PLC0415
        IFF_MULTI_QUEUE,
        IFF_NO_PI,
        IFF_TUN,
        IFF_TUN_EXCL,
        IFF_VNET_HDR,
        TunTapDevice,
    )

    flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE | (IFF_TUN_EXCL if exclusive else 0)
    try:
        device = TunTapDevice(name=name, flags=flags, dev=str(NODE))
    except OSError as error:
        raise _explain(error, NODE, name) from error
    try:
        # pytun closes its descriptor with the object and leaves it inheritable: keep a copy of our own.
        fd = fcntl.fcntl(device.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
        actual = str(device.name)
    finally:
        device.close()
    queue = LinuxQueue(fd)
    fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_LENGTH))
    return actual, queue


def _probe(fd: int, attempt: Callable[[int, int], None] = set_offload) -> int:
    for mask in PROBES[:-1]:
        try:
            attempt(fd, mask)
        except DeviceError:
            continue
        return mask
    attempt(fd, PROBES[-1])
    return PROBES[-1]


def _explain(error: OSError, node: Path, name: str = NAME_PATTERN) -> DeviceError:
    """The cause of a failure to open the device, with a hint."""
    if error.errno in {errno.ENODEV, errno.ENXIO, errno.ENOTTY}:
        return DeviceError(f"{node} has no driver behind it", hint="load the kernel module: sudo modprobe tun")
    if error.errno == errno.ENOENT:
        return DeviceError(
            f"{node} does not exist",
            hint="load the kernel module: sudo modprobe tun; "
            "in a container: start it with --device /dev/net/tun --cap-add NET_ADMIN",
        )
    if error.errno in {errno.EPERM, errno.EACCES}:
        return DeviceError(
            f"no permission to make a TUN device ({error.strerror})",
            hint="root with CAP_NET_ADMIN is needed; in a container: --device /dev/net/tun --cap-add NET_ADMIN",
        )
    if error.errno in {errno.EBUSY, errno.EEXIST}:
        return DeviceError(f"a network device named {name} exists already", hint="meshdev restore removes old ones")
    if error.errno == errno.EINVAL:
        return DeviceError(
            f"{node} does not support multi-queue devices with a vnet header ({error.strerror})",
            hint="meshdev needs Linux's own tun driver, not that of a sandbox",
        )
    return DeviceError(
        f"{node} cannot be opened: {error.strerror or error}", hint="the kernel's log (dmesg) may say more"
    )
