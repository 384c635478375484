"""What fails beside the names keeps no name from coming to us, and no error of the kernel ends a session."""

import errno
import time
from typing import Any
from unittest.mock import Mock

import pytest

from meshdev.errors import DnsError, FirewallError, LaptopError
from meshdev.helper.laptop import LaptopChanges
from meshdev.helper.upkeep import Upkeep
from meshdev.netlink.sock import Netlink
from meshdev.wire.helper.answers import DnsSet
from meshdev.wire.helper.requests import Heartbeat, SetDns
from meshdev.wire.resolv_conf import ResolvConf


@pytest.fixture
def laptop() -> Any:
    """LaptopChanges without its surroundings: only the order of its calls is looked at."""
    laptop: Any = LaptopChanges.__new__(LaptopChanges)
    laptop._dns, laptop._containers, laptop._device = Mock(), Mock(), Mock()
    laptop._containers.asks_us = False
    laptop._dns_active, laptop._names, laptop._firewall = False, None, None
    laptop.upkeep = Mock()
    return laptop


def test_names_come_though_containers_cannot_be_let_in(laptop: Any) -> None:
    laptop._containers.follow.side_effect = FirewallError("no")
    assert laptop.handle(SetDns(("x",), ("y",))).result == DnsSet(None)
    assert laptop.needs_beat


def test_each_is_told_under_its_own_name(laptop: Any) -> None:
    laptop._dns.former.return_value = ResolvConf()
    laptop.handle(SetDns(("x",), ("y",)))
    laptop._containers.follow.side_effect = FirewallError("no nftables")
    with Netlink() as netlink:
        laptop.upkeep = Upkeep(netlink)
        beat = laptop.handle(Heartbeat()).result
        laptop.upkeep.close()
    assert beat.problems == ("containers of this machine do not reach the cluster: no nftables",)
    laptop._dns.refresh.assert_called_once_with()


def test_a_cache_that_forgets_nothing_is_no_reason_to_go_without_names(laptop: Any) -> None:
    laptop._dns.forget_answers.side_effect = DnsError("systemd-resolved does not answer within 2 s")
    note = laptop.handle(SetDns(("x",), ("y",))).result.note
    assert "a cache may give answers from before the connection for a while: systemd-resolved does not answer" in note
    assert laptop.needs_beat
    laptop._containers.follow.assert_called_once()
    laptop._dns.withdraw.assert_not_called()


def test_containers_are_silenced_though_the_machines_own_names_cannot_be(laptop: Any) -> None:
    laptop._dns_active = True
    laptop._dns.withdraw.side_effect = DnsError("/etc/resolv.conf cannot be written")
    with pytest.raises(DnsError):
        laptop.silence()
    laptop._containers.silence.assert_called_once_with()
    assert laptop.needs_beat, "it is tried again"


def test_the_machines_own_names_are_silenced_though_containers_cannot_be(laptop: Any) -> None:
    laptop._dns_active = laptop._containers.asks_us = True
    laptop._containers.silence.side_effect = FirewallError("no")
    with pytest.raises(FirewallError):
        laptop.silence()
    laptop._dns.withdraw.assert_called_once_with()
    assert laptop.needs_beat, "it is tried again"
    laptop._containers.silence.side_effect, laptop._containers.asks_us = None, False
    laptop.silence()
    assert not laptop.needs_beat


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


def test_an_integration_without_code_is_refused(laptop: Any) -> None:
    laptop.decision = Mock(integration="networkmanager")
    with pytest.raises(LaptopError, match="'networkmanager'"):
        laptop._integration()
