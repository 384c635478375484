"""Chaos of routes, links and names on connected laptops, by a seed: status must never lie about what works.

``python -m tests.e2e.chaos --seconds 600 --seed 1 --laptop 1 --laptop 2`` takes the testbed for that long and prints
what was done and what came of it; its exit code is 1 where ``connected`` was said of a laptop on which a name or a
ClusterIP had not worked for more than three seconds.
"""

import argparse
import json
import random
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

from tests.e2e.conftest import Laptop, control, until
from tests.e2e.lock import locked_testbed, to_stderr
from tests.e2e.loops import Loop, StatusLoop, Try, now

L = TypeVar("L", bound=Loop)

#: Issue: what did not work for longer than this is told.
LIE_SECONDS: Final = 3.0

#: Asks the first resolver of resolv.conf, as a program's own resolver would, each time anew.
_NAMES: Final = """
import time
import dns.exception, dns.message, dns.query, dns.rcode, dns.resolver
while True:
    start, said = time.time(), "0"
    try:
        server = dns.resolver.Resolver().nameservers[0]
        query = dns.message.make_query("c.default.svc.cluster.local", "A", use_edns=0)
        answer = dns.query.udp(query, server, timeout=0.5)
        said = "0" if answer.answer else dns.rcode.to_text(answer.rcode())
    except (OSError, dns.exception.DNSException) as error:
        said = repr(error)
    print(start, time.time(), said, flush=True)
    time.sleep(0.1)
"""
_ADDRESS: Final = """
import socket, sys, time
while True:
    start, said = time.time(), "0"
    try:
        with socket.create_connection((sys.argv[1], 80), 0.5) as sock:
            sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            if not sock.recv(4096).startswith(b"HTTP/1"):
                said = "no answer"
    except OSError as error:
        said = repr(error)
    print(start, time.time(), said, flush=True)
    time.sleep(0.1)
"""
#: As ``meshdev status -o json`` asks, without starting a program for each question.
_STATUS: Final = """
import json, socket, time
from meshdev.state import Paths
from meshdev.wire.session_api import StatusRequest, encode_request
path = str(Paths.locate().socket)
while True:
    start, data = time.time(), b""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(encode_request(StatusRequest()))
        while not data.endswith(b"\\n"):
            data += sock.recv(1 << 16)
    print(start, time.time(), json.dumps(json.loads(data)["ok"]), flush=True)
    time.sleep(0.05)
"""


@dataclass(frozen=True)
class Harm:
    """What another program might do; *undo* after a while, "" for what is left to meshdev."""

    do: str
    undo: str = ""


_EVERYWHERE: Final = (
    Harm("ip route del 10.96.0.0/16 dev meshdev0 || true"),
    Harm("ip route flush dev meshdev0"),
    Harm("ip link set meshdev0 down"),
    Harm("ip link set meshdev0 down; sleep 0.5; ip link set meshdev0 up"),
    Harm("ip addr flush dev meshdev0"),
    Harm("ip link set meshdev0 mtu 1280"),
    Harm(
        "ip route replace 10.96.0.0/16 dev lo table 77; ip rule add to 10.96.0.0/16 lookup 77 pref 99",
        "ip rule del pref 99; ip route flush table 77",
    ),
    Harm(
        "ip route add 10.96.0.0/17 dev lo; ip route add 10.96.128.0/17 dev lo",
        "ip route del 10.96.0.0/17 dev lo; ip route del 10.96.128.0/17 dev lo",
    ),
    Harm(
        "nft 'add table inet chaos; add chain inet chaos out { type filter hook output priority 9; }; "
        "add rule inet chaos out oifname meshdev0 drop'",
        "nft delete table inet chaos",
    ),
    Harm(
        "nft 'add table inet chaos; add chain inet chaos out { type filter hook output priority 9; }; "
        "add rule inet chaos out udp dport 53 drop'",
        "nft delete table inet chaos",
    ),
    Harm(
        "(while test -e /sys/class/net/meshdev0; do ip route flush dev meshdev0; sleep 0.05; done) "
        ">/dev/null 2>&1 & echo $! > /run/chaos.pid",
        "kill $(cat /run/chaos.pid)",
    ),
)
_PLAIN: Final = (
    Harm(
        "cp /etc/resolv.conf /run/chaos.conf; echo nameserver 192.0.2.99 > /etc/resolv.conf",
        "cat /run/chaos.conf > /etc/resolv.conf",
    ),
)
_RESOLVED: Final = (
    Harm("resolvectl revert meshdev0"),
    Harm("resolvectl dns meshdev0 203.0.113.53"),
    Harm("resolvectl domain meshdev0 office.test"),
    Harm("kill -STOP $(pidof systemd-resolved)", "kill -CONT $(pidof systemd-resolved)"),
    Harm("restart"),
)


