"""libnftables in this process: what it leaves open."""

import os

import pytest

from meshdev.errors import FirewallError
from meshdev.nft import Nftables
from tests.netns.laptop import Laptop


def test_no_descriptor_is_left(laptop: Laptop) -> None:
    """Whoever tries to take a table four times a second would otherwise soon have more than libmnl's select() takes."""
    with laptop.inside():
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- counted, not read
        for _ in range(10):
            library = Nftables()
            assert library.descriptor is not None
            with pytest.raises(FirewallError):
                library.run("no such command")
            library.close()
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 -- the same
