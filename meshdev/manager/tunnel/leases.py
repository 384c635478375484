"""Which address a session gets (pure). A session that comes back asks for the one it had."""

from collections.abc import Collection, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from itertools import chain

from meshdev.config import ADDRESS_POOLS, gateway
from meshdev.errors import TunnelError


def lease(
    pools: Sequence[IPv4Network], wanted: IPv4Address | None, taken: Collection[IPv4Address], after: IPv4Address | None
) -> tuple[IPv4Address, IPv4Network]:
    """A free address and its pool: *wanted* where possible, else the next one behind *after*.

    Going on behind the last lease keeps a freed address out of use as long as possible, so that replies to a session
    that went do not reach the next one. Raises TunnelError when *pools* holds none of ours or nothing is free.
    """
    usable = [pool for pool in pools if pool in ADDRESS_POOLS]
    if not usable:
        raise TunnelError("none of the address ranges the laptop can use is one of the manager's")
    if wanted is not None and wanted not in taken:
        for pool in usable:
            if wanted in pool and gateway(pool) < wanted < pool.broadcast_address:
                return wanted, pool
    for pool in usable:
        for address in _from(pool, after):
            if address not in taken:
                return address, pool
    raise TunnelError("every session address is taken")


def _from(pool: IPv4Network, after: IPv4Address | None) -> Iterator[IPv4Address]:
    first, last = int(gateway(pool)) + 1, int(pool.broadcast_address) - 1
    start = int(after) + 1 if after is not None and first <= int(after) < last else first
    for number in chain(range(start, last + 1), range(first, start)):
        yield IPv4Address(number)