@dataclass
class Story:
    """What happened on one laptop."""

    harms: list[tuple[float, str]] = field(default_factory=list)
    probes: dict[str, list[Try]] = field(default_factory=dict)
    statuses: list[Try] = field(default_factory=list)

    def lies(self) -> list[str]:
        """Each time that something had not worked for LIE_SECONDS and "connected" was said."""
        return [
            f"{what} did not work from {begun:.1f} to {ended:.1f} ({self._cause(tries, begun, ended)}), "
            f"connected was said at {', '.join(f'{said.start:.1f}' for said in told)}"
            for what, tries in self.probes.items()
            for begun, ended in outages(tries)
            if (told := self._told(begun + LIE_SECONDS, ended))
        ]

    def _told(self, begun: float, ended: float) -> list[Try]:
        within = (said for said in self.statuses if begun < said.start and said.end < ended)
        return [said for said in within if _state(said) == "connected"]

    def _cause(self, tries: Iterable[Try], begun: float, ended: float) -> str:
        said = {item.said for item in tries if begun <= item.start <= ended}
        harms = [f"{at:.1f} {what}" for at, what in self.harms if begun - 10 < at < ended]
        return f"{sorted(said)}; harms: {'; '.join(harms)}"

    def summary(self) -> dict[str, object]:
        """Figures."""
        states = [_state(said) for said in self.statuses]
        down = {what: [end - begin for begin, end in outages(tries)] for what, tries in self.probes.items()}
        return {
            "harms": len(self.harms),
            "statuses": {state: states.count(state) for state in sorted(set(states))},
            "tries": {what: len(tries) for what, tries in self.probes.items()},
            "outages": {what: len(lengths) for what, lengths in down.items()},
            "longest_s": {what: round(max(lengths, default=0.0), 2) for what, lengths in down.items()},
            "lies": len(self.lies()),
        }


def outages(tries: Iterable[Try]) -> list[tuple[float, float]]:
    """From the start of the first of some tries that failed in a row to the start of the last: all between failed.

    A single failure is none: it may have begun in the last moment of the harm.
    """
    found: list[tuple[float, float]] = []
    failed: list[Try] = []
    for item in tries:
        if not item.ok:
            failed.append(item)
            continue
        if len(failed) > 1:
            found.append((failed[0].start, failed[-1].start))
        failed = []
    return [*found, (failed[0].start, failed[-1].start)] if len(failed) > 1 else found


def _state(said: Try) -> str:
    return str(json.loads(said.said)["state"])


def unleash(laptop: Laptop, seed: int, seconds: float) -> Story:
    """Harm the connected *laptop* for so long, then wait until it is whole."""
    dice = random.Random(seed)  # noqa: S311 -- to be repeated, not to be guessed
    choice = (*_EVERYWHERE, *(_PLAIN if laptop.number == 1 else _RESOLVED))
    story = Story()
    with ExitStack() as stack:
        watched = {what: stack.enter_context(_loop(probe)) for what, probe in _probes(laptop)}
        status = stack.enter_context(_loop(StatusLoop(laptop, ".venv/bin/python", "-c", _STATUS)))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            _harm(laptop, dice.choice(choice), dice, story)
            time.sleep(dice.uniform(0.3, 4.0))
        for probe in watched.values():
            probe.well(10)
        until("connected", lambda: _state(status.tries[-1]) == "connected", 10)
    story.probes = {what: probe.tries for what, probe in watched.items()}
    story.statuses = status.tries
    return story


def _harm(laptop: Laptop, harm: Harm, dice: random.Random, story: Story) -> None:
    story.harms.append((now(), harm.do))
    if harm.do == "restart":
        control("restart", f"laptop{laptop.number}-resolved")
        return
    laptop.ok("sh", "-c", harm.do)
    if harm.undo:
        try:
            time.sleep(dice.uniform(0.5, 8.0))
        finally:
            laptop.ok("sh", "-c", harm.undo)


def _probes(laptop: Laptop) -> Iterator[tuple[str, Loop]]:
    address = control("kubectl", "get", "service", "c", "-o", "jsonpath={.spec.clusterIP}")
    yield "name", Loop(laptop, ".venv/bin/python", "-c", _NAMES)
    yield "ClusterIP", Loop(laptop, ".venv/bin/python", "-c", _ADDRESS, address)


@contextmanager
def _loop(loop: L) -> Iterator[L]:
    try:
        until("a first try", lambda: loop.tries)
        yield loop
    finally:
        loop.close()


def unleash_all(laptops: Sequence[Laptop], seed: int, seconds: float) -> dict[int, Story]:
    """On all of them at once; they are connected. A laptop whose story is missing failed."""
    stories: dict[int, Story] = {}

    def run(laptop: Laptop) -> None:
        stories[laptop.number] = unleash(laptop, seed + laptop.number, seconds)

    threads = [threading.Thread(target=run, args=[laptop]) for laptop in laptops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return stories


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.chaos")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--laptop", type=int, action="append", choices=(1, 2))
    given = parser.parse_args()
    laptops = [Laptop(number) for number in given.laptop or (1, 2)]
    with locked_testbed(to_stderr), ExitStack() as stack:
        control("up", timeout=1500)
        for laptop in laptops:
            laptop.clean()
            stack.enter_context(laptop.connected())
        stories = unleash_all(laptops, given.seed, given.seconds)
    for number, story in sorted(stories.items()):
        print(f"laptop {number}: {json.dumps(story.summary())}")
        for lie in story.lies():
            print(f"  {lie}")
    return 1 if len(stories) < len(laptops) or any(story.lies() for story in stories.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
