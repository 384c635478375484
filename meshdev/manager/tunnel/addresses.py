"""Which address a session gets, and how long an address rests after a session (pure).

What a session left behind outlives it: tracked connections of the pod, which the cluster may still write to. So an
address that had a session rests for REST_SECONDS, and the next one gets it only after those connections are forgotten.
The session itself may have its address back at any time, connections included: it proves itself by its secret.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import chain
from typing import Final

from meshdev.config import ADDRESS_POOLS, gateway
from meshdev.errors import TunnelError

#: Longer than a peer waits for an answer, in seconds.
REST_SECONDS: Final = 300.0
#: Addresses that may rest; one more shortens the rest of the oldest.
MAX_RESTING: Final = 4096


@dataclass(eq=False)
class RestingAddress:
    """A resting address. ``proof`` is the digest of its last session's secret, ``until`` on the caller's clock."""

    address: IPv4Address
    proof: bytes
    until: float
    flushing: bool = False


@dataclass(frozen=True)
class AddressLease:
    """An address for a session. ``stale``: connections of the session before it are to be forgotten first."""

    address: IPv4Address
    pool: IPv4Network
    rest: RestingAddress | None = None
    stale: bool = False


class SessionAddresses:
    """All addresses. *former* are those of sessions that an earlier process of this pod had, with their proofs."""

    def __init__(self, clock: Callable[[], float], former: Mapping[IPv4Address, bytes] | None = None) -> None:
        self._clock = clock
        self._taken: dict[IPv4Address, bytes] = {}
        self._resting: dict[IPv4Address, RestingAddress] = {}  # the oldest first
        self._last: IPv4Address | None = None
        for address, proof in (former or {}).items():
            self._rest(address, proof)

    def take(self, pools: Sequence[IPv4Network], wanted: IPv4Address | None, proof: bytes) -> AddressLease:
        """An address of *pools* (the best first): *wanted* where possible, else the next one behind the last lease.

        *wanted* is possible where it is free, or rests and *proof* is its last session's. When all are taken or rest,
        the one that has rested longest is given. Raises TunnelError when *pools* holds none of ours or every address
        is taken.
        """
        lease = self._choose(pools, wanted, proof)
        if lease.rest is not None:
            del self._resting[lease.address]
        self._taken[lease.address] = proof
        self._last = lease.address
        return lease

    def cancel(self, lease: AddressLease) -> None:
        """The session did not come about; an address that rested rests on."""
        del self._taken[lease.address]
        if lease.rest is not None:
            self._resting[lease.address] = lease.rest

    def release(self, address: IPv4Address) -> None:
        """The session is gone: its address rests from now on."""
        self._rest(address, self._taken.pop(address))

    def next_due(self) -> float | None:
        """Seconds until one has rested enough; None where none rests."""
        waiting = [rest.until for rest in self._resting.values() if not rest.flushing]
        return max(0.0, min(waiting) - self._clock()) if waiting else None

    def due(self) -> list[RestingAddress]:
        """Those that have rested enough, each returned once: flush their connections, then call :meth:`free`."""
        now, over = self._clock(), len(self._resting) - MAX_RESTING
        found = [
            rest
            for number, rest in enumerate(self._resting.values())
            if not rest.flushing and (rest.until <= now or number < over)
        ]
        for rest in found:
            rest.flushing = True
        return found

    def free(self, rest: RestingAddress) -> None:
        """Its connections are forgotten: anybody may have the address."""
        if self._resting.get(rest.address) is rest:
            del self._resting[rest.address]

    def rest_again(self, rest: RestingAddress) -> None:
        """Its connections could not be forgotten."""
        if self._resting.get(rest.address) is rest:
            self._rest(rest.address, rest.proof)

    def known(self) -> dict[IPv4Address, bytes]:
        """Every address that may have connections, with the proof of its session: for the next process of this pod."""
        return {**{rest.address: rest.proof for rest in self._resting.values()}, **self._taken}

    def _rest(self, address: IPv4Address, proof: bytes) -> None:
        self._resting.pop(address, None)
        self._resting[address] = RestingAddress(address, proof, self._clock() + REST_SECONDS)

    def _choose(self, pools: Sequence[IPv4Network], wanted: IPv4Address | None, proof: bytes) -> AddressLease:
        usable = [pool for pool in pools if pool in ADDRESS_POOLS]
        if not usable:
            raise TunnelError("none of the address ranges the laptop can use is one of the manager's")
        if wanted is not None and (pool := _pool_of(wanted, usable)) and self._may_have(wanted, proof):
            return AddressLease(wanted, pool, self._resting.get(wanted))
        for pool in usable:
            for address in _from(pool, self._last):
                if address not in self._taken and address not in self._resting:
                    return AddressLease(address, pool)
        for rest in self._resting.values():
            if pool := _pool_of(rest.address, usable):
                return AddressLease(rest.address, pool, rest, stale=True)
        raise TunnelError("every session address is taken")

    def _may_have(self, address: IPv4Address, proof: bytes) -> bool:
        rest = self._resting.get(address)
        return address not in self._taken and (rest is None or rest.proof == proof)


def _pool_of(address: IPv4Address, pools: Collection[IPv4Network]) -> IPv4Network | None:
    return next((pool for pool in pools if gateway(pool) < address < pool.broadcast_address), None)


def _from(pool: IPv4Network, after: IPv4Address | None) -> Iterator[IPv4Address]:
    first, last = int(gateway(pool)) + 1, int(pool.broadcast_address) - 1
    start = int(after) + 1 if after is not None and first <= int(after) < last else first
    for number in chain(range(start, last + 1), range(first, start)):
        yield IPv4Address(number)
