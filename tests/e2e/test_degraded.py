"""What other programs take away is put back within two seconds; what cannot be put back is told, never "connected"."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import pytest

from tests.e2e.conftest import Laptop, control, until

pytestmark = pytest.mark.cluster

#: Design: so long after something was taken away it is back; and what does not work is told.
REPAIRED_SECONDS: Final = 2.0
TOLD_SECONDS: Final = 3.0
#: When systemd-resolved repeats a query (DNS_TIMEOUT_USEC of resolved-dns-transaction.c: 5 s), and a bit.
REPEATED_SECONDS: Final = 7.0
#: And that it is whole, once two checks in a row have found it so.
WHOLE_SECONDS: Final = 8.0

#: Tries a name and a ClusterIP until both work, each time anew and briefly, and prints when that was.
_WORKS: Final = """
import socket, sys, time
start, address = time.monotonic(), sys.argv[1]
while time.monotonic() - start < 20:
    try:
        socket.getaddrinfo("c.default.svc.cluster.local", 80, socket.AF_INET)
        with socket.create_connection((address, 80), 0.5) as sock:
            sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            assert b"service-c" in sock.recv(4096) + sock.recv(4096)
            sys.exit(print(time.monotonic() - start))
    except (OSError, AssertionError):
        time.sleep(0.02)
"""


#: A packet filter of somebody else's that lets nothing pass into the device.
_FILTER: Final = """
nft 'add table inet other; add chain inet other out { type filter hook output priority 9; }'
nft add rule inet other out oifname meshdev0 drop
"""


#: Takes the address of our device away, asks systemd-resolved for a name meanwhile, and lets the helper repair it only
#: then; prints how long the answer took after that.
_ASK_WITHOUT_ADDRESS: Final = """
import os, signal, socket, subprocess, sys, time
import dns.message, dns.rdatatype
helper, query = int(sys.argv[1]), dns.message.make_query(sys.argv[2], dns.rdatatype.A)
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("127.0.0.53", 53))
os.kill(helper, signal.SIGSTOP)
try:
    subprocess.run(["ip", "addr", "flush", "dev", "meshdev0"], check=True)
    sock.send(query.to_wire())
    sock.settimeout(0.3)
    try:
        sys.exit(f"answered without an address: {dns.message.from_wire(sock.recv(4096))}")
    except TimeoutError:
        pass
finally:
    os.kill(helper, signal.SIGCONT)
