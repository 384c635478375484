"""A laptop without nftables: no packet filter, no connection, unless that is what the user wants."""

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Laptop

pytestmark = pytest.mark.cluster

_LIBRARY = "$(ldconfig -p | sed -n 's/.*libnftables.so.1 .*=> //p')"


@pytest.fixture
def bare(laptop: Laptop) -> Iterator[Laptop]:
    """Laptop 1 without libnftables."""
    laptop.ok("sh", "-c", f"mount --bind /dev/null {_LIBRARY}")
    yield laptop
    laptop.clean()
    laptop.ok("sh", "-c", f"umount {_LIBRARY}")


def test_connect_refuses(bare: Laptop) -> None:
    before = bare.snapshot()
    done = bare.run("meshdev", "connect")
    assert done.returncode == 55
    assert "no packet filter can keep the cluster out of this machine" in done.stderr
    assert "--unguarded" in done.stderr
    assert bare.snapshot() == before


def test_unguarded_connects_and_says_so(bare: Laptop) -> None:
    before = bare.snapshot()
    done = bare.run("meshdev", "connect", "--unguarded")
    assert done.returncode == 0, done.stderr
    assert "no packet filter guards the device" in done.stdout + done.stderr
    assert bare.ok("curl", "-sS", "--max-time", "5", "http://b/") == "service-b>service-c"
    bare.meshdev("disconnect")
    assert bare.snapshot() == before
