"""``meshdev rbac``: the rules a developer needs, for an admin to apply."""

from typing import Final

EXAMPLE: Final = "x"


def command() -> None:
    """Print."""
