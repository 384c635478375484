"""What fails beside the names keeps no name from coming to us, and no error of the kernel ends a session."""

import errno
import time
from typing import Any
from unittest.mock import Mock

import pytest

from meshdev.errors import FirewallError
from meshdev.helper.laptop import Laptop
from meshdev.helper.upkeep import Upkeep
from meshdev.netlink.sock import Netlink
from meshdev.wire.helper.answers import Done
from meshdev.wire.helper.requests import SetDns


@pytest.fixture
def laptop() -> Any:
    """A Laptop without its surroundings: only the order of its calls is looked at."""
    laptop: Any = Laptop.__new__(Laptop)
    laptop._dns, laptop._containers, laptop._device = Mock(), Mock(), Mock()
    laptop._dns_active, laptop._names = False, None
    return laptop


def test_names_come_though_containers_cannot_be_let_in(laptop: Any) -> None:
    laptop._containers.follow.side_effect = FirewallError("no")
    assert laptop.handle(SetDns(("x",), ("y",))).result == Done()
    assert laptop.needs_beat
    with pytest.raises(FirewallError):
        laptop._refresh_names()
    laptop._dns.refresh.assert_called_once_with()


def test_half_of_the_way_is_withdrawn_whatever_failed(laptop: Any) -> None:
    laptop._dns.activate.side_effect = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        laptop.handle(SetDns(("x",), ("y",)))
    laptop._dns.withdraw.assert_called_once_with()
    assert not laptop.needs_beat


def test_an_error_of_the_kernel_is_told_with_the_beat() -> None:
    def full() -> str | None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Netlink() as netlink:
        upkeep = Upkeep(netlink)
        upkeep.check("names", full)
        problems, _ = upkeep.report(time.monotonic())
        upkeep.close()
    assert len(problems) == 1
    assert "No space left" in problems[0]
