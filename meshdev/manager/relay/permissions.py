"""Which relays there are, where they lead, and whose certificates they take: control's state, as it was sent last."""

from ipaddress import IPv4Address
from typing import Final

from meshdev.wire.relay import RelayEndpoint, RelayRemoved, RelaysSynced


class Permissions:
    """Empty until control has sent something. While control is away, what it sent last holds."""

    def __init__(self) -> None:
        self._endpoints: Final[dict[int, RelayEndpoint]] = {}
        self._former: set[int] = set()
        """Relays that control has not named since it connected: they end when it has named all."""

    def __len__(self) -> int:
        return len(self._endpoints)

    def address(self, relay: int | None) -> IPv4Address | None:
        """Where that relay leads; None where there is none of that number."""
        endpoint = self._endpoints.get(relay) if relay is not None else None
        return endpoint.address if endpoint is not None else None

    def permits(self, relay: int, address: IPv4Address, key: str | None) -> bool:
        """Whether a connection by that relay to that address may go on; without a *key* it has shown none yet."""
        endpoint = self._endpoints.get(relay)
        return endpoint is not None and endpoint.address == address and (key is None or key in endpoint.keys)

    def begin(self) -> None:
        """Control has connected anew, and will send everything."""
        self._former = set(self._endpoints)

    def take(self, message: RelayEndpoint | RelayRemoved | RelaysSynced) -> frozenset[int]:
        """The relays of which something may have been withdrawn."""
        match message:
            case RelayEndpoint(relay=relay):
                self._former.discard(relay)
                self._endpoints[relay] = message
                return frozenset({relay})
            case RelayRemoved(relay=relay):
                self._former.discard(relay)
                return frozenset({relay} if self._endpoints.pop(relay, None) is not None else ())
            case RelaysSynced():
                former, self._former = frozenset(self._former), set()
                for relay in former:
                    del self._endpoints[relay]
                return former
