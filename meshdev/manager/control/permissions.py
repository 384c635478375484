"""Who may use the relays of claims: for TCP keys, which the container *relay* asks for, for UDP addresses. Pure.

Both sides get states, the newest under each key; what is as it was is not sent.
"""

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address

from meshdev.wire.manager import MAX_ADDRESSES, Allow, Claimed, ToTunnel
from meshdev.wire.relay import MAX_KEYS, RelayEndpoint, RelayRemoved, RelaysSynced, ToRelay


class RelayPermissions:
    """*to_tunnel* and *to_relay* take a key and the newest message for it."""

    def __init__(self, to_tunnel: Callable[[str, ToTunnel], None], to_relay: Callable[[str, ToRelay], None]) -> None:
        self._to_tunnel = to_tunnel
        self._to_relay = to_relay
        self._allowed: dict[int, Allow] = {}
        self._endpoints: dict[int, RelayEndpoint] = {}
        self._owners: dict[int, str] = {}
        """The claim of each relay: a number that one claim had is another's later, which may be announced first."""
        self._synced = False

    def permit(self, claim: Claimed, keys: AbstractSet[str], addresses: Iterable[IPv4Address], *, keep: bool) -> None:
        """The relays of *claim* are for *keys* and *addresses* alone. *keep*: the latter in addition to the former."""
        some_keys = frozenset(sorted(keys)[:MAX_KEYS])
        some = tuple(sorted(set(addresses)))[:MAX_ADDRESSES]
        for each in claim.relays:
            self._owners[each.relay] = claim.id
            if each.protocol == "udp":
                allow = Allow(each.relay, some, keep)
                if self._allowed.get(each.relay) != allow:
                    self._allowed[each.relay] = allow
                    self._to_tunnel(f"allow {each.relay}", allow)
            else:
                endpoint = RelayEndpoint(each.relay, claim.address, some_keys)
                if self._endpoints.get(each.relay) != endpoint:
                    self._endpoints[each.relay] = endpoint
                    self._to_relay(_key(each.relay), endpoint)

    def remove(self, claim: Claimed) -> None:
        """The claim is over, or its relays are others now. The tunnel container removes those of UDP itself."""
        for relay in [each.relay for each in claim.relays if self._owners.get(each.relay) == claim.id]:
            del self._owners[relay]
            self._allowed.pop(relay, None)
            if self._endpoints.pop(relay, None) is not None:
                self._to_relay(_key(relay), RelayRemoved(relay))

    def sync(self) -> None:
        """All claims have been permitted what they shall be."""
        self._synced = True
        self._to_relay("synced", RelaysSynced())

    def for_tunnel(self) -> Iterator[tuple[str, ToTunnel]]:
        """All that a tunnel container is sent when it has connected."""
        for relay, allow in self._allowed.items():
            yield f"allow {relay}", allow

    def for_relay(self) -> Iterator[tuple[str, ToRelay]]:
        """The same for a relay: until all claims are known, what it has stays."""
        for relay, endpoint in self._endpoints.items():
            yield _key(relay), endpoint
        if self._synced:
            yield "synced", RelaysSynced()


def _key(relay: int) -> str:
    return f"relay {relay}"
