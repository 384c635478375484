"""The network namespaces of pods and laptops: sockets of the test itself in there."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.cluster import addresses
from tests.cluster.paths import NETNS
from tests.e2e import pods

_CLONE_NEWNET: Final = 0x40000000


def of_pod(pod: pods.Pod) -> Path:
    """The file that stands for it, as long as one of its processes runs."""
    return Path(f"/proc/{next(iter(pods.processes(pod)))}/ns/net")


def of_laptop(number: int) -> Path:
    """The file that stands for it."""
    return NETNS / addresses.laptop(number).namespace


@contextmanager
def inside(network: Path) -> Iterator[None]:
    """Sockets that this thread makes in the block are of that network, and stay so."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as home, network.open() as there:
        assert libc.setns(there.fileno(), _CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert libc.setns(home.fileno(), _CLONE_NEWNET) == 0
