"""An nftables table without an owner (Linux before 5.12): others can change it, so it is compared and restored.

Firewall services begin with ``nft flush ruleset``; without the guard anything could come in at the device, and without
the redirect no query would reach the forwarder.
"""

from meshdev.errors import FirewallError
from meshdev.nft import Nftables


def deletion(table: str) -> str:
    """The command that deletes the table."""
    return f"delete table inet {table}\n"


class KeptTable:
    """A stand-in for *library* whose commands change only that one table of family ``inet``."""

    def __init__(self, library: Nftables, table: str) -> None:
        self._library = library
        self._table = table
        self._kept: str | None = None

    def run(self, commands: str, *, dry: bool = False) -> None:
        """As :meth:`Nftables.run`; the resulting table is the desired state from then on.

        Fails, too, where the table cannot be listed; the desired state is then the former one.
        """
        self._library.run(commands, dry=dry)
        if not dry:
            found = self._library.listing(self._table)
            if found is None and commands != deletion(self._table):
                raise FirewallError("our nftables table was deleted by another program")
            self._kept = found

    def put_back(self) -> bool:
        """Restore the desired state; returns whether the table differed. Raises FirewallError."""
        if self._kept is None or self._library.listing(self._table) == self._kept:
            return False
        # A listing consists of the commands that create it.
        fresh = f"add table inet {self._table}\ndelete table inet {self._table}\n"
        self.run(fresh + self._kept)
        return True

    def close(self) -> None:
        """As :meth:`Nftables.close`."""
        self._library.close()
