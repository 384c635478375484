"""Whether a network of one's own works here: tried for real, in a child that ends at once."""

import fcntl
import os
import struct
from pathlib import Path
from typing import Final, NoReturn

from meshdev.isolation.own import StepError, facts, make_namespaces
from meshdev.isolation.reasons import STEPS, Forbidden, Works, explain

_NODE: Final = "/dev/net/tun"
#: ``include/uapi/linux/if_tun.h``: the request, and IFF_TUN | IFF_NO_PI in a struct ifreq.
_TUNSETIFF: Final = 0x400454CA
_REQUEST: Final = struct.pack("16sH22x", b"meshdev%d", 0x1001)
_ANSWER: Final = struct.Struct("=Bi")


def probe() -> Works | Forbidden:
    """Make the namespaces and a TUN device in them, as the helper will. Call it while there are no threads.

    Takes some milliseconds; leaves nothing.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _try_and_exit(writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if len(answer) != _ANSWER.size:  # killed in between, by whatever forbids it
        return explain("namespaces", 0, facts())
    step, number = _ANSWER.unpack(answer)
    return Works() if step == len(STEPS) else explain(STEPS[step], number, facts())


def _try_and_exit(writing: int) -> NoReturn:
    try:
        os.write(writing, _ANSWER.pack(*_try()))
    finally:  # never back into the caller's code, which is the parent's
        os._exit(0)


def _try() -> tuple[int, int]:
    try:
        make_namespaces(Path(__file__))  # any file will do for a resolv.conf: nobody reads it
    except StepError as error:
        return STEPS.index(error.step), error.number
    try:
        _make_device()
    except OSError as error:
        return STEPS.index("device"), error.errno or 0
    return len(STEPS), 0


def _make_device() -> None:
    """It is removed as its descriptor is closed."""
    fd = os.open(_NODE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, _REQUEST)
    finally:
        os.close(fd)
