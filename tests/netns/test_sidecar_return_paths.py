"""The agent finds out which ways to laptops are open, and which are not; one that closes holds up nobody."""

import socket
import time
from typing import Final

import pytest

from meshdev.config import RELAYS_PORT
from meshdev.sidecar.envoy.tls import CONTROL_NAME
from tests.netns.cluster import MANAGER
from tests.netns.sidecar import MINE, SidecarPod, ask, claim, sidecar
from tests.waiting import until

#: As a NetworkPolicy without egress to the manager's relays does it.
_DROPPED = """\
add table inet closed
add chain inet closed egress { type filter hook output priority 0; policy accept; }
add rule inet closed egress tcp dport 15011 drop
"""

#: As a node in between that went away does it. (What is dropped in the pod's own output the kernel sends again as if
#: there was no room for it, and gives up later.)
_DROPPED_THERE = _DROPPED.replace("hook output", "hook input")

#: The first SYN is lost, as at a laptop that does not lead that relay yet.
_FIRST_LOST: Final = """\
add table inet closed
add chain inet closed egress { type filter hook output priority 0; policy accept; }
add rule inet closed egress tcp dport 15011 tcp flags syn numgen inc mod 1000 0 drop
"""
#: The kernel sends a SYN again after this time, in seconds (RFC 6298, 2.1).
_KERNEL_SECONDS: Final = 1.0


async def connected(pod: SidecarPod) -> None:
    await until(lambda: pod.manager.connected)


async def test_open_and_refused() -> None:
    async with sidecar() as pod:
        await connected(pod)
        laptop = await pod.laptop(20001)
        await pod.manager.tries(20001, 20002)
        state = await pod.manager.until(lambda state: len(state.return_paths) == 2)
        assert state.return_paths == ((20001, "open"), (20002, "refused"))
        assert laptop.heard == []
        await pod.manager.tries(20001)
        await pod.manager.until(lambda state: state.return_paths == ((20001, "open"),))
        await pod.manager.tries()
        await pod.manager.until(lambda state: state.return_paths == ())


async def test_a_refusal_that_passes_is_none() -> None:
    async with sidecar() as pod:
        await connected(pod)
        await pod.manager.tries(20001, 20002)
        await pod.laptop(20001)
        state = await pod.manager.until(lambda state: len(state.return_paths) == 2)
        assert state.return_paths == ((20001, "open"), (20002, "refused"))


async def test_what_is_dropped_is_silent_until_it_is_not() -> None:
    async with sidecar() as pod:
        await connected(pod)
        await pod.laptop(20001)
        pod.pod.run("nft", _DROPPED)
        await pod.manager.tries(20001)
        state = await pod.manager.until(lambda state: state.return_paths)
        assert state.return_paths == ((20001, "silent"),)
        pod.pod.run("nft", "delete table inet closed")
        await pod.manager.until(lambda state: state.return_paths == ((20001, "open"),))


async def test_the_first_packet_may_be_lost() -> None:
    async with sidecar() as pod:
        await connected(pod)
        await pod.laptop(20001)
        pod.pod.run("nft", _FIRST_LOST)
        began = time.monotonic()
        await pod.manager.tries(20001)
        await pod.manager.until(lambda state: state.return_paths == ((20001, "open"),))
        assert time.monotonic() - began < _KERNEL_SECONDS


async def test_an_address_without_a_way_is_silent() -> None:
    async with sidecar() as pod:
        await connected(pod)
        pod.pod.run("ip", "route", "add", "unreachable", str(MANAGER + 100))
        await pod.manager.tries(20001, address=MANAGER + 100)
        await pod.manager.until(lambda state: state.return_paths == ((20001, "silent"),))


async def test_a_request_on_a_connection_to_a_laptop_that_has_vanished_ends() -> None:
    """Its kernel would send it again and again for a quarter of an hour."""
    async with sidecar() as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        await pod.manager.claim(claim(MINE))
        await pod.manager.until(lambda state: state.redirected)
        reader, writer = await pod.connect(8080)
        while await ask(reader, writer, a="1") != "laptop":
            pass
        pod.outside.run("nft", _DROPPED_THERE)
        with pytest.raises(ConnectionError, match="connection-lost"):
            await ask(reader, writer, a="1")
        assert await pod.get(a="1") == "original"
        writer.close()


async def test_it_is_open_once_the_relay_takes_the_certificate() -> None:
    async with sidecar() as pod:
        await connected(pod)
        await pod.laptop(20001)
        await pod.laptop(20002)
        pod.relays.refuses.add(20002)
        await pod.manager.tries(20001, 20002)
        state = await pod.manager.until(lambda state: len(state.return_paths) == 2)
        assert state.return_paths == ((20001, "open"), (20002, "refused"))
        assert len(set(pod.relays.certificates)) == 1


async def test_a_relay_that_is_somebody_elses_is_refused() -> None:
    async with sidecar() as pod:
        await connected(pod)
        pod.relays.become(pod.certificates.relay(CONTROL_NAME))
        await pod.laptop(20001)
        await pod.manager.tries(20001)
        await pod.manager.until(lambda state: state.return_paths == ((20001, "refused"),))


async def test_a_relay_that_begins_no_handshake_is_silent() -> None:
    async with sidecar() as pod:
        await connected(pod)
        pod.outside.run("ip", "addr", "add", f"{MANAGER + 100}/32", "dev", "eth0")
        with pod.outside.inside():
            mute = socket.create_server((str(MANAGER + 100), RELAYS_PORT))
        with mute:
            await pod.manager.tries(20001, address=MANAGER + 100)
            await pod.manager.until(lambda state: state.return_paths == ((20001, "silent"),))
