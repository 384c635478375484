"""Which pools a session's address may come from on this laptop."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from meshdev.config import ADDRESS_POOLS
from meshdev.host.plan import LaptopNetwork


def usable_pools(laptop: LaptopNetwork, pools: Iterable[IPv4Network] = ADDRESS_POOLS) -> tuple[IPv4Network, ...]:
    """*pools* that meet no network, address, gateway or resolver of the laptop, in their order; maybe none.

    Proxies with fake addresses (Clash, sing-box, Surge) hold 198.18.0.0/16 or parts of it. Those with the address of
    another user's session come last: that one may be another manager's, and ours would give the same address again.
    """
    networks = [route.network for route in laptop.networks]
    single = (*laptop.addresses, *laptop.gateways, *laptop.resolvers)
    addresses = [address for address in single if isinstance(address, IPv4Address)]
    usable = [
        pool
        for pool in pools
        if not any(pool.overlaps(network) for network in networks) and not any(address in pool for address in addresses)
    ]
    return tuple(sorted(usable, key=lambda pool: any(address in pool for address in laptop.sessions)))
