"""An nftables table that has no owner (Linux before 5.12): others can change it, so it is compared and put back.

``nft flush ruleset`` is how the services of packet filters begin; without the guard anything could come in at the
device, and without the redirect no name would come to the forwarder.
"""

from meshdev.nft import Nftables


class KeptTable:
    """Stands in for *library*, whose commands change that one table of family ``inet`` only."""

    def __init__(self, library: Nftables, table: str) -> None:
        self._library = library
        self._table = table
        self._kept: str | None = None

    def run(self, commands: str, *, dry: bool = False) -> None:
        """As :meth:`Nftables.run`; the table as it is afterwards is what it shall be."""
        self._library.run(commands, dry=dry)
        if not dry:
            self._kept = self._library.listing(self._table)

    def put_back(self) -> bool:
        """Make the table what it shall be; whether it was not. Raises FirewallError."""
        if self._kept is None or self._library.listing(self._table) == self._kept:
            return False
        # Listed rules are commands that make them.
        fresh = f"add table inet {self._table}\ndelete table inet {self._table}\n"
        self.run(fresh + self._kept)
        return True

    def close(self) -> None:
        """As :meth:`Nftables.close`."""
        self._library.close()
