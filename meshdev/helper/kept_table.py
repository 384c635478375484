"""An nftables table that has no owner (Linux before 5.12): others can change it, so it is compared and put back.

``nft flush ruleset`` is how the services of packet filters begin; without the guard anything could come in at the
device, and without the redirect no name would come to the forwarder.
"""

from meshdev.errors import FirewallError
from meshdev.nft import Nftables


def deletion(table: str) -> str:
    """The command after which the table shall not be there."""
    return f"delete table inet {table}\n"


class KeptTable:
    """Stands in for *library*, whose commands change that one table of family ``inet`` only."""

    def __init__(self, library: Nftables, table: str) -> None:
        self._library = library
        self._table = table
        self._kept: str | None = None

    def run(self, commands: str, *, dry: bool = False) -> None:
        """As :meth:`Nftables.run`; the table as it is afterwards is what it shall be.

        Where that cannot be listed this fails, too, and the table shall be what it was before: what is not known cannot
        be kept.
        """
        self._library.run(commands, dry=dry)
        if not dry:
            found = self._library.listing(self._table)
            if found is None and commands != deletion(self._table):
                raise FirewallError("our nftables table was deleted by another program")
            self._kept = found

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