start = time.monotonic()
sock.settimeout(20)
assert dns.message.from_wire(sock.recv(4096)).answer
print(time.monotonic() - start)
"""


@pytest.fixture(scope="module", params=[1, 2], ids=["plain", "resolved"])
def there(request: pytest.FixtureRequest) -> Iterator[Laptop]:
    """Connected once for all on each laptop: every test leaves it whole."""
    laptop = Laptop(request.param)
    laptop.clean()
    with laptop.connected():
        yield laptop


@pytest.fixture
def there2(laptop2: Laptop) -> Iterator[Laptop]:
    """Laptop 2, connected."""
    with laptop2.connected():
        yield laptop2


def works_within(laptop: Laptop, seconds: float) -> None:
    """A name and a ClusterIP work that soon."""
    address = control("kubectl", "get", "service", "c", "-o", "jsonpath={.spec.clusterIP}")
    took = float(laptop.ok("python", "-c", _WORKS, address))
    print(f"works after {took:.2f} s")
    assert took < seconds, laptop.status()["notes"]


def degraded(laptop: Laptop, *words: str, seconds: float = TOLD_SECONDS) -> dict[str, Any]:
    """The first status that says so with a note that has all of *words*; it must come that soon."""

    def told() -> dict[str, Any] | None:
        status = laptop.status()
        named = any(all(word in note for word in words) for note in status["notes"])
        return status if status["state"] == "degraded" and named else None

    found: dict[str, Any] = until(f"degraded: {' '.join(words)}", told, seconds)
    return found


def connected(laptop: Laptop) -> None:
    """And soon it says so again; where it does not, the failure has the last status' notes and the session's log."""
    last: dict[str, Any] = {}

    def whole() -> bool:
        last.update(laptop.status())
        return bool(last["state"] == "connected")

    try:
        until("connected", whole, WHOLE_SECONDS)
    except AssertionError as error:
        error.add_note(f"{last['state']}: {last['notes']}\n{laptop.log()}")
        raise


@pytest.mark.parametrize(
    "harm",
    [
        "ip route del 10.96.0.0/16 dev meshdev0",
        "ip route flush dev meshdev0",
        "ip link set meshdev0 down; ip link set meshdev0 up",
        "ip link set meshdev0 down",
        "ip addr flush dev meshdev0",
    ],
)
def test_routes_and_links_are_put_back(there: Laptop, harm: str) -> None:
    there.ok("sh", "-c", harm)
    works_within(there, REPAIRED_SECONDS)
    connected(there)


@pytest.mark.parametrize(
    "harm",
    [
        "resolvectl revert meshdev0",
        "resolvectl dns meshdev0 203.0.113.53",
        "resolvectl domain meshdev0 office.test",
        "resolvectl default-route meshdev0 no; resolvectl domain meshdev0 ''",
    ],
)
def test_the_settings_of_our_link_are_put_back(there2: Laptop, harm: str) -> None:
    there2.ok("sh", "-c", harm)
    works_within(there2, REPAIRED_SECONDS)
    connected(there2)


def test_a_restarted_resolved_is_told_again(there2: Laptop) -> None:
    control("restart", "laptop2-resolved")
    works_within(there2, REPAIRED_SECONDS)
    connected(there2)


def test_a_stopped_resolved_is_told(there2: Laptop) -> None:
    there2.ok("sh", "-c", "kill -STOP $(pidof systemd-resolved)")
    try:
        degraded(there2, "resolv", seconds=TOLD_SECONDS + 1)  # the status command itself takes a while
    finally:
        there2.ok("sh", "-c", "kill -CONT $(pidof systemd-resolved)")
    until("connected", lambda: there2.status()["state"] == "connected", 15)


def test_a_name_asked_for_without_our_address_is_answered(there2: Laptop) -> None:
    """Its first packet is lost; its repetition comes from another address of the laptop, on the same socket."""
    helper = str(there2.status()["pids"]["helper"])
    took = float(there2.ok("python", "-c", _ASK_WITHOUT_ADDRESS, helper, "a.default.svc.cluster.local"))
    print(f"answered after {took:.2f} s")
    assert took < REPEATED_SECONDS
    works_within(there2, REPAIRED_SECONDS)
    connected(there2)


def test_a_policy_rule_of_another_program_is_named(there: Laptop) -> None:
    """It cannot be repaired: it is that program's own."""
    there.ok("sh", "-c", "ip route add 10.96.0.0/16 dev lo table 77; ip rule add to 10.96.0.0/16 lookup 77 pref 99")
    try:
        degraded(there, "table 77, ip rule 99", "by lo", "since")
        assert there.meshdev("status").startswith("Connected (degraded) to")
    finally:
        there.ok("sh", "-c", "ip rule del pref 99; ip route flush table 77")
    connected(there)
    works_within(there, REPAIRED_SECONDS)


def test_more_specific_routes_of_another_program_are_named(there: Laptop) -> None:
    """They stay, as every network of this machine does; the nameserver, a single address, is reached all the same."""
    there.ok("sh", "-c", "ip route add 10.96.0.0/17 dev lo; ip route add 10.96.128.0/17 dev lo")
    try:
        degraded(there, "10.96.128.0/17 (lo)", "came later", "since")
    finally:
        there.ok("sh", "-c", "ip route del 10.96.0.0/17 dev lo; ip route del 10.96.128.0/17 dev lo")
    connected(there)
    works_within(there, REPAIRED_SECONDS)


def test_what_nobody_foresaw_is_told(there: Laptop) -> None:
    there.ok("sh", "-c", _FILTER)
    try:
        degraded(there, "nameserver")
    finally:
        there.ok("nft", "delete", "table", "inet", "other")
    connected(there)


def _ended(laptop: Laptop) -> bool:
    return bool(laptop.status()["state"] == "disconnected")


def test_failures_are_not_remembered(there: Laptop) -> None:
    """systemd-resolved keeps SERVFAIL for 10 s: once it is over names work at once."""
    there.ok("sh", "-c", _FILTER)
    try:
        there.run("getent", "ahostsv4", "c.default.svc.cluster.local", timeout=20)
        degraded(there, "nameserver")
        there.run("getent", "ahostsv4", "c.default.svc.cluster.local", timeout=20)
    finally:
        there.ok("nft", "delete", "table", "inet", "other")
    works_within(there, REPAIRED_SECONDS)


def test_a_removed_device_ends_the_connection(laptop: Laptop, laptop2: Laptop) -> None:
    for one in (laptop, laptop2):
        before = one.snapshot()
        one.meshdev("connect")
        one.ok("ip", "link", "del", "meshdev0")
        began = time.monotonic()
        until("disconnected", partial(_ended, one), 5)
        print(f"ended after {time.monotonic() - began:.1f} s")
        status = one.status()
        assert status["leftovers"] == []
        assert [("ended at" in note and "device was removed" in note) for note in status["notes"]] == [True], status
        assert one.snapshot() == before
        one.meshdev("disconnect")
        assert one.status()["notes"] == []
