"""Packets that vanish between a laptop and the API server: what a broken network does and no close tells."""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from tests.cluster import addresses as plan
from tests.e2e.conftest import CHECKOUT, Laptop, control, until

_TABLE: Final = "inet meshdev_test_blackhole"
_PORT: Final = re.compile(rf"(?P<local>\d+)\s+{re.escape(str(plan.NODE))}:6443")
#: A carrier's heartbeat is one second; a watch is silent for a minute.
_FRESH_MS: Final = 1300


def carrier_ports(laptop: Laptop, carriers: int = 2) -> list[int]:
    """The laptop's own ports of the carriers: the connections to the API server that are never silent."""

    def fresh() -> list[int]:
        found = laptop.ok("ss", "-tinH", "state", "established", "dst", f"{plan.NODE}:6443")
        ports = []
        for address, details in zip(*[iter(found.splitlines())] * 2, strict=True):
            ages = [int(age) for age in re.findall(r"last(?:snd|rcv):(\d+)", details)]
            match = _PORT.search(address)
            if match and ages and max(ages) < _FRESH_MS:
                ports.append(int(match["local"]))
        return ports if len(ports) == carriers else []

    ports: list[int] = until(f"{carriers} carriers beat", fresh)
    return ports


@contextmanager
def blackhole(laptop: Laptop, ports: Iterable[int] = ()) -> Iterator[None]:
    """No packet of these ports passes, in either direction; without *ports* none between laptop and API server."""
    address = plan.laptop(laptop.number).node_network.ip
    chosen = f"{{ {', '.join(map(str, ports))} }}" if ports else "1-65535"
    rules = f"""
table {_TABLE} {{
  chain from_laptop {{ type filter hook prerouting priority raw; ip saddr {address} tcp sport {chosen} drop; }}
  chain to_laptop {{ type filter hook output priority raw; ip daddr {address} tcp dport {chosen} drop; }}
}}
"""
    _nft(f"table {_TABLE}\ndelete table {_TABLE}\n{rules}")
    try:
        yield
    finally:
        control("node", "--", "nft", "delete", "table", *_TABLE.split())


def _nft(script: str) -> None:
    argv = [sys.executable, "-m", "tests.cluster", "node", "--", "nft", "-f", "-"]
    subprocess.run(argv, cwd=CHECKOUT, input=script, text=True, check=True, timeout=20)
