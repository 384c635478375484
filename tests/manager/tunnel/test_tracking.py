"""What connection tracking forgets beside the loop: nobody waits for somebody else's table, or forever."""

from collections.abc import Callable
from ipaddress import IPv4Address
from threading import Event

import pytest

from meshdev.errors import FirewallError
from meshdev.manager.tunnel import tracking
from meshdev.manager.tunnel.tracking import Tracking
from meshdev.netlink.messages import Flow
from tests.loops import DEADLINE_SECONDS

ANN, BOB = IPv4Address("198.18.0.2"), IPv4Address("198.18.0.3")


class Kernel:
    """Forgets what it is asked to, once :attr:`free`."""

    def __init__(self) -> None:
        self.free, self.busy = Event(), Event()
        self.flushed: list[set[IPv4Address]] = []
        self.cut: list[set[bytes]] = []
        self.error: BaseException | None = None

    def forget_addresses(self, addresses: set[IPv4Address]) -> None:
        self.busy.set()
        assert self.free.wait(DEADLINE_SECONDS)
        self.flushed.append(addresses)
        if self.error is not None:
            raise self.error

    def forget_flows(self, chosen: Callable[[Flow], bool], holding: set[bytes]) -> None:
        found = {(address.packed, port) for address in (ANN, BOB) for port in (20_000, 20_001)}
        flows = [Flow(2, 6, (b"from", 1), (b"pod!", port), (address, port), b"") for address, port in found]
        assert {flow.went_to[0] for flow in flows if chosen(flow)} <= holding
        self.cut.append({flow.went_to[0] + bytes(str(flow.sent_to[1]), "ascii") for flow in flows if chosen(flow)})


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(tracking, "forget_addresses", made.forget_addresses)
    monkeypatch.setattr(tracking, "forget_flows", made.forget_flows)
    return made


def test_a_cut_does_not_wait_for_a_flush(kernel: Kernel) -> None:
    tracked = Tracking()
    flushed = tracked.flush(ANN)
    tracked.cut(BOB).result(DEADLINE_SECONDS)
    assert kernel.cut == [{BOB.packed + b"20000", BOB.packed + b"20001"}]
    tracked.cut(ANN, {20_001}).result(DEADLINE_SECONDS)
    assert kernel.cut[1] == {ANN.packed + b"20001"}
    assert not flushed.done()
    kernel.free.set()
    flushed.result(DEADLINE_SECONDS)


def test_those_who_wait_share_one_look(kernel: Kernel) -> None:
    tracked = Tracking()
    first = tracked.flush(ANN)
    assert kernel.busy.wait(DEADLINE_SECONDS)
    rest = [tracked.flush(address) for address in (ANN, BOB, BOB)]
    kernel.free.set()
    for future in (first, *rest):
        future.result(DEADLINE_SECONDS)
    assert kernel.flushed == [{ANN}, {ANN, BOB}]


@pytest.mark.parametrize(
    ("error", "kind"),
    [(OSError(16, "busy"), FirewallError), (ValueError("nonsense"), ValueError), (MemoryError(), MemoryError)],
)
def test_no_error_leaves_anybody_waiting(kernel: Kernel, error: BaseException, kind: type[BaseException]) -> None:
    tracked = Tracking()
    kernel.error = error
    kernel.free.set()
    assert isinstance(tracked.flush(ANN).exception(DEADLINE_SECONDS), kind)
    kernel.error = None
    tracked.flush(ANN).result(DEADLINE_SECONDS)
